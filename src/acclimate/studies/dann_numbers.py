"""What follows from the cells of the DANN study: ends, paired differences, and what a weight did to a training."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from acclimate.methods.dann import DANN
from acclimate.studies.dann import CENTRAL, CERTAIN, NONE, Cells, Game, scheduled, weighted

ROLES = ("source", "target")
SURE = CERTAIN.index(0.99)  # the threshold that the text speaks of


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is there; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def deviation(values: Sequence[float]) -> float | None:
    """The sample deviation; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def end(run: dict[str, Any], what: str) -> float | None:
    """A score at the end of a run, or a mean over its last interval; None where it diverged.

    Args:
        what: "source" or "target" (accuracy on all test images), "area", or a metric of the curve.
    """
    if run["diverged"] is not None:
        return None
    if what in ROLES:
        return run["final"][what]
    return run["area"] if what == "area" else run["curve"][-1][what]


def by_seed(cells: Cells, name: str, what: str) -> list[float]:
    """What a game ended with, for each of the study's seeds in which it ended."""
    values = [end(cells.runs[seed, name], what) for seed in cells.seeds]
    return [value for value in values if value is not None]


def seeds_of(cells: Cells, game: Game) -> list[int]:
    """The seeds for which a game was played."""
    return [seed for seed, name in cells.runs if name == game.name]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The same seeds with and without."""

    by_seed: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed)

    @property
    def deviation(self) -> float | None:
        return deviation(self.by_seed)

    @property
    def same_sign(self) -> bool:
        """Whether no seed says the opposite of another."""
        return min(self.by_seed) > 0 or max(self.by_seed) < 0


def difference(cells: Cells, name: str, what: str, base: str = NONE) -> Difference:
    """``name`` less ``base``, by seed."""
    pairs = [(end(cells.runs[s, name], what), end(cells.runs[s, base], what)) for s in cells.seeds]
    return Difference([a - b for a, b in pairs if a is not None and b is not None])


@dataclasses.dataclass(frozen=True)
class Row:
    """A weight or a schedule, mean over the seeds for which it was played."""

    game: Game
    seeds: int
    target: float | None
    source: float | None
    critic: float | None
    area: float | None
    loss: float | None  # supervised, over the last interval
    diverged: list[int]  # steps
    targets: list[float]  # by seed
    what: str  # what went wrong, if anything did

    @property
    def weight(self) -> float:
        return self.game.settings.get("weight", DANN.Settings().weight)


def row(cells: Cells, game: Game, seeds: Sequence[int] | None = None) -> Row:
    """The ends of a game."""
    chosen = [cells.runs[seed, game.name] for seed in (seeds_of(cells, game) if seeds is None else seeds)]
    diverged = [run["diverged"] for run in chosen if run["diverged"] is not None]
    found = {what: mean(end(run, what) for run in chosen) for what in ("target", "source", "critic accuracy", "area")}
    chance = 1 / len(cells.facts["classes"])
    collapsed = found["source"] is not None and found["source"] < 2 * chance
    return Row(
        game,
        len(chosen),
        found["target"],
        found["source"],
        found["critic accuracy"],
        found["area"],
        mean(end(run, "supervised") for run in chosen),
        diverged,
        [run["final"]["target"] for run in chosen if run["diverged"] is None],
        "diverged at step " + ", ".join(map(str, diverged)) if diverged else "collapsed" if collapsed else "",
    )


def weights(cells: Cells, ramp: bool) -> list[Row]:
    """Every weight, with the ramp or without it, over the same seeds."""
    seeds = range(cells.study.weight_seeds)
    return [row(cells, weighted(weight, ramp), list(seeds)) for weight in cells.study.weights]


def schedules(cells: Cells) -> dict[tuple[bool, bool], Row]:
    """By (ramp, annealed rate), over the same seeds."""
    seeds = list(range(cells.study.schedule_seeds))
    return {
        (ramp, annealed): row(cells, scheduled(ramp, annealed), seeds)
        for ramp in (True, False)
        for annealed in (True, False)
    }


def pseudo_seeds(cells: Cells) -> list[int]:
    return sorted({seed for seed, _ in cells.pseudo})


def path(cells: Cells, name: str) -> list[float]:
    """Accuracy on the labelled images before the first round and after each, mean over seeds (an oracle's figures)."""
    lines = []
    for seed in pseudo_seeds(cells):
        found = cells.pseudo[seed, name]
        if found["diverged"] is None:
            lines.append([each["right"] for each in found["rounds"]] + [found["after"]["right"]])
    return [statistics.fmean(values) for values in zip(*lines)]


def kept_right(cells: Cells, name: str) -> list[float]:
    """The share of the kept pseudo-labels that is right, in each round, mean over seeds (an oracle's figures)."""
    lines = [
        [each["right among the kept"] for each in cells.pseudo[seed, name]["rounds"]] for seed in pseudo_seeds(cells)
    ]
    return [statistics.fmean(values) for values in zip(*lines)]


def kept_shares(cells: Cells, name: str, which: int) -> list[float]:
    """The share of each class among the labels kept in a round, over all seeds."""
    counts = [cells.pseudo[seed, name]["rounds"][which]["kept by class"] for seed in pseudo_seeds(cells)]
    together = [sum(values) for values in zip(*counts)]
    return [count / max(1, sum(together)) for count in together]


def fate(cells: Cells, name: str, which: str, what: str) -> float | None:
    """What became of first-round labels that were wrong; ``which``: "kept" or "not kept"; mean over seeds."""
    found = [cells.pseudo[seed, name]["wrong"] for seed in pseudo_seeds(cells)]
    return mean(wrong[which][what] for wrong in found if wrong is not None)


def started(cells: Cells, name: str) -> dict[str, Any]:
    """A start's facts, mean over seeds: scores, how much is right, among the most confident and above thresholds."""
    found = [cells.starts[seed, name] for seed in pseudo_seeds(cells)]
    return {
        "scores": {role: mean(each["scores"][role] for each in found) for role in ROLES},
        **trusted(found),
    }


def trusted(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of what :func:`acclimate.studies.dann.trusted` says for several seeds."""
    return {
        "right": mean(each["right"] for each in found),
        "confidence": mean(each["confidence"] for each in found),
        "shares": [
            {"share": places[0]["share"], "right": mean(place["right"] for place in places)}
            for places in zip(*(each["shares"] for each in found))
        ],
        "thresholds": [
            {
                "threshold": places[0]["threshold"],
                "kept": mean(place["kept"] for place in places),
                "right": mean(place["right"] for place in places),
            }
            for places in zip(*(each["thresholds"] for each in found))
        ],
    }


def minutes(cells: Cells) -> float:
    """Of all cells together."""
    groups = (cells.runs, cells.starts, cells.pseudo)
    return (cells.facts["seconds"] + sum(cell["seconds"] for group in groups for cell in group.values())) / 60


def names() -> list[str]:
    """The three networks that the study is about."""
    return list(CENTRAL)
