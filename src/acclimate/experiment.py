"""Source-only, the methods, and perhaps the oracle, beside each other: what ``adapt``, ``demo`` and every table run."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from acclimate import __version__, networks, registry, tasks
from acclimate.data import open_domain, open_splits
from acclimate.data.domain import Domain
from acclimate.data.folder import match_classes
from acclimate.data.preprocess import Preprocess
from acclimate.engine.adapt import adapt, check_network, default_device, default_preprocess
from acclimate.engine.evaluate import Evaluation, evaluate
from acclimate.engine.model import Model
from acclimate.engine.run import Report
from acclimate.engine.world import World
from acclimate.errors import UsageError
from acclimate.files import read_json, write_json
from acclimate.methods import Method, Need, find
from acclimate.networks.contract import Network
from acclimate.plan import Plan
from acclimate.random import key
from acclimate.settings import Settings

SCHEMA = 1
SWEEP, BEST = "tune.json", "best"  # of a sweep: what it found, and its best model by the label-free score
BASELINE, ORACLE = "source-only", "trained-on-target"
DEFAULT_NETWORK = {"classification": "dtn", "segmentation": "unet"}
LOOKED_AT = 1000  # target images whose predictions are summed up without labels
COLLAPSE = {"classification": 0.95, "segmentation": 0.999}  # share of one class among the predictions of the target
FACTOR, APART = 5, 0.05  # from which on a class's share on the target differs oddly from that of the source's labels
LABELS_READ = {"classification": 1000, "segmentation": 96}  # source labels that are counted
LEARNT = 0.1  # of what one class for everything leaves to a perfect score

Listener = Callable[[str, int, Report], None]
"""Hears every report of the engine, with the method's name and the seed."""


class Experiment(Settings):
    """All that is needed to repeat it."""

    source: str | None = None  # a folder or a catalog name
    target: str
    model: str | None = None  # a folder with a source model, in place of a source
    task: str | None = None
    network: str | None = None
    network_settings: dict[str, Any] = {}
    methods: tuple[str, ...] = ("dann",)
    oracle: bool = False  # also train on the target's own labels
    plan: Plan = Plan()
    plans: dict[str, dict[str, Any]] = {}  # changes of the plan by method
    preprocess: dict[str, Any] = {}  # changes of what fits network and task
    settings: dict[str, dict[str, Any]] = {}  # by method
    class_map: dict[str, str] = {}  # the target's class names -> the source's, or "ignore"
    labelled: str | int | None = None  # a few labelled target images; a number: of the target's own, for tables
    warm_start: bool = False  # every method but the references starts from source-only's network, as if pre-trained
    holdout: float = Field(0.2, ge=0, lt=1)  # share of a folder kept for scoring; 0: the target adapted to is scored


@dataclasses.dataclass(frozen=True)
class Domains:
    """What is trained on and what is scored on."""

    source: Domain | None
    source_test: Domain | None
    target: Domain
    target_test: Domain | None  # None unless the experiment scores
    labelled: Domain | None = None  # a few labelled target images

    def task(self) -> tasks.Task:
        """What the source's labels ask for, or those of the target where there is no source."""
        judged = self.source or self.target
        return tasks.build(str(judged.task), judged.classes)


@dataclasses.dataclass(frozen=True)
class Player:
    """One method's result for one seed."""

    method: str
    model: Model
    facts: dict[str, Any]


def open_domains(experiment: Experiment, task: str | None, score: bool) -> Domains:
    """Open both domains; the target without labels unless the experiment scores or trains an oracle.

    Raises :class:`UsageError` or :class:`DataError` where they do not fit each other.
    """
    source = source_test = None
    if experiment.source is not None:
        source, source_test = open_splits(experiment.source, experiment.holdout, task)
        if source_test is source:
            source_test = None  # nothing was kept that training has not seen
        if source.labels is None:
            raise UsageError(
                f"the source {experiment.source} has no labels; it needs class sub-folders, or images/ with masks/"
            )
    if not (score or experiment.oracle):
        target = open_domain(experiment.target)
        if source is not None and target.task == source.task and target.labels is not None:
            match_classes(source, target, experiment.class_map)  # a wrong pair shall be noticed; the labels stay closed
        return Domains(source, source_test, target.unlabelled(), None, few_labelled(experiment, source, target, task))
    target, target_test = open_splits(experiment.target, experiment.holdout, task)
    if isinstance(experiment.labelled, int) and target_test is target:
        raise UsageError(
            "the labelled images would be scored too: set holdout above 0, or name a folder of labelled images"
        )
    few = few_labelled(experiment, source, target, task)  # before the target's classes are matched: its own are too
    if source is not None:
        target = match_classes(source, target, experiment.class_map)
        target_test = match_classes(source, target_test, experiment.class_map)
    return Domains(source, source_test, target, target_test if score else None, few)


def few_labelled(experiment: Experiment, source: Domain | None, target: Domain, task: str | None) -> Domain | None:
    """The few labelled target images that an experiment names."""
    named = experiment.labelled
    if named is None:
        return None
    if isinstance(named, int):
        if not 0 < named <= len(target):
            raise UsageError(f"labelled must lie in 1..{len(target)} (the target's training images), not {named}")
        order = np.random.default_rng(key("labelled")).permutation(len(target))
        found = target.subset(sorted(order[:named].tolist()))
    else:
        found = open_domain(named, task=task)
    if found.labels is None:
        raise UsageError(f"the images of {found.name} that shall be labelled have no labels")
    return found if source is None else match_classes(source, found, experiment.class_map)


def starts_from_source(experiment: Experiment, name: str) -> bool:
    """Whether a method starts from source-only's network rather than from a fresh one."""
    needs = find(name).needs
    reference = name == BASELINE or Need.TARGET_LABELS in needs
    return Need.SOURCE_MODEL in needs or (experiment.warm_start and not reference)


def reads(name: str) -> str | None:
    """What a method that is no oracle reads of the target's labels, which is said wherever its numbers stand."""
    return "few target labels" if Need.FEW_TARGET_LABELS in find(name).needs else None


def check_methods(names: Iterable[str], task: tasks.Task, domains: Domains) -> None:
    """Raise :class:`UsageError`, before anything is trained, if a method cannot work on these domains."""
    for name in names:
        kind = find(name)
        if task.name not in kind.card.tasks:
            raise UsageError(
                f"{name} is for {' and '.join(kind.card.tasks)}; for {task.name} choose another method, such as "
                f"{', '.join(alike(kind, task.name))} (acclimate methods says which are for what)"
            )
        if Need.SOURCE in kind.needs and domains.source is None:
            raise UsageError(
                f"{name} needs a labelled --source; without one, choose a source-free method such as adabn"
            )
        if Need.FEW_TARGET_LABELS in kind.needs and domains.labelled is None:
            raise UsageError(f"{name} needs a few labelled target images: name their folder with --labelled")


def alike(kind: type[Method], task: str, count: int = 3) -> list[str]:
    """Methods for a task, first those that need what ``kind`` needs; no reference and no oracle."""
    known = {name: find(name) for name in registry.names("methods") if name != BASELINE}
    fitting = [
        name for name, other in known.items() if task in other.card.tasks and Need.TARGET_LABELS not in other.needs
    ]
    return sorted(fitting, key=lambda name: known[name].needs != kind.needs)[:count]


def carry_out(
    experiment: Experiment,
    folder: Path,
    *,
    seeds: Sequence[int] | None = None,
    score: bool = False,
    device: torch.device | str | None = None,
    listener: Listener | None = None,
    force: bool = False,
    after: Callable[[Domains, list[Player]], None] | None = None,
) -> dict[str, Any]:
    """Train and judge every player for every seed; a rerun goes on where the last one stopped.

    Args:
        folder: gets one folder per seed and method, and ``results.json``.
        seeds: default: the plan's.
        score: open the target's labels to score; only demos, tables and studies do.
        after: called once, with the players of the first seed.

    Returns what ``results.json`` holds.
    """
    seeds = [experiment.plan.seed] if seeds is None else list(seeds)
    given = Model.load(model_folder(Path(experiment.model)), device or "cpu") if experiment.model else None
    if experiment.source is None and given is None:
        raise UsageError("give a labelled --source, or a --model that was trained on one")
    task_name = experiment.task or (given.method.task.name if given else None)
    domains = open_domains(experiment, task_name, score)
    task = given.method.task if given else domains.task()
    check_methods(method_names(experiment), task, domains)
    device = torch.device(device) if device else default_device()
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "acclimate": __version__,
        "experiment": experiment.model_dump(mode="json"),
        "task": task.name,
        "classes": list(task.classes),
        "primary": task.primary,
        "scored": score,
        "device": device.type,
        "seeds": seeds,
        "domains": {
            name: {"name": domain.name, "images": len(domain), "facts": dict(domain.facts)}
            for name, domain in vars(domains).items()
            if domain is not None
        },
        "players": {},
    }
    labelled = source_shares(domains.source, len(task.classes))
    for seed in seeds:
        players = []
        for player in _players(
            experiment, domains, task, given, folder / f"seed-{seed}", seed, device, listener, force
        ):
            judge(player, domains, labelled)
            entry = results["players"].setdefault(player.method, {"title": find(player.method).card.title, "seeds": {}})
            entry["oracle"] = Need.TARGET_LABELS in find(player.method).needs
            entry["reads"] = reads(player.method)
            entry["seeds"][str(seed)] = player.facts
            players.append(player)
        if seed == seeds[0]:
            first = players
            changed_predictions(first, domains.target)
    for entry in results["players"].values():
        entry["summary"] = summary(entry["seeds"].values())
    if World.current().first:
        write_json(folder / "results.json", results)
        if after:
            after(domains, first)
    return results


def method_names(experiment: Experiment) -> list[str]:
    """Source-only where it is not given, the methods, the oracle: each once."""
    references = [] if experiment.model else [BASELINE]
    return list(dict.fromkeys([*references, *experiment.methods, *([ORACLE] if experiment.oracle else [])]))


def _players(
    experiment: Experiment,
    domains: Domains,
    task: tasks.Task,
    given: Model | None,
    folder: Path,
    seed: int,
    device: torch.device,
    listener: Listener | None,
    force: bool,
) -> Iterable[Player]:
    if given:
        fresh, preprocess = given.method.net, given.preprocess
    else:
        fresh, preprocess = fresh_network(experiment, domains, task, seed)
    trained = fresh
    if given:
        given.method.to(device)
        given.device = device
        yield Player(BASELINE, given, {"history": [], "warnings": [], "seconds": 0.0, "given": True})
    for name in method_names(experiment):
        plan = experiment.plan.replace(**{**experiment.plans.get(name, {}), "seed": seed})
        place = folder / name
        finished = (place / "model.json").exists()
        done = adapt(
            trained if starts_from_source(experiment, name) else fresh,
            domains.source,
            domains.target,
            name,
            labelled=domains.labelled,
            plan=plan,
            preprocess=preprocess,
            task=task,
            folder=place,
            device=device,
            observer=None if listener is None else (lambda report, name=name: listener(name, seed, report)),  # type: ignore[misc]
            force=force,
            **experiment.settings.get(name, {}),
        )
        if name == BASELINE:
            trained = done.model.method.net
        facts = {
            "history": done.history,
            "warnings": done.warnings,
            "seconds": _seconds(place, 0.0 if finished else done.seconds),
        }
        model = dataclasses.replace(done.model, inference=given.inference) if given else done.model
        if World.current().first:
            model.save(place)
        yield Player(name, model, facts)


def fresh_network(experiment: Experiment, domains: Domains, task: tasks.Task, seed: int) -> tuple[Network, Preprocess]:
    """The untrained network of a seed, and how images reach it."""
    name = experiment.network or DEFAULT_NETWORK[task.name]
    changes = dict(experiment.preprocess)
    first = [domain.images[0] for domain in (domains.source, domains.target) if domain is not None]
    grey = task.name == "segmentation" and all(image.ndim == 2 or image.shape[-1] == 1 for image in first)
    channels = int(changes.pop("channels", 1 if grey else 3))
    side = changes.get("size") or changes.get("crop") or (192 if task.name == "segmentation" else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "network"))
        net = networks.build(
            name, classes=len(task.classes), channels=channels, size=side, **experiment.network_settings
        )
    check_network(net, task)
    net.input_shape = (channels, *net.input_shape[1:])
    for field in ("size", "crop"):
        if isinstance(changes.get(field), int):
            changes[field] = (changes[field], changes[field])
    return net, default_preprocess(net, task).replace(**changes)


def _seconds(folder: Path, seconds: float) -> float:
    """The training time of all sittings together, remembered beside the run."""
    path = folder / "seconds.json"
    before = read_json(path)["seconds"] if path.exists() else 0.0
    if World.current().first:
        write_json(path, {"seconds": before + seconds})
    return before + seconds


def judge(player: Player, domains: Domains, labelled: Sequence[float] | None = None) -> None:
    """Add to the player's facts: scores on the source's test images, and on the target's where they are open; label-free
    facts of the target; and warnings where the model may have collapsed or has hardly learnt.

    ``labelled``: :func:`source_shares` of the source.
    """
    facts, method = player.facts, player.model.method
    for name, domain in (("source_test", domains.source_test), ("target_test", domains.target_test)):
        seen = dataclasses.replace(player.model, preprocess=player.model.preprocess.of(name.partition("_")[0]))
        facts[name] = None if domain is None else score_facts(evaluate(seen, domain))
    shares, confidence = predicted_shares(player.model, domains.target)
    facts["predicted shares"] = dict(zip(method.task.classes, shares.tolist()))
    facts["mean confidence"] = confidence
    facts["report"] = [dict(row) for row in method.report()]
    largest = int(shares.argmax())
    said = []
    if shares[largest] > COLLAPSE[method.task.name]:
        said.append(
            f"{shares[largest]:.1%} of the target is predicted as {method.task.classes[largest]!r}: "
            "the model may have collapsed; trust it only if that is what the target holds"
        )
    elif labelled is not None and Need.TARGET_LABELS not in method.needs:  # an oracle has seen what the target holds
        said += odd_shares(shares.tolist(), labelled, method.task)
    if player.method == BASELINE and facts["source_test"] is not None:
        said += hardly_learnt(facts["source_test"], method.task)
    if said:
        facts["warnings"] = [*facts["warnings"], *said]


def odd_shares(predicted: Sequence[float], labelled: Sequence[float], task: tasks.Task) -> list[str]:
    """A warning where classes are predicted on the target far more, or far less, often than the source's labels hold
    them; no target label is needed."""
    what = "pixels" if task.name == "segmentation" else "images"
    odd = [
        (abs(share - usual), name, share, usual)
        for name, share, usual in zip(task.classes, predicted, labelled)
        if abs(share - usual) > APART and (share > FACTOR * usual or FACTOR * share < usual)
    ]
    if not odd:
        return []
    (_, name, share, usual), *others = sorted(odd, reverse=True)
    more = ""
    if others and len(task.classes) > 2:  # of two classes, one says what the other does
        more = f" (and the like for {', '.join(other for _, other, *_ in others)})"
    return [
        f"{name!r} is predicted on {100 * share:.0f} % of the target's {what}, where {100 * usual:.0f} % of the source's "
        f"labels are {name!r}{more}: the model has hardly learnt yet, or the domains differ in it"
    ]


def hardly_learnt(scored: dict[str, Any], task: tasks.Task) -> list[str]:
    """A warning where a model scores on the source's own test images about what one class for everything would."""
    rows = torch.tensor(scored["confusion"])
    constant = []
    for k in range(len(task.classes)):
        counts = torch.zeros_like(rows)
        counts[:, k] = rows.sum(1)
        constant.append(task.scores(counts)[task.primary])
    best, value = max(constant), scored["value"]
    if not value - best < LEARNT * (1 - best):  # also where nothing can be said: NaN
        return []
    return [
        f"on the source's own held-out images it reaches {100 * value:.1f} % {task.primary}, where one class for everything "
        f"gives {100 * best:.1f} %: it has hardly learnt the source; train longer (--steps), or look at the labels "
        "(acclimate check)"
    ]


def source_shares(source: Domain | None, classes: int) -> list[float] | None:
    """How often each class occurs among the source's labels."""
    if source is None or source.labels is None:
        return None
    most = LABELS_READ[str(source.task)]
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(key("report", "shares")))
    counts = np.zeros(classes)
    for i in sorted(order[:most].tolist()):
        flat = np.asarray(source.labels[i]).ravel()
        counts += np.bincount(flat[flat >= 0], minlength=classes)
    return (counts / max(1.0, counts.sum())).tolist()


def score_facts(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON."""
    return {**dataclasses.asdict(evaluation), "value": evaluation.value}


def looked_at(target: Domain) -> Domain:
    """Up to 1,000 target images, the same ones each time."""
    return target.unlabelled().some(LOOKED_AT, "looked at")


def predicted_shares(model: Model, target: Domain) -> tuple[torch.Tensor, float]:
    """How often each class ``(K,)`` is predicted on the target, and the mean largest probability."""
    k = len(model.method.task.classes)
    counts, confidence = torch.zeros(k, dtype=torch.float64), 0.0
    for _, logits in model.logits(looked_at(target)):
        best, label = logits.softmax(1).max(1)
        counts += torch.bincount(label.flatten().cpu(), minlength=k)
        confidence += best.double().sum().item()
    total = float(counts.sum())
    return counts / total, confidence / total


def changed_predictions(players: Sequence[Player], target: Domain) -> None:
    """For each player the share of target predictions (images or pixels) that differ from source-only's."""
    chosen, others, total = looked_at(target), players[1:], 0
    same = [0] * len(others)
    for (i, before), *rest in zip(*(predicted_labels(player.model, chosen) for player in players), strict=True):
        total += before.numel()
        for place, (j, after) in enumerate(rest):
            assert i == j  # all see the images at one scale, so in one order
            same[place] += int((before == after).sum())
    for player, count in zip(others, same):
        player.facts["changed"] = 1 - count / total


def predicted_labels(model: Model, domain: Domain) -> Iterator[tuple[int, torch.Tensor]]:
    """Each image's number and its predicted class, or map of classes, one image after another."""
    for index, logits in model.logits(domain):
        yield from zip(index, logits.argmax(1).cpu())


def summary(seeds: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample deviation over seeds of the scores and the minutes; a score that was not taken is None."""
    listed = list(seeds)
    found: dict[str, Any] = {"minutes": statistics.mean(facts["seconds"] for facts in listed) / 60}
    for name in ("source_test", "target_test"):
        values = [facts[name]["value"] for facts in listed if facts[name] is not None]
        found[name] = (
            {
                "mean": statistics.mean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                "values": values,
            }
            if values
            else None
        )
    return found


def model_folder(path: Path) -> Path:
    """Where the model is in what a user points at: a model's own folder, or a run's best-known one.

    A run holds ``seed-*/<method>``; the first seed's last method that read no target label is meant, or where all
    methods read a few, the last of these.
    """
    if (path / SWEEP).exists():
        return path / BEST
    if (path / "model.json").exists() or not (path / "results.json").exists():
        return path
    results = read_json(path / "results.json")
    return path / f"seed-{results['seeds'][0]}" / default_player(results["players"])


def default_player(players: Mapping[str, Mapping[str, Any]]) -> str:
    """The method that is meant where none is named, of what ``results.json`` says of each."""
    methods = {name: entry for name, entry in players.items() if not entry["oracle"]}
    without = [name for name, entry in methods.items() if entry.get("reads") is None and name != BASELINE]
    return without[-1] if without else list(methods)[-1]
