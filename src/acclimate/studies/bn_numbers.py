"""What follows from the cells of the BatchNorm study: means, gains, rank correlations, and the theory beside them."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from acclimate.studies.bn import BNStudy, Cells, Pair

SMALL = 0.02  # a difference in IoU that counts as none
SAME = "same sign of contrast"


def named(pair: Pair) -> str:
    """``(.7, .3)``."""
    return f"({', '.join(f'{value:g}' for value in pair)})"


def mean(values: Iterable[float | None]) -> float:
    """The mean of what is there; NaN where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


def over_seeds(cells: Cells, value: Callable[[dict[str, Any]], float]) -> dict[tuple[Pair, Pair], float]:
    """The mean over seeds for each source and target."""
    return {
        (source, target): mean(value(cells.pairs[seed, source, target]) for seed in cells.seeds)
        for source in cells.study.sources
        for target in cells.study.tested()
    }


def gain(cell: dict[str, Any]) -> float:
    """IoU with adaptation less IoU without."""
    return cell["with"]["iou"] - cell["without"]["iou"]


def inverted(source: Pair, target: Pair) -> bool:
    """Whether the object is the brighter part in one of the two only."""
    return (source[0] - source[1]) * (target[0] - target[1]) < 0


def kind(source: Pair, target: Pair) -> str:
    """The kind of shift of a cell."""
    if source == target:
        return "no shift"
    return "inverted contrast" if inverted(source, target) else SAME


def centres(study: BNStudy, pair: Pair) -> dict[str, float]:
    """What a first linear layer with BatchNorm sees of two-class white noise, statistics taken on the domain itself.

    With m = pi mu1 + (1 - pi) mu2, s^2 = pi (1 - pi) Delta^2 + sigma^2 and z = (x - m) / s the class centres are
    z_object = (1 - pi) Delta / s and z_background = -pi Delta / s, the noise is sigma / s: all of it follows from pi and
    the signed Delta / sigma.
    """
    share, delta = sum(study.share) / 2, pair[0] - pair[1]
    spread = math.sqrt(share * (1 - share) * delta**2 + study.sigma**2)
    return {
        "contrast": delta / study.sigma,
        "object": (1 - share) * delta / spread,
        "background": -share * delta / spread,
        "noise": study.sigma / spread,
    }


def most_asymmetric(cells: Cells) -> tuple[Pair, Pair]:
    """The pair (A, B) of sources with the largest difference between the gains A to B and B to A, the larger one first."""
    gains = over_seeds(cells, gain)
    sources = cells.study.sources
    return max(((a, b) for a in sources for b in sources if a != b), key=lambda ab: gains[ab] - gains[ab[1], ab[0]])


def in_order(pairs: Iterable[Pair]) -> list[Pair]:
    """Brighter objects first, then darker ones; of either from little to much contrast, then from dark to bright."""
    return sorted(pairs, key=lambda p: (p[0] < p[1], round(abs(p[0] - p[1]), 6), p[0] + p[1]))


def changes(study: BNStudy, name: str) -> str:
    """What an irregular training changes: ``5 steps, not 300``; ``nothing changed`` where nothing."""
    changed = study.irregular[name]
    words = [
        f"{changed.steps} steps, not {study.steps}" if changed.steps else "",
        f"batches of {changed.batch}, not {study.batch}" if changed.batch else "",
        f"rate {changed.lr:g}, not {study.lr:g}" if changed.lr else "",
    ]
    return "; ".join(word for word in words if word) or "nothing changed"


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the gain with a distance at a layer, over all cells and over those of one kind."""

    distance: str
    layer: str
    when: str  # "before" or "after" adaptation
    rank: float | None  # None where it cannot be taken
    cells: int
    same: float | None  # over shifted cells whose contrast keeps its sign
    same_cells: int

    def words(self) -> str:
        """``frechet, bottleneck, after adaptation``."""
        return f"{self.distance}, {self.layer}, {self.when} adaptation"


@dataclasses.dataclass(frozen=True)
class Points:
    """One value per cell."""

    distance: list[float]  # less the null's mean
    gain: list[float]
    kinds: list[str]
    names: list[str]


def points(cells: Cells, distance: str, layer: str, when: str) -> Points:
    """Gain and distance of every cell in which the distance could be taken."""
    found = Points([], [], [], [])
    for (seed, source, target), cell in cells.pairs.items():
        null = cells.sources[seed, source]["null"][distance].get(layer)
        value = cell["distances"][distance].get(layer, {}).get(when)
        if null is None or value is None or null["mean"] is None:
            continue
        found.distance.append(value - null["mean"])
        found.gain.append(gain(cell))
        found.kinds.append(kind(source, target))
        found.names.append(f"{named(source)} to {named(target)}, seed {seed}")
    return found


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rho; None for fewer than three cells or where one side is constant."""
    from scipy.stats import rankdata

    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return statistics.correlation(rankdata(x).tolist(), rankdata(y).tolist())


def correlations(cells: Cells) -> list[Correlation]:
    """For every distance, layer, and before and after adaptation."""
    layers = next(iter(cells.sources.values()))["layers"]
    found = []
    for when in ("before", "after"):
        for distance in cells.study.distances:
            for layer in layers:
                at = points(cells, distance, layer, when)
                chosen = [i for i, name in enumerate(at.kinds) if name == SAME]
                same = rank_correlation([at.distance[i] for i in chosen], [at.gain[i] for i in chosen])
                rank = rank_correlation(at.distance, at.gain)
                found.append(Correlation(distance, layer, when, rank, len(at.gain), same, len(chosen)))
    return found


def measured(found: Sequence[Correlation]) -> list[Correlation]:
    """Those that could be taken."""
    return [correlation for correlation in found if correlation.rank is not None]


def best(found: Sequence[Correlation]) -> Correlation | None:
    """The strongest in size."""
    return max(measured(found), key=lambda correlation: abs(correlation.rank or 0.0), default=None)
