"""Maximum mean discrepancy."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.distances.pair import pair
from acclimate.random import generator

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
CHUNK = 1_024
MEDIAN_ROWS = 1_000


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j).

    Gretton et al., JMLR 2012, eq. 3, with k(a, b) the mean over f in {1/4, 1/2, 1, 2, 4} of exp(-||a - b||^2 / f s), s
    the median squared distance between rows (of at most 1,000 rows, half from each set).

    Args:
        x: ``(n, d)`` activations. y: ``(m, d)``.

    Returns a float64 scalar; its mean for equal distributions is 0, so it may be slightly negative. Memory does not
    grow with n^2. Raises :class:`UsageError` for unusable matrices.
    """
    x, y = pair(x, y)
    n, m = len(x), len(y)
    centre = (x.mean(0) + y.mean(0)) / 2  # ||a||^2 + ||b||^2 - 2ab loses digits far from the origin
    x, y = x - centre, y - centre
    scale = _median_squared_distance(x, y)
    return _sum(x, x, scale) / (n * (n - 1)) + _sum(y, y, scale) / (m * (m - 1)) - 2 * _sum(x, y, scale) / (n * m)


def _median_squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """The median over pairs of distinct points; 1 where all points are the same and any scale serves."""
    some = torch.cat([_some(x), _some(y)])
    squared = torch.pdist(some).square()
    squared = squared[squared > 0]
    return squared.median() if len(squared) else x.new_ones(())


def _some(x: Tensor) -> Tensor:
    if len(x) <= MEDIAN_ROWS // 2:
        return x
    # Keyed by the number of rows alone, so that mmd(x, y) = mmd(y, x).
    chosen = torch.randperm(len(x), generator=generator("median", len(x)))[: MEDIAN_ROWS // 2]
    return x[chosen.to(x.device)]


def _sum(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """The sum of k over all pairs, without the diagonal where ``y`` is ``x``."""
    same = x is y
    total = x.new_zeros(())
    for i, a in enumerate(x.split(CHUNK)):
        for j, b in enumerate(y.split(CHUNK)):
            if same and j < i:
                continue  # the mirror image of a block that counts twice
            k = _kernel(a, b, scale)
            if same and i == j:
                k.fill_diagonal_(0)
            total += k.sum() * (2 if same and i < j else 1)
    return total


def _kernel(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    squared = torch.addmm(a.square().sum(1)[:, None] + b.square().sum(1), a, b.T, alpha=-2).clamp_min_(0)
    # Each factor is half the one after it, so squaring the kernel of the widest gives the next: one exponential for five.
    k = squared.div_(-FACTORS[-1] * scale).exp_()
    total = k.clone()
    for _ in FACTORS[1:]:
        total += k.square_()
    return total / len(FACTORS)
