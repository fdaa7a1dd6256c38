"""Distances of one-dimensional projections: no covariance to estimate, so few rows suffice."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.distances.pair import pair
from acclimate.distances.projection import project, transport


def sliced_wasserstein(x: Tensor, y: Tensor, *, directions: int = 128, seed: int = 0) -> Tensor:
    """Mean over directions of the squared 1-D 2-Wasserstein distance (Bonneel et al., JMIV 2015).

    Args:
        x: ``(n, d)`` activations. y: ``(m, d)``.
        directions: how many; uniform on the sphere, orthogonal within each block of d.
        seed: fixes the directions.

    Exact for each direction, also where n != m. *Not* multiplied by d: a shift of length s gives s^2 / d on average.
    Divide the channels by the source's deviations first where their scales differ. Returns a float64 scalar. Raises
    :class:`UsageError` for unusable matrices and ``directions`` below 1.
    """
    x, y = pair(x, y)
    a, b = project(x, y, directions, seed)
    return transport(a.sort(1).values, b.sort(1).values).mean()


def sliced_energy(x: Tensor, y: Tensor, *, directions: int = 128, seed: int = 0) -> Tensor:
    """Mean over directions of the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| (Szekely and Rizzo 2013).

    Args:
        x: ``(n, d)`` activations. y: ``(m, d)``.
        directions, seed: as in :func:`sliced_wasserstein`.

    Unbiased (U-statistics over distinct rows): its mean for equal distributions is 0, so it may be slightly negative.
    O(n log n) by sorting. Returns a float64 scalar, in units of the activations. Raises :class:`UsageError` for
    unusable matrices and ``directions`` below 1.
    """
    x, y = pair(x, y)
    n, m = len(x), len(y)
    a, b = project(x, y, directions, seed)
    within_x, within_y = _pair_sums(a), _pair_sums(b)
    cross = _pair_sums(torch.cat([a, b], 1)) - within_x - within_y
    return (2 * cross / (n * m) - 2 * within_x / (n * (n - 1)) - 2 * within_y / (m * (m - 1))).mean()


def _pair_sums(values: Tensor) -> Tensor:
    """sum_{i<j} |v_i - v_j| = sum_k (2k - n + 1) v_(k), k from 0, for each row of ``(L, n)``."""
    n = values.shape[1]
    return values.sort(1).values @ (2 * torch.arange(n, device=values.device, dtype=values.dtype) - n + 1)
