"""Several models of one target beside each other: what every score says of each, and which one it would choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch

from acclimate import registry, tasks
from acclimate.engine.evaluate import Evaluation
from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.experiment import COLLAPSE, Domains, Experiment, open_domains
from acclimate.runs import Candidate
from acclimate.selection import DEFAULT, DEFAULT_ALONE, find
from acclimate.selection.base import Score, Seen
from acclimate.selection.learnt import forgot, largest_share, learnt
from acclimate.selection.quality import rank_correlation, regret
from acclimate.selection.rank import Ranked, rank
from acclimate.selection.see import see, with_consensus

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was found of some models on one target."""

    score: Score  # the one that ranks
    ranking: list[Ranked]
    candidates: dict[str, Candidate]  # by label: those that are ranked
    values: dict[str, dict[str, float]]  # score -> label -> value
    left_out: dict[str, str]  # score -> why it says nothing here
    set_aside: dict[str, str]  # label -> why it is not to be trusted
    measured: bool  # whether there is a source-only among the models by which forgetting is measured
    oracles: list[str]  # labels of models that learnt from target labels: never ranked
    domains: Domains
    images: int  # of the target that were looked at

    @property
    def best(self) -> Candidate:
        """The model that the score would choose."""
        return self.candidates[self.ranking[0].label]

    def place(self, name: str, label: str) -> int:
        """A model's place, from 1 on, by another score."""
        score = find(name)
        values = {each: value for each, value in self.values[name].items() if each not in self.set_aside}
        if label in self.set_aside:
            return len(values) + 1
        return 1 + sum(score.gain(value) > score.gain(values[label]) for value in values.values())

    def judged(self, evaluations: dict[str, Evaluation]) -> dict[str, tuple[float, float | None]]:
        """Where labels are known: each score's regret, a share of the primary score, and its rank correlation.

        What is set aside could not be chosen, and still counts for the regret.
        """
        best = max(evaluation.value for evaluation in evaluations.values())
        labels = [label for label in self.candidates if label not in self.set_aside]
        truths = [evaluations[label].value for label in labels]
        found = {}
        for name, values in self.values.items():
            gains = [find(name).gain(values[label]) for label in labels]
            found[name] = (best - max(truths) + regret(gains, truths), rank_correlation(gains, truths))
        return found


def one_target(candidates: Sequence[Candidate], target: str | None) -> str:
    """The target that all runs adapted to, or the one that was asked for.

    Raises :class:`UsageError` where they differ or none is known.
    """
    if target is not None:
        return target
    known = {candidate.experiment.target for candidate in candidates if candidate.experiment is not None}
    if len(known) > 1:
        raise UsageError(
            f"these runs are of different targets ({', '.join(sorted(known))}); compare those of one, "
            "or say with --target on which images"
        )
    if not known:
        raise UsageError("nothing is known of these models' target; name its images with --target")
    return known.pop()


def domains_of(candidates: Sequence[Candidate], target: str | None, source: str | None) -> Domains:
    """The domains that all models are looked at on; the target without labels, the source where all share one."""
    place = one_target(candidates, target)
    known = [candidate.experiment for candidate in candidates if candidate.experiment is not None]
    sources = {experiment.source for experiment in known}
    common = source or (next(iter(sources)) if len(sources) == 1 and len(known) == len(candidates) else None)
    first = known[0] if known else Experiment(target=place)
    same = first.target == place
    experiment = first.replace(
        target=place,
        source=common,
        oracle=False,
        labelled=None,
        class_map=first.class_map if same else {},
        model=None,
    )
    return open_domains(experiment, experiment.task, score=False)


def compare(
    candidates: Sequence[Candidate],
    score: str | None = None,
    *,
    target: str | None = None,
    source: str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Comparison:
    """Rank models of one target by a label-free score (default: :data:`acclimate.selection.DEFAULT`).

    Models that learnt from the target's labels are left out: the scores are for those that did not. No target label is read.

    Raises :class:`UsageError` for fewer than two models, other classes, runs of different targets, or a score that cannot
    be computed here.
    """
    if score is not None:
        find(score)  # a name that does not exist shall be noticed before models are loaded
    ranked = {each.label: each for each in candidates if not each.oracle}
    if len(ranked) < 2:
        raise UsageError(
            f"there is {'one model' if ranked else 'no model'} to compare that has not learnt from target labels; "
            "give at least two, or a run with several methods"
        )
    domains = domains_of(list(ranked.values()), target, source)
    seen, classes = {}, None
    for number, (label, candidate) in enumerate(ranked.items()):
        if progress:
            progress(number, len(ranked))
        model = Model.load(candidate.folder, device)
        if classes not in (None, model.method.task.classes):
            raise UsageError(f"{label} has other classes than the models before it; compare models of the same classes")
        classes, task = model.method.task.classes, model.method.task.name
        own = domains.source is not None and domains.source.classes == classes
        seen[label] = see(model, domains.target, domains.source if own else None, domains.source_test if own else None)
    if progress:
        progress(len(ranked), len(ranked))
    chosen = find(score or DEFAULT[task])
    if task not in chosen.tasks:
        raise UsageError(f"{chosen.name} is for {' and '.join(chosen.tasks)}; choose another --score for {task}")
    seen, values, left_out = all_values(seen, task)
    if score is None and chosen.name in left_out:
        chosen = find(DEFAULT_ALONE[task])  # these models have no common prediction
    if chosen.name in left_out:
        raise UsageError(f"{chosen.name} cannot rank these runs: {left_out[chosen.name]}; choose another --score")
    first = next(iter(seen.values()))
    aside = not_to_be_trusted(ranked, seen, model.method.task)
    return Comparison(
        chosen,
        rank(chosen, seen, aside, values[chosen.name]),
        ranked,
        values,
        left_out,
        aside,
        any(each.baseline for each in ranked.values()) and first.ys is not None,
        [each.label for each in candidates if each.oracle],
        domains,
        first.images,
    )


def not_to_be_trusted(
    candidates: Mapping[str, Candidate], seen: Mapping[str, Seen], task: tasks.Task
) -> dict[str, str]:
    """Why some models are set aside: many scores are at their best for a network that says one thing of everything.

    Found without a target label: they give one class to (nearly) all of the target, or have learnt less than half as
    much of the source as source-only. All of them cannot be: where none would be left, none is set aside.
    """
    own = {label: learnt(each, task) for label, each in seen.items()}
    known = [value for label, value in own.items() if candidates[label].baseline and value is not None]
    usual = max(known, default=None)
    why = {}
    for label, each in candidates.items():
        share = largest_share(seen[label])
        if share > COLLAPSE[task.name]:
            why[label] = f"gives one class to {share:.1%} of the target"
        elif forgot(each.method, own[label], usual):
            why[label] = "has learnt less than half as much of the source as source-only"
    return why if len(why) < len(candidates) else {}


def all_values(seen: dict[str, Seen], task: str) -> tuple[dict[str, Seen], dict[str, dict[str, float]], dict[str, str]]:
    """What is seen, with the consensus where there is one; every score's values by label; and why a score has none."""
    values: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    try:
        seen = dict(zip(seen, with_consensus(list(seen.values()))))
    except UsageError as error:
        left_out["agreement"] = str(error)
    for name in registry.names("scores"):
        score = find(name)
        if task not in score.tasks:
            continue
        try:
            values[name] = {label: score(each) for label, each in seen.items()}
        except UsageError as error:
            left_out.setdefault(name, str(error))
    return seen, values, left_out
