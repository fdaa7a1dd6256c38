"""Models in the order of a label-free score, and which of them it cannot tell apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

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


def rank(score: Score, seen: Mapping[str, Seen], set_aside: Collection[str] = ()) -> list[Ranked]:
    """All models, the best one first; those that are set aside last.

    Errors come from a delete-a-group jackknife over images (Kott, 2001): with the score theta_(g) after leaving out group
    g of G, var = (G - 1)/G sum_g (theta_(g) - mean)^2. Images are left out, not drawn again as in a bootstrap: a score
    that looks at neighbours would see every image twice. Differences are paired: all models lose the same images.
    """
    values = {label: score(each) for label, each in seen.items()}
    left_out = {label: without_groups(score, each) for label, each in seen.items()}
    order = sorted(values, key=lambda label: (label in set_aside, -score.gain(values[label])))
    best = order[0]
    ranked = []
    for label in order:
        behind = score.gain(values[best]) - score.gain(values[label])
        differences = [score.gain(a) - score.gain(b) for a, b in zip(left_out[best], left_out[label])]
        error = None if label == best else jackknife_error(differences)
        ranked.append(
            Ranked(
                label,
                values[label],
                jackknife_error(left_out[label]),
                behind,
                error,
                label not in set_aside and (label == best or error is None or behind <= CLEAR * error),
                label in set_aside,
            )
        )
    return ranked


def without_groups(score: Score, seen: Seen) -> list[float]:
    """The score after each of up to ten groups of images was left out; empty for fewer than two images."""
    groups = min(GROUPS, seen.images)
    if groups < 2:
        return []
    return [score(seen.without(group, groups)) for group in range(groups)]


def jackknife_error(values: Sequence[float]) -> float | None:
    """The standard error of what gave ``values`` when one group after another was left out; None for none."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt((len(values) - 1) / len(values) * math.fsum((value - mean) ** 2 for value in values))
