"""Confident predictions and per-class thresholds, by histogram (no sort over all pixels of a data set)."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 4096
_LOWEST, _WIDTH = -16.0, 1 / 64  # log-odds from -16 to 48; p near 1 keeps its order where a float of p would not


def confidence_level(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted class and how sure the network is of it.

    Args:
        logits: ``(N, K, *)``.

    Returns ``(N, *)`` int16 classes and ``(N, *)`` int16 levels in 0..4095 of log(p / (1 - p)), p the largest softmax
    probability; levels grow with p.
    """
    logits = logits.float()
    best, label = logits.max(1, keepdim=True)
    rest = logits.scatter(1, label, -torch.inf).logsumexp(1, keepdim=True)
    level = ((best - rest - _LOWEST) / _WIDTH).clamp(0, LEVELS - 1)
    return label.squeeze(1).to(torch.int16), level.squeeze(1).to(torch.int16)


def class_thresholds(histogram: Tensor, portion: Tensor | float) -> Tensor:
    """Per class the highest level that still keeps ``portion`` of its predictions.

    Args:
        histogram: ``(K, LEVELS)`` counts of predictions of each class at each level.
        portion: the share to keep, in (0, 1].

    Returns ``(K,)`` int16: keep a prediction of class k iff its level is at least the k-th threshold. A class that was
    never predicted gets the highest level.
    """
    at_least = histogram.flip(1).cumsum(1).flip(1)  # predictions at this level or above
    enough = at_least >= (histogram.sum(1, keepdim=True) * portion).clamp_min(1)
    highest = (enough * torch.arange(histogram.shape[1], device=histogram.device)).amax(1)
    return torch.where(histogram.sum(1) > 0, highest, histogram.shape[1] - 1).to(torch.int16)
