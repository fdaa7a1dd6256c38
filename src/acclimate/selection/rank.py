"""Models in the order of a label-free score, and which of them it cannot tell apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from acclimate.errors import UsageError
from acclimate.selection.base import Score, Seen

GROUPS = 10  # of images, each left out once
CLEAR = 2.0  # standard errors that a difference has to exceed


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A model's place. Errors are standard errors over images; None where there are too few of these."""

    label: str
    value: float  # of the score
    error: float | None
    behind: float  # how much worse than the first, in units of the score; 0 for the first
    behind_error: float | None
    tied: bool  # whether images alone could explain that it is behind
    set_aside: bool = False  # it has hardly learnt the source: last, whatever the score says


def rank(
    score: Score,
    seen: Mapping[str, Seen],
    set_aside: Collection[str] = (),
    values: Mapping[str, float] | None = None,
) -> list[Ranked]:
    """All models, the best one first; those that are set aside last.

    Errors come from a delete-a-group jackknife over images (Kott, 2001): with the score theta_(g) after leaving out group
    g of G, var = (G - 1)/G sum_g (theta_(g) - mean)^2. Images are left out, not drawn again as in a bootstrap: a score
    that looks at neighbours would see every image twice. Differences are paired: all models lose the same images.

    Args:
        values: of the score by label, where they are known.
    """
    values = {label: score(each) for label, each in seen.items()} if values is None else values
    return ordered(score, values, set_aside, {label: without_groups(score, each) for label, each in seen.items()})


def ordered(
    score: Score,
    values: Mapping[str, float],
    set_aside: Collection[str] = (),
    left_out: Mapping[str, Sequence[float]] | None = None,
) -> list[Ranked]:
    """Models by their values, the best one first.

    Args:
        left_out: what each value was without groups of images; None: nothing is known of errors, and nothing is tied.
    """
    known, left_out = left_out is not None, left_out or dict.fromkeys(values, ())
    order = sorted(values, key=lambda label: (label in set_aside, -score.gain(values[label])))
    best = order[0]
    ranked = []
    for label in order:
        behind = score.gain(values[best]) - score.gain(values[label])
        error = None
        if label != best and len(left_out[best]) == len(left_out[label]):
            error = jackknife_error([score.gain(a) - score.gain(b) for a, b in zip(left_out[best], left_out[label])])
        tied = known and label not in set_aside and (label == best or error is None or behind <= CLEAR * error)
        ranked.append(
            Ranked(label, values[label], jackknife_error(left_out[label]), behind, error, tied, label in set_aside)
        )
    return ranked


def without_groups(score: Score, seen: Seen) -> list[float]:
    """The score after each of up to ten groups of images was left out.

    Empty for fewer than two images, or where the score says nothing of so few.
    """
    groups = min(GROUPS, seen.images)
    if groups < 2:
        return []
    try:
        return [score(seen.without(group, groups)) for group in range(groups)]
    except UsageError:
        return []


def jackknife_error(values: Sequence[float]) -> float | None:
    """The standard error of what gave ``values`` when one group after another was left out; None for none."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt((len(values) - 1) / len(values) * math.fsum((value - mean) ** 2 for value in values))
