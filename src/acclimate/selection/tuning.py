"""Sweeps over settings whose trials are compared by a label-free score: no target label is opened."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import filecmp
import itertools
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from acclimate import __version__, tasks
from acclimate.data.preprocess import Preprocess
from acclimate.engine.adapt import adapt, default_device
from acclimate.engine.code import PARTS, code_files, code_hash, files_of
from acclimate.engine.model import Model
from acclimate.engine.run import flat
from acclimate.engine.world import World
from acclimate.errors import NumericError, UsageError, missing_extra
from acclimate.experiment import (
    BASELINE,
    BEST,
    COLLAPSE,
    SWEEP,
    Domains,
    Experiment,
    Listener,
    Player,
    check_methods,
    fresh_network,
    judge,
    model_folder,
    open_domains,
    source_shares,
    starts_from_source,
)
from acclimate.files import write_bytes, write_json
from acclimate.methods import Method, Need, Train, find
from acclimate.networks.contract import Network
from acclimate.random import key
from acclimate.runs import folder_of
from acclimate.selection import Score
from acclimate.selection.learnt import forgot, learnt
from acclimate.selection.search_space import LR, Choice, Search, changed, default_search, present
from acclimate.selection.see import see

SCHEMA = 1
JOURNAL = "study.journal"
STARTUP = 5  # trials at random before the sampler learns from them
OF_SOURCE = {"zs", "fs", "ys", "image_s", "fs_train", "masks_s"}  # what a score sees of the source
HELD_OUT = {"zs", "fs", "ys", "image_s"}  # of source images that training has not seen
LOOKED_AT = 16  # images of a domain that its fingerprint reads
SCORING = (*PARTS, "acclimate.distances.", "acclimate.engine.seeing", "acclimate.selection.")  # what scores are made of


def tune(
    experiment: Experiment,
    folder: Path,
    *,
    score: Score,
    search: Search | None = None,
    trials: int = 20,
    device: torch.device | str | None = None,
    listener: Listener | None = None,
    told: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train the one method of an experiment with other settings, again and again, towards a better label-free score.

    Trial 0 has the settings as they are; the others are drawn by a tree-structured Parzen estimator (Bergstra et al.,
    NeurIPS 2011) whose draws are keyed by seed and trial. Source-only is trained once, and methods that need a source
    model start from it in every trial. The score sees the images that the target offers for training.

    Many scores are at their best for a network that has learnt nothing and gives the same answer to everything, which a low
    learning rate makes. So a trial of a method that learns from the source is set aside where it has :func:`learnt` less
    than half as much of the source as source-only, and any where it alone gives one class to nearly all of the target; the
    sampler takes it, and what failed, for the worst. Settings that were tried before are not trained again; where all
    combinations of the values to choose from can be tried, each is tried once.

    The same call goes on where the last one stopped: finished trials are kept, a trial that was interrupted continues
    with its own settings from its last checkpoint.

    Args:
        folder: gets ``trial-NNN`` (a model each), ``source-only``, ``best`` (a copy of the best trial's model),
            ``study.journal`` and ``tune.json``.
        score: compares models one by one; see :func:`acclimate.selection.find`.
        search: default: :func:`default_search`.
        trials: how many there shall be in total, with those that failed (they became non-finite, their settings do not go
            together, their score is not a number) and those that were set aside.
        told: called with the entry of each trial in ``tune.json`` when the trial ends.

    Returns what ``tune.json`` holds.

    Raises :class:`UsageError` if the folder holds a sweep over something else, or if the score cannot be an objective;
    :class:`NumericError` if every trial failed.
    """
    optuna = _optuna()
    if World.current().size > 1:
        raise UsageError("a sweep runs in one process; start it without torchrun")
    if len(experiment.methods) != 1:
        raise UsageError(f"a sweep is of one method, not of {len(experiment.methods)}: {', '.join(experiment.methods)}")
    shared = _shared(experiment, torch.device(device) if device else default_device(), listener, score)
    search = dict(default_search(experiment) if search is None else search)
    _check_search(search, shared)
    with _quiet(optuna):
        study = _study(optuna, folder, _question(shared, search))
        sweep = _Tuning(optuna, study, folder, shared, search, trials)
        if "source-only" not in study.user_attrs:
            sweep.baseline()
        elif starts_from_source(experiment, experiment.methods[0]) and shared.given is None:
            shared.trained = Model.load(folder / BASELINE, "cpu").method.net
        while (number := sweep.next()) is not None:
            entry = sweep.trial(number)
            if told:
                told(entry)
        document = sweep.write()
    if document["best"] is None:
        reasons = dict.fromkeys(entry["reason"] for entry in document["trials"])
        raise NumericError(
            f"no trial can be used: {'; '.join(list(reasons)[:2])}; train longer (--steps), or search elsewhere (--search)"
        )
    return document


@dataclasses.dataclass
class _Shared:
    """What all trials have in common."""

    experiment: Experiment
    domains: Domains
    task: tasks.Task
    preprocess: Preprocess
    given: Model | None
    fresh: Network
    trained: Network  # source-only's, once there is one
    labelled: list[float] | None  # how often each class occurs in the source's labels
    device: torch.device
    listener: Listener | None
    score: Score


def _shared(experiment: Experiment, device: torch.device, listener: Listener | None, score: Score) -> _Shared:
    given = Model.load(model_folder(Path(experiment.model)), device) if experiment.model else None
    if experiment.source is None and given is None:
        raise UsageError("give a labelled --source, or a --model that was trained on one")
    domains = open_domains(experiment, experiment.task or (given.method.task.name if given else None), score=False)
    task = given.method.task if given else domains.task()
    method = experiment.methods[0]
    check_methods(experiment.methods, task, domains)
    if Need.TARGET_LABELS in find(method).needs:
        raise UsageError(f"{method} is trained on the target's labels: with them, tune it by their score")
    _check_score(score, task, domains)
    if given:
        fresh, preprocess = given.method.net, given.preprocess
    else:
        fresh, preprocess = fresh_network(experiment, domains, task, experiment.plan.seed)
    labelled = source_shares(domains.source, len(task.classes))
    return _Shared(
        experiment, domains, task, preprocess, given, fresh, fresh, labelled, device, listener, score
    )  # fmt: skip


def _check_score(score: Score, task: tasks.Task, domains: Domains) -> None:
    """Raise :class:`UsageError` for a score that says nothing of one model alone, or of these domains."""
    if "consensus" in score.takes:
        raise UsageError(
            f"{score.name} compares all models with each other, so it does not say how good one trial is; choose another "
            "--score, and use acclimate compare for the finished trials"
        )
    if task.name not in score.tasks:
        raise UsageError(
            f"{score.name} is a score for {' and '.join(score.tasks)}; for {task.name} choose another --score"
        )
    takes = set(score.takes)
    if domains.source is None and takes & OF_SOURCE:
        raise UsageError(f"{score.name} needs the source, which a --model does not bring; choose another --score")
    if domains.source_test is None and takes & HELD_OUT:
        raise UsageError(
            f"{score.name} needs source images that training has not seen, and none are kept; set holdout above 0, or "
            "choose another --score"
        )


def _check_search(search: Search, shared: _Shared) -> None:
    """Raise :class:`UsageError` where nothing is left to search, or where a learning rate would do nothing."""
    method = shared.experiment.methods[0]
    trains = any(isinstance(stage, Train) for stage in _made(shared, shared.experiment).stages())
    if not search or (not trains and set(search) == {LR}):
        raise UsageError(
            f"{method} has no learning rate and no weight to search; name what to try, such as "
            f"--search {method}.{next(iter(find(method).Settings.model_fields), 'KEY')}=A,B"
        )
    if LR in search and not trains:
        raise UsageError(f"{method} trains nothing, so lr has no meaning; leave out --search lr")


def _made(shared: _Shared, experiment: Experiment) -> Method:
    """The experiment's method. Raises :class:`_Unfit` where its settings do not go together."""
    name = experiment.methods[0]
    try:
        plan = experiment.plan.replace(**experiment.plans.get(name, {}))
        with torch.random.fork_rng(devices=[]):
            return find(name)(copy.deepcopy(shared.fresh), shared.task, plan, **experiment.settings.get(name, {}))
    except UsageError as error:
        raise _Unfit(str(error)) from error


def _question(shared: _Shared, search: Search) -> dict[str, Any]:
    """All that must be equal for a sweep to be the same sweep; the number of trials is not of it."""
    scoring = [sys.modules[function.__module__] for function in (shared.score.function, see, learnt)]
    files = set(files_of(scoring, SCORING))
    for name in (BASELINE, *shared.experiment.methods):  # source-only too: trials may start from it
        files.update(code_files(find(name)))
    asked = {
        "experiment": shared.experiment.model_dump(mode="json"),
        "score": shared.score.name,
        "search": {name: {type(each).__name__.lower(): dataclasses.asdict(each)} for name, each in search.items()},
        "device": shared.device.type,
        "data": {
            name: {"name": domain.name, "images": len(domain), "fingerprint": domain.fingerprint(LOOKED_AT)}
            for name, domain in vars(shared.domains).items()
            if domain is not None
        },
        "code": {f"{path.parent.name}/{path.name}": code_hash(path) for path in sorted(files)},
    }
    return json.loads(json.dumps(asked))


@dataclasses.dataclass
class _Tuning:
    """A study of optuna whose trials are runs."""

    optuna: ModuleType
    study: Any
    folder: Path
    shared: _Shared
    search: Search
    trials: int

    def baseline(self) -> None:
        """Train source-only, or take the given model, and score it."""
        if self.shared.given:
            model = self.shared.given
            model.method.to(self.shared.device)
            model.device = self.shared.device
            facts = self._judged(BASELINE, model, [])
        else:
            model, facts = self._trained(BASELINE, self.shared.experiment, self.folder / BASELINE, BASELINE)
        self.shared.trained = model.method.net
        self.study.set_user_attr("source-only", facts)
        _tidy(self.folder / BASELINE)
        self.write()

    def next(self) -> int | None:
        """The number of the trial that was interrupted, or of a new one; None where there are as many as wanted."""
        states = self.optuna.trial.TrialState
        found = self.study.get_trials(deepcopy=False)
        for trial in found:
            if trial.state in (states.RUNNING, states.WAITING) and trial.number < self.trials:
                return trial.number
        if len(found) >= self.trials or (found and self._all_can_be_tried() and not self._untried()):
            return None
        return len(found)

    def _all_can_be_tried(self) -> bool:
        """Whether nothing is searched but some values, in no more combinations than there shall be trials."""
        counts = [len(each.values) for each in self.search.values() if isinstance(each, Choice)]
        return len(counts) == len(self.search) and math.prod(counts) <= self.trials

    def _untried(self) -> list[dict[str, Any]]:
        """The combinations that no trial has, in a drawn order, as the journal holds them."""
        tried = [trial.user_attrs.get("settings") for trial in self.study.get_trials(deepcopy=False)]
        choices = [each.values for each in self.search.values() if isinstance(each, Choice)]
        every = [dict(zip(self.search, values)) for values in itertools.product(*choices)]
        left = [values for values in every if values not in tried]
        np.random.default_rng(key(self.shared.experiment.plan.seed, "tune", "combinations")).shuffle(left)
        return [{name: self.search[name].recorded(value) for name, value in values.items()} for values in left]

    def trial(self, number: int) -> dict[str, Any]:
        """Draw the settings unless they have been drawn, train, score, and write down what came of it."""
        trial = self._begun(number)
        experiment = self.shared.experiment
        method = experiment.methods[0]
        values = {name: present(experiment, name) for name in self.search}
        if number > 0:
            values = {name: self._drawn(trial, name) for name in self.search}
            experiment = changed(experiment, values)
        elif self._holds_defaults():
            for name in self.search:
                self._drawn(trial, name)
        trial.set_user_attr("settings", values)
        place = self.folder / folder_of(number)
        if (same := self._tried(number, values)) is not None:
            trial.set_user_attr("reason", f"the same settings as trial {same.number}")
            trial.set_user_attr("state", "repeated")
            states = self.optuna.trial.TrialState
            finished = same.state == states.COMPLETE
            self.study.tell(trial, same.value) if finished else self.study.tell(trial, state=states.PRUNED)
            return self.write()["trials"][number]
        try:
            _made(self.shared, experiment)
            _, facts = self._trained(method, experiment, place, f"{method}, trial {number}")
        except (NumericError, _Unfit) as error:
            self._failed(trial, str(error))
        else:
            trial.set_user_attr("facts", facts)
            if not math.isfinite(facts["score"]):
                self._failed(trial, f"{self.shared.score.name} is not a number for this model")
            elif forgot(method, facts["learnt"], self.study.user_attrs["source-only"]["learnt"]):
                self._failed(trial, "it has learnt less than half as much of the source as source-only", "set aside")
            elif self._collapsed(facts) and not self._collapsed(self.study.user_attrs["source-only"]):
                self._failed(trial, "it gives one class to nearly all of the target", "set aside")
            else:
                self.study.tell(trial, self.shared.score.gain(facts["score"]))
        _tidy(place)
        return self.write()["trials"][number]

    def _collapsed(self, facts: Mapping[str, Any]) -> bool:
        return max(facts["predicted shares"].values()) > COLLAPSE[self.shared.task.name]

    def _tried(self, number: int, values: Mapping[str, Any]) -> Any | None:
        """The earlier trial with the same settings, which need not be trained again."""
        for trial in self.study.get_trials(deepcopy=False)[:number]:
            if trial.user_attrs.get("settings") == values and trial.user_attrs.get("state") != "repeated":
                return trial
        return None

    def _drawn(self, trial: Any, name: str) -> Any:
        """A value for a setting; the one that was drawn before an interruption, if there is one."""
        seed = key(self.shared.experiment.plan.seed, "tune", trial.number, name) % 2**32
        # One sampler for each draw: a sampler that began anew after an interruption would repeat its first draws.
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        return self.search[name].suggested(trial, name)

    def _begun(self, number: int) -> Any:
        found = self.study.get_trials(deepcopy=False)
        if number < len(found) and found[number].state == self.optuna.trial.TrialState.RUNNING:
            return self.optuna.trial.Trial(self.study, found[number]._trial_id)
        if number == 0 and not found and self._holds_defaults():
            experiment = self.shared.experiment
            recorded = {name: each.recorded(present(experiment, name)) for name, each in self.search.items()}
            self.study.enqueue_trial(recorded)
        elif number == len(found) and self._all_can_be_tried():
            self.study.enqueue_trial(self._untried()[0])
        return self.study.ask()

    def _holds_defaults(self) -> bool:
        """Whether the sampler can learn from trial 0."""
        return all(present(self.shared.experiment, name) in each for name, each in self.search.items())

    def _failed(self, trial: Any, reason: str, state: str = "failed") -> None:
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("state", state)
        # Of failed trials the sampler learns nothing and would go there again; pruned ones are the worst to it.
        self.study.tell(trial, state=self.optuna.trial.TrialState.PRUNED)

    def _trained(self, name: str, experiment: Experiment, place: Path, called: str) -> tuple[Model, dict[str, Any]]:
        shared, seed = self.shared, experiment.plan.seed
        listener = shared.listener
        done = adapt(
            shared.trained if starts_from_source(experiment, name) else shared.fresh,
            shared.domains.source,
            shared.domains.target,
            name,
            labelled=shared.domains.labelled,
            plan=experiment.plan.replace(**experiment.plans.get(name, {})),
            preprocess=shared.preprocess,
            task=shared.task,
            folder=place,
            device=shared.device,
            observer=None if listener is None else (lambda report: listener(called, seed, report)),
            **experiment.settings.get(name, {}),
        )
        model = done.model
        if shared.given:
            model = dataclasses.replace(model, inference=shared.given.inference)
        facts = self._judged(name, model, done.warnings)
        model.save(place)
        return model, facts

    def _judged(self, name: str, model: Model, warnings: Sequence[str]) -> dict[str, Any]:
        """The score and what else is known without a target label."""
        shared = self.shared
        player = Player(name, model, {"warnings": list(warnings)})
        judge(player, shared.domains, shared.labelled)
        on_source = player.facts["source_test"]
        seen = see(model, shared.domains.target, shared.domains.source, shared.domains.source_test)
        return {
            "score": shared.score(seen),
            "learnt": learnt(seen, shared.task),
            "source_test": None if on_source is None else on_source["value"],
            "predicted shares": player.facts["predicted shares"],
            "mean confidence": player.facts["mean confidence"],
            "warnings": player.facts["warnings"],
        }

    def _keep_best(self, place: Path) -> None:
        """Make ``best`` a copy of the model at ``place``, unless it is one already or somebody has deleted that model."""
        best, names = self.folder / BEST, ["model.safetensors", "model.json"]
        if not (place / "model.json").exists() or filecmp.cmpfiles(place, best, names, shallow=False)[0] == names:
            return
        (best / "model.json").unlink(missing_ok=True)  # so that weights and settings are never of two trials
        for name in names:
            write_bytes(best / name, (place / name).read_bytes())

    def write(self) -> dict[str, Any]:
        """Make ``best`` and ``tune.json`` what the journal says: a kill may have left older ones."""
        states = self.optuna.trial.TrialState
        names = {states.COMPLETE: "finished", states.PRUNED: "failed", states.RUNNING: "begun"}
        score, shared = self.shared.score, self.shared
        entries = [
            {
                "number": trial.number,
                "state": trial.user_attrs.get("state", names[trial.state]),
                "folder": str(self.folder / folder_of(trial.number)),
                "settings": trial.user_attrs.get("settings", {}),
                "reason": trial.user_attrs.get("reason"),
                **trial.user_attrs.get("facts", {"score": None}),
            }
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state in names
        ]
        document = {
            "schema": SCHEMA,
            "acclimate": __version__,
            "question": self.study.user_attrs["question"],
            "method": shared.experiment.methods[0],
            "task": shared.task.name,
            "primary": shared.task.primary,
            "classes": list(shared.task.classes),
            "score": {"name": score.name, "title": score.title, "better": score.better, "fails": score.fails},
            "source-only": self.study.user_attrs.get("source-only"),
            "trials": entries,
        }
        document["best"] = next((entry["number"] for entry in ranking(document)), None)
        if document["best"] is not None:
            self._keep_best(self.folder / folder_of(document["best"]))
        write_json(self.folder / SWEEP, document)
        return document


def ranking(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The finished trials of ``tune.json`` by their score, the best one first; of equals the earlier one."""
    sign = -1 if document["score"]["better"] == "high" else 1
    finished = [entry for entry in document["trials"] if entry["state"] == "finished"]
    return sorted(finished, key=lambda entry: sign * entry["score"])


class _Unfit(UsageError):
    """Values that are allowed one by one and do not go together, which ends a trial and not the sweep."""


def _tidy(place: Path) -> None:
    """Without the checkpoints of what is finished, which are several times as large as the model."""
    for name in ("checkpoints", "artifacts"):
        shutil.rmtree(place / name, ignore_errors=True)


# -- the journal ------------------------------------------------------------------------------------------------------


def _study(optuna: ModuleType, folder: Path, question: dict[str, Any]) -> Any:
    """The study of a folder. Raises :class:`UsageError` if it asks something else, naming what."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOURNAL
    _mend(path)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    theirs = study.user_attrs.get("question")
    if theirs is None:
        study.set_user_attr("question", question)
    elif theirs != question:
        mine, theirs = _leaves(question), _leaves(theirs)
        differ = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        raise UsageError(f"{folder} was begun with other {', '.join(differ)}; use another --out, or the same command")
    return study


def _leaves(question: Mapping[str, Any]) -> dict[str, Any]:
    """The question on one level, with one name for each setting that is searched."""
    searched = {f"search.{name}": each for name, each in question["search"].items()}
    rest = {name: value for name, value in question.items() if name != "search"}
    return searched | {name[1:]: value for name, value in flat("", rest).items()}


def _mend(path: Path) -> None:
    """Without half a line at the end, which a kill or a full disk leaves and which the next line would be glued to."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n") and content:
        write_bytes(path, content[: content.rfind(b"\n") + 1])


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise missing_extra("sweep", "acclimate tune") from None
    return optuna


@contextlib.contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Without the lines that optuna writes at every study and trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
