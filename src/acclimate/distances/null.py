"""What a distance says where nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from acclimate.distances.pair import rows
from acclimate.errors import UsageError
from acclimate.random import generator


class Null(NamedTuple):
    """A distance between halves of one domain: its mean and standard deviation over splits, and an upper quantile."""

    mean: float
    deviation: float
    quantile: float


def source_null(
    distance: Callable[..., Tensor | float],
    x: Tensor,
    images: Tensor,
    *,
    size: int | None = None,
    repeats: int = 20,
    seed: int = 0,
    level: float = 0.95,
    grouped: bool = False,
) -> Null:
    """The distance between two disjoint random halves of the source: the bias and spread of a finite sample.

    Show D - mean, and call D a shift only above ``quantile``. The halves are split by image, because rows of one image
    resemble each other and would make both halves look alike.

    Args:
        distance: of two matrices, such as the values of :data:`~acclimate.distances.DISTANCES`.
        x: ``(n, d)`` activations of the source. images: ``(n,)`` integers, the image of each row.
        size: rows drawn from each half without replacement; all of them where None. The bias depends on it: give the
            number of rows with which the distance itself is computed.
        repeats: number of random splits. seed: fixes them. level: of the quantile.
        grouped: give ``distance`` the images of the rows of either half too, as
            :func:`~acclimate.distances.classifier_two_sample` takes them.

    Raises :class:`UsageError` for unusable matrices, fewer than 2 images, fewer than 2 repeats, a level outside
    0..1, or a half with fewer than ``size`` rows.
    """
    if repeats < 2 or not 0 <= level <= 1:
        raise UsageError(f"repeats must be 2 or more and level in 0..1, not {repeats} and {level}")
    if size is not None and size < 2:
        raise UsageError(f"size must be 2 or more, not {size}")
    rows(x)
    if images.shape != (len(x),) or images.is_floating_point():
        raise UsageError(f"images must be {len(x)} integers, the image of each row of x")
    found, image = images.cpu().unique(return_inverse=True)
    if len(found) < 2:
        raise UsageError("all rows come from one image; the source can be split by image from 2 images on")
    values = []
    for repeat in range(repeats):
        source = generator("null", seed, repeat)
        chosen = torch.randperm(len(found), generator=source) < len(found) // 2
        halves = [_draw(half, size, source) for half in (chosen[image], ~chosen[image])]
        groups = [image[half] for half in halves] if grouped else []
        values.append(float(distance(*(x[half.to(x.device)] for half in halves), *groups)))
    result = torch.tensor(values, dtype=torch.float64)
    return Null(result.mean().item(), result.std().item(), result.quantile(level).item())


def _draw(half: Tensor, size: int | None, source: torch.Generator) -> Tensor:
    """Indices of the rows of a half, or of ``size`` of them."""
    indices = half.nonzero().flatten()
    if size is None:
        return indices
    if len(indices) < size:
        raise UsageError(f"a half of the source has {len(indices)} rows; ask for that size or less, not {size}")
    return indices[torch.randperm(len(indices), generator=source)[:size]]
