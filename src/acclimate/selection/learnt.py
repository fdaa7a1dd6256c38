"""Models whose predictions mean nothing: those that have hardly learnt the source, or say one thing of everything."""

from __future__ import annotations

import torch

from acclimate import tasks
from acclimate.methods import Need, find
from acclimate.selection.base import Seen

KEPT = 0.5  # of what source-only has learnt of the source; a model with less is set aside


def learnt(seen: Seen, task: tasks.Task) -> float | None:
    """(v - c) / (1 - c): v is the primary score on source images that training has not seen, c that of the best constant
    prediction; 1 where all is right, 0 where nothing was learnt, None where there are no such images.
    """
    if seen.zs is None or seen.ys is None:
        return None
    counts = task.confusion(seen.zs.argmax(1), seen.ys)
    constants = []
    for k in range(len(task.classes)):
        constant = torch.zeros_like(counts)
        constant[:, k] = counts.sum(1)
        constants.append(task.scores(constant)[task.primary])
    best = max(constants)
    return (task.scores(counts)[task.primary] - best) / (1 - best) if best < 1 else None


def forgot(method: str, own: float | None, usual: float | None) -> bool:
    """Whether a method that learns from the source has learnt less than half as much of it as source-only.

    Many label-free scores are at their best for a network that gives the same answer to everything. A method that sees
    no source owes it nothing, so it is not asked; nor is anything said where one of the two numbers is not known.

    Args:
        own, usual: :func:`learnt` of the model and of source-only.
    """
    if own is None or usual is None or usual <= 0 or Need.SOURCE not in find(method).needs:
        return False
    return own < KEPT * usual


def largest_share(seen: Seen) -> float:
    """The share of target rows for which the class is predicted that is predicted most."""
    predicted = seen.zt.argmax(1)
    return torch.bincount(predicted, minlength=seen.classes).max().item() / len(predicted)
