"""Has anything moved? Permutation tests over images, each with a false alarm in twenty where nothing has."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from acclimate.errors import DataError
from acclimate.random import generator

LEVEL = 0.05
PERMUTATIONS = 999


class Check(NamedTuple):
    """One question, its answer, and what the answer would be by chance."""

    name: str
    source: float  # mean over images
    target: float
    effect: float  # difference in standard deviations (pooled, at least .001); for a layer: the energy distance
    floor: float  # the 95 % quantile of |effect| by chance
    p: float

    @property
    def fires(self) -> bool:
        return self.p <= LEVEL


def by_image(values: Tensor, images: Tensor) -> Tensor:
    """The mean over the windows of each image, ``(n, ...)``: windows of one image are no independent witnesses."""
    found, which = images.unique(return_inverse=True)
    sums = torch.zeros(len(found), *values.shape[1:], dtype=torch.float64)
    sums.index_add_(0, which, values.double())
    return sums / torch.bincount(which).view(-1, *[1] * (values.ndim - 1))


def dealt(n: int, m: int, seed: object) -> Tensor:
    """``(PERMUTATIONS, n + m)`` indicators with n ones each: random ways to deal n + m images to two sides."""
    draws = torch.rand(PERMUTATIONS, n + m, generator=generator("permutations", seed, n, m), dtype=torch.float64)
    return torch.zeros_like(draws).scatter_(1, draws.topk(n, 1).indices, 1.0)


def moved(name: str, source: Tensor, target: Tensor, seed: object = 0) -> Check:
    """Whether the mean of a property differs, from values ``(n,)`` and ``(m,)``, one an image.

    The statistic is the difference of means; p = (1 + number of deals at least as large) / (1 + number of deals)
    (Phipson and Smyth, 2010), exact for exchangeable images whatever their distribution.

    Raises :class:`DataError` for fewer than two images on a side.
    """
    n, m = len(source), len(target)
    enough(n, m)
    values = torch.cat([source, target]).double()
    sides = dealt(n, m, (seed, name))
    sums = sides @ values
    differences = (values.sum() - sums) / m - sums / n
    found = target.double().mean() - source.double().mean()
    centred = torch.cat([source.double() - source.double().mean(), target.double() - target.double().mean()])
    scale = (centred.square().sum() / (n + m - 2)).sqrt().clamp_min(1e-3) if n + m > 2 else centred.new_tensor(1e-3)
    slack = 1e-9 * values.abs().mean()  # equal in exact arithmetic
    p = (1 + int((differences.abs() >= found.abs() - slack).sum())) / (1 + PERMUTATIONS)
    # The floor is what images like these would show by chance: about their own side's mean, or it would grow with the shift.
    left = sides @ centred
    floor = ((centred.sum() - left) / m - left / n).abs().quantile(1 - LEVEL) / scale
    return Check(
        name, source.double().mean().item(), target.double().mean().item(), (found / scale).item(), floor.item(), p
    )


def moved_cloud(name: str, source: Tensor, target: Tensor, seed: object = 0) -> Check:
    """Whether two sets of vectors ``(n, d)`` and ``(m, d)``, one an image, differ in any way.

    The statistic is the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| of vectors in units of the pooled standard
    deviations (Szekely and Rizzo, 2004), judged by the same deals.
    """
    n, m = len(source), len(target)
    enough(n, m)
    values = torch.cat([source, target]).double()
    scale = values.std(0)  # of both sides together: it must not depend on who is dealt where
    used = scale > 1e-9 * scale.max()
    values = values[:, used] / scale[used] if bool(used.any()) else torch.zeros(n + m, 1, dtype=torch.float64)
    apart = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")

    def energy(sides: Tensor) -> Tensor:
        mine = sides @ apart
        within = (mine * sides).sum(1)
        across = mine.sum(1) - within
        others = apart.sum() - 2 * across - within
        return 2 * across / (n * m) - within / (n * (n - 1)) - others / (m * (m - 1))

    by_chance = energy(dealt(n, m, (seed, name)))
    found = energy(torch.cat([torch.ones(n), torch.zeros(m)])[None].double())
    p = (1 + int((by_chance >= found - 1e-9 * apart.mean()).sum())) / (1 + PERMUTATIONS)
    return Check(name, 0.0, found.item(), found.item(), by_chance.quantile(1 - LEVEL).item(), p)


def enough(n: int, m: int) -> None:
    if min(n, m) < 2:
        raise DataError(f"{n} source and {m} target images are too few to compare; give at least 2 of each, better 30")
