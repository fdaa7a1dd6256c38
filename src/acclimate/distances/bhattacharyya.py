"""Bhattacharyya distances, -ln of the overlap of two densities; with guards where the overlap is nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.distances.gaussian import covariance
from acclimate.distances.pair import pair, rows
from acclimate.errors import UsageError

RELATIVE_FLOOR = 1e-6  # of the median variance: below it a channel is dead
PSEUDO_COUNT = 0.01


def bhattacharyya(x: Tensor, y: Tensor) -> Tensor:
    """Mean over usable channels of 1/4 (m1 - m2)^2 / (v1 + v2) + 1/2 ln((v1 + v2) / 2 sqrt(v1 v2)) (Kailath 1967).

    Args:
        x: ``(n, d)`` activations, which decide what channels are usable. y: ``(m, d)``.

    A variance of y below the floor of :func:`usable_channels` counts as the floor, so that a channel which died in y is
    far and not infinitely far. Returns a float64 scalar. Raises :class:`UsageError` for unusable matrices.
    """
    x, y = pair(x, y)
    keep, floor = _usable(x)
    x, y = x[:, keep], y[:, keep]
    v1, v2 = x.var(0), y.var(0).clamp_min(floor)
    total = v1 + v2
    shift = (x.mean(0) - y.mean(0)).square() / (4 * total)
    return (shift + (total / (2 * (v1 * v2).sqrt())).log() / 2).mean()


def bhattacharyya_full(x: Tensor, y: Tensor) -> Tensor:
    """1/8 D^T S^-1 D + 1/2 (ln det S - 1/2 ln det S1 - 1/2 ln det S2), S = (S1 + S2) / 2 (Kailath 1967).

    Args:
        x: ``(n, d)`` activations, which decide what channels are usable. y: ``(m, d)``.

    1e-6 of the mean variance is added to the diagonals of S1 and S2. With fewer rows than usable channels the
    determinants speak of that term and not of the data: give 4 rows or more per channel, or project first. Returns
    a float64 scalar. Raises :class:`UsageError` for unusable matrices.
    """
    x, y = pair(x, y)
    keep, _ = _usable(x)
    x, y = x[:, keep], y[:, keep]
    d = x.shape[1]
    s1, s2 = (covariance(z) for z in (x, y))
    ridge = torch.eye(d, dtype=x.dtype, device=x.device) * (1e-6 * (s1 + s2).trace() / (2 * d))
    factor, factor1, factor2 = (torch.linalg.cholesky(s + ridge) for s in ((s1 + s2) / 2, s1, s2))
    shift = torch.linalg.solve_triangular(factor, (x.mean(0) - y.mean(0))[:, None], upper=False)
    half = [f.diagonal().log().sum() for f in (factor, factor1, factor2)]  # ln det = 2 sum ln of the diagonal
    return shift.square().sum() / 8 + half[0] - (half[1] + half[2]) / 2


def bhattacharyya_histogram(x: Tensor, y: Tensor, *, bins: int = 32) -> Tensor:
    """Mean over usable channels of -ln sum_b sqrt(p_b q_b) on histograms: the shape of each marginal counts.

    Args:
        x: ``(n, d)`` activations, whose quantiles 0, 1/bins .. 1 are the edges. y: ``(m, d)``.
        bins: between these edges; two open tails come on top, and 0.01 is added to every count.

    Not symmetric, because x sets the bins. Returns a float64 scalar. Raises :class:`UsageError` for unusable
    matrices and ``bins`` below 2.
    """
    if bins < 2:
        raise UsageError(f"bins must be 2 or more, not {bins}")
    x, y = pair(x, y)
    keep, _ = _usable(x)
    a, b = x[:, keep].T.contiguous().sort(1).values, y[:, keep].T.contiguous()
    place = torch.linspace(0, len(x) - 1, bins + 1, dtype=x.dtype, device=x.device)
    low = place.long().clamp_max(len(x) - 2)
    edges = torch.lerp(a[:, low], a[:, low + 1], place - low)
    p, q = (_shares(values, edges) for values in (a, b))
    return -(p * q).sqrt().sum(1).log().mean()


def usable_channels(x: Tensor) -> Tensor:
    """``(d,)`` booleans: which channels of ``(n, d)`` vary by at least 1e-6 of the median variance.

    The median is taken over channels that vary at all, so that many dead ones cannot lower it to 0. Raises
    :class:`UsageError` for unusable matrices and where no channel varies.
    """
    return _usable(rows(x))[0]


def _usable(x: Tensor) -> tuple[Tensor, Tensor]:
    varies = x.amax(0) > x.amin(0)  # the variance of a constant need not round to 0
    if not varies.any():
        raise UsageError("no channel of x varies; take the activations before the ReLU, or another layer")
    variance = x.var(0)
    floor = RELATIVE_FLOOR * variance[varies].median()
    return varies & (variance >= floor), floor


def _shares(values: Tensor, edges: Tensor) -> Tensor:
    """Smoothed shares ``(d, bins + 2)`` of ``(d, n)`` values; the last edge belongs to the bin below it."""
    d, cells = len(edges), edges.shape[1] + 1
    cell = torch.searchsorted(edges, values, right=True) - (values == edges[:, -1:]).long()
    flat = (cell + cells * torch.arange(d, device=values.device)[:, None]).flatten()
    counts = torch.bincount(flat, minlength=d * cells).view(d, cells).double() + PSEUDO_COUNT
    return counts / counts.sum(1, keepdim=True)
