"""The soft Dice loss of the foreground."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.losses.cross_entropy import IGNORE
from acclimate.losses.precision import full


def soft_dice(probabilities: Tensor, labels: Tensor, smoothing: float = 1.0) -> Tensor:
    """mean_k 1 - (2 sum_i p_ik y_ik + s) / (sum_i p_ik + sum_i y_ik + s) over the foreground classes k = 1..F.

    Args:
        probabilities: ``(N, F, *)`` in [0, 1], one channel for each class but the first, which is the background; of two
            classes, the one channel of the second.
        labels: ``(N, *)`` integers in -1..F; -1 is ignored.
        smoothing: s; it makes the loss of an empty mask that is predicted empty 0.

    Sums run over the whole batch. Returns a float32 scalar in [0, 1) (float64 for float64 probabilities); 0, with a zero
    gradient, where every label is ignored. Milletari et al., 3DV 2016, in the form of Haq & Huang, MIDL 2020.
    """
    p = full(probabilities).movedim(1, -1).flatten(0, -2)
    labels = labels.flatten()[:, None]
    p = p * (labels != IGNORE)
    y = (labels == torch.arange(1, p.shape[1] + 1, device=p.device)).to(p.dtype)
    return (1 - (2 * (p * y).sum(0) + smoothing) / (p.sum(0) + y.sum(0) + smoothing)).mean()
