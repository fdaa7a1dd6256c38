"""What a table says about a few seeds: mean, deviation, and the paired difference from another row."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample deviation (n - 1; None for one value)."""

    mean: float
    deviation: float | None
    n: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of the differences over equal seeds, with its 95 % interval (None for fewer than two seeds)."""

    mean: float
    interval: tuple[float, float] | None
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    """None for no value."""
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def paired(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """values - base over the seeds that both have; the interval is Student's t's. None where there is no such seed."""
    differences = [values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())]
    found = spread(differences)
    if found is None:
        return None
    if found.deviation is None:
        return Difference(found.mean, None, found.n)
    from scipy.special import stdtrit

    half = float(stdtrit(found.n - 1, (1 + CONFIDENCE) / 2)) * found.deviation / math.sqrt(found.n)
    return Difference(found.mean, (found.mean - half, found.mean + half), found.n)
