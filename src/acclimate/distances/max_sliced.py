"""The direction along which two sets differ most."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from acclimate.distances.pair import pair
from acclimate.distances.projection import coupling, orthogonal_directions, transport
from acclimate.errors import UsageError


def max_sliced_wasserstein(x: Tensor, y: Tensor, *, steps: int = 50, seed: int = 0) -> Tensor:
    """Largest squared 1-D 2-Wasserstein distance over directions (Deshpande et al., CVPR 2019).

    Args:
        x: ``(n, d)`` activations. y: ``(m, d)``.
        steps: of gradient ascent on the sphere, from the best of the difference of means and 128 random directions.
        seed: fixes these directions.

    The maximum is a local one: a lower bound of the distance. Returns a float64 scalar. Raises
    :class:`UsageError` for unusable matrices and negative ``steps``.
    """
    if steps < 0:
        raise UsageError(f"steps must be 0 or more, not {steps}")
    x, y = pair(x, y)
    shift = x.mean(0) - y.mean(0)
    starts = orthogonal_directions(x.shape[1], 128, seed).to(x.device)
    starts = torch.cat([starts, normalize(shift, dim=0)[None]])
    values = transport((starts @ x.T).sort(1).values, (starts @ y.T).sort(1).values)
    best, direction = values.max(), starts[values.argmax()]
    slope, angle = _gradient(x, y, direction)[1], 0.5
    for _ in range(steps):
        tangent = normalize(slope - (slope @ direction) * direction, dim=0)
        trial = normalize(math.cos(angle) * direction + math.sin(angle) * tangent, dim=0)
        value, trial_slope = _gradient(x, y, trial)
        if value > best:
            best, direction, slope, angle = value, trial, trial_slope, min(1.2 * angle, 1.0)
        else:
            angle /= 2
    return best


def _gradient(x: Tensor, y: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The squared 1-D distance along a direction and its derivative 2 sum_k mass_k gap_k (x_i(k) - y_j(k))."""
    a, b = (x @ direction).sort(), (y @ direction).sort()
    i, j, mass = coupling(len(x), len(y), x.device)
    gap = a.values[i] - b.values[j]
    pull_x = x.new_zeros(len(x)).index_add_(0, a.indices[i], mass * gap)
    pull_y = y.new_zeros(len(y)).index_add_(0, b.indices[j], mass * gap)
    return mass @ gap.square(), 2 * (pull_x @ x - pull_y @ y)
