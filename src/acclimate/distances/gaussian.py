"""Wasserstein distances between the Gaussians that two sets of activations suggest."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.distances.pair import pair
from acclimate.errors import UsageError


def frechet(x: Tensor, y: Tensor, *, shrink: bool = False) -> Tensor:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982).

    ||m1 - m2||^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2, S with the divisor n - 1.

    Args:
        x: ``(n, d)`` activations. y: ``(m, d)``.
        shrink: take Ledoit-Wolf covariances, which lowers the bias where n is not far above d.

    With fewer rows than channels the last trace is the nuclear norm of Xc Yc^T, centred and divided by the roots of
    n - 1 and m - 1: the same value, cheaper. Returns a float64 scalar, at least 0, in squared units of the
    activations. Its bias for equal distributions is about d^2 / 2n + 2d / n: show it beside
    :func:`~acclimate.distances.source_null`. Raises :class:`UsageError` for unusable matrices.
    """
    x, y = pair(x, y)
    if shrink:
        return _between(x.mean(0), ledoit_wolf(x), y.mean(0), ledoit_wolf(y))
    if min(len(x), len(y)) >= x.shape[1]:
        return _between(x.mean(0), covariance(x), y.mean(0), covariance(y))
    a, b = (_reduced(z) for z in (x, y))
    cross = torch.linalg.svdvals(a @ b.T).sum()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    return (shift + a.square().sum() + b.square().sum() - 2 * cross).clamp_min(0)


def frechet_moments(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> Tensor:
    """:func:`frechet` of given means ``(d,)`` and covariances ``(d, d)``, of any float dtype.

    Raises :class:`UsageError` for other shapes, values that are not finite and covariances that are not symmetric.
    """
    d = mean_x.numel()
    moments = [z.detach().to(mean_x.device, torch.float64) for z in (mean_x, cov_x, mean_y, cov_y)]
    if [tuple(z.shape) for z in moments] != [(d,), (d, d), (d,), (d, d)]:
        shapes = ", ".join(str(tuple(z.shape)) for z in moments)
        raise UsageError(f"give means of shape (d,) and covariances of shape (d, d), not {shapes}")
    if not all(z.isfinite().all() for z in moments):
        raise UsageError("a mean or covariance is not finite; remove the rows that are not finite first")
    if not all(torch.allclose(z, z.T, rtol=1e-4, atol=1e-6 * float(z.abs().max())) for z in moments[1::2]):
        raise UsageError("a covariance is not symmetric; compute it as Xc^T Xc / (n - 1)")
    return _between(*moments)


def frechet_diagonal(x: Tensor, y: Tensor) -> Tensor:
    """:func:`frechet` without correlations: sum_c (mu_x - mu_y)^2 + (sigma_x - sigma_y)^2.

    Args:
        x: ``(n, d)`` activations. y: ``(m, d)``.

    Returns a float64 scalar; its bias for equal distributions is about 3 / n per unit of variance. Raises
    :class:`UsageError` for unusable matrices.
    """
    x, y = pair(x, y)
    return (x.mean(0) - y.mean(0)).square().sum() + (x.std(0) - y.std(0)).square().sum()


def covariance(x: Tensor) -> Tensor:
    """``(d, d)``, with the divisor n - 1, of ``(n, d)``; a matrix also where d = 1."""
    return x.T.cov().reshape(x.shape[1], x.shape[1])


def ledoit_wolf(x: Tensor) -> Tensor:
    """(1 - a) S + a (tr S / d) I, S with the divisor n (Ledoit and Wolf, J. Multivariate Analysis 2004).

    a = min(b^2, c^2) / c^2, c^2 = ||S - (tr S / d) I||_F^2, b^2 = 1/n^2 sum_i ||x_i x_i^T - S||_F^2; x is ``(n, d)``.
    """
    n, d = x.shape
    centred = x - x.mean(0)
    s = centred.T @ centred / n
    target = torch.eye(d, dtype=x.dtype, device=x.device) * (s.trace() / d)
    spread = (s - target).square().sum()
    noise = (centred.square().sum(1).square().sum() / n - s.square().sum()) / n
    a = torch.where(spread > 0, (noise / spread).clamp(0, 1), 0.0)  # an isotropic S needs no shrinkage
    return torch.lerp(s, target, a)


def _between(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov_x)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    middle = root @ cov_y @ root
    # Rounding makes eigenvalues of a singular product negative; their true value is 0.
    cross = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp_min(0).sqrt().sum()
    shift = (mean_x - mean_y).square().sum()
    return (shift + cov_x.trace() + cov_y.trace() - 2 * cross).clamp_min(0)


def _reduced(x: Tensor) -> Tensor:
    """At most d rows R with R^T R the covariance of x: singular values of R_x R_y^T are those of Xc Yc^T."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred
