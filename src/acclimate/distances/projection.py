"""Random directions, projections on them, and exact transport on a line."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.random import generator


def orthogonal_directions(d: int, number: int, seed: int) -> Tensor:
    """``(number, d)`` float64 unit vectors, uniform on the sphere, orthogonal within blocks of d; on the CPU."""
    if number < 1:
        raise UsageError(f"directions must be 1 or more, not {number}")
    source = generator("directions", seed, d)
    blocks = []
    for start in range(0, number, d):
        gauss = torch.randn(d, min(d, number - start), generator=source, dtype=torch.float64)
        q, r = torch.linalg.qr(gauss)
        blocks.append((q * r.diagonal().sign()).T)  # with these signs Q is uniform (Mezzadri 2007)
    return torch.cat(blocks)


def project(x: Tensor, y: Tensor, directions: int, seed: int) -> tuple[Tensor, Tensor]:
    """``(directions, n)`` and ``(directions, m)``, the values along each direction."""
    along = orthogonal_directions(x.shape[1], directions, seed).to(x.device)
    return along @ x.T, along @ y.T


def coupling(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ranks (i, j) that the monotone coupling of n with m sorted values joins, and the mass of each join.

    Where n != m the quantile functions step at k/n and k/m; counted in units of 1/nm the grid is exact.
    """
    ends = torch.cat([torch.arange(1, n + 1, device=device) * m, torch.arange(1, m + 1, device=device) * n]).unique()
    mass = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    return (ends - 1) // m, (ends - 1) // n, mass


def transport(a: Tensor, b: Tensor) -> Tensor:
    """Squared 1-D distances ``(L,)`` of values ``(L, n)`` and ``(L, m)`` sorted along the last axis."""
    i, j, mass = coupling(a.shape[1], b.shape[1], a.device)
    return (a[:, i] - b[:, j]).square() @ mass
