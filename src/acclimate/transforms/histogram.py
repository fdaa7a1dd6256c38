"""Histogram matching: the monotone map of grey levels after which one histogram becomes another."""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST, COUNT = -512, 1536
"""Levels are counted from -512 to 1023: 0..255 of a byte, and room for inputs that another mean and deviation made."""


def histogram(levels: Tensor) -> Tensor:
    """Counts ``(N, C, COUNT)`` int64 of the levels of images ``(N, C, H, W)``, each rounded to the nearest.

    Nothing is read on the host, so a training step may call it.
    """
    n, channels = levels.shape[:2]
    place = (levels.flatten(2).round().long() - LOWEST).clamp(0, COUNT - 1)
    place = place + COUNT * torch.arange(n * channels, device=levels.device).view(n, channels, 1)
    counts = torch.zeros(n * channels * COUNT, dtype=torch.int64, device=levels.device)
    return counts.scatter_add_(0, place.flatten(), torch.ones_like(place.flatten())).view(n, channels, COUNT)


def matching(source: Tensor, target: Tensor) -> Tensor:
    """T(v) = F_t^-1(F_s(v)) for every level v, F the cumulative shares; F_t^-1 is linear between levels that occur.

    Args:
        source, target: counts ``(*, COUNT)``, broadcast against each other; their sums may differ.

    Returns ``(*, COUNT)`` float32 levels, non-decreasing along the last dimension. Levels below all of the source go to the
    lowest of the target, levels that it lacks where the next lower one goes. Gonzalez & Woods, Digital Image Processing,
    section 3.3.2; the same interpolation as in scikit-image's ``match_histograms``.
    """
    source, target = torch.broadcast_tensors(source, target)
    fs, ft = (counts.cumsum(-1).double() / counts.sum(-1, keepdim=True).clamp_min(1) for counts in (source, target))
    occurs = target > 0
    place = torch.arange(COUNT, device=target.device)
    last = torch.where(occurs, place, -1).cummax(-1).values  # the highest level so far that occurs
    before = torch.cat([torch.full_like(last[..., :1], -1), last[..., :-1]], dim=-1)
    above = torch.searchsorted(ft.contiguous(), fs.contiguous()).clamp_max(COUNT - 1)
    above = torch.maximum(above, occurs.int().argmax(-1, keepdim=True))
    below = before.gather(-1, above)
    below = torch.where(below < 0, above, below)
    low, high = ft.gather(-1, below), ft.gather(-1, above)
    share = torch.where(above > below, (fs - low) / (high - low), 0.0)
    return (below + share * (above - below) + LOWEST).float()


def remap(levels: Tensor, table: Tensor) -> Tensor:
    """The levels of images ``(N, C, H, W)`` through ``table (N or 1, C, COUNT)``, linear between whole levels."""
    place = (levels.flatten(2) - LOWEST).clamp(0, COUNT - 1)
    low = place.floor().long().clamp_max(COUNT - 2)
    table = table.expand(len(levels), -1, -1)
    below, above = table.gather(-1, low), table.gather(-1, low + 1)
    return (below + (place - low) * (above - below)).view_as(levels)
