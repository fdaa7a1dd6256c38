"""Perlin noise and the segmentation scenes made from it: shapes whose look is known exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from acclimate.errors import UsageError

_PIXELS = 2**20  # worked on at a time: few enough for caches, enough that threads seldom wait for each other


def perlin(
    count: int,
    size: int,
    cells: int = 4,
    octaves: int = 1,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Gradient noise ``(count, size, size)``.

    The lattice has (R + 1)^2 unit gradients g = (cos t, sin t), t ~ U[0, 2 pi), with R = ``cells``. A pixel i lies at
    (i + 1/2) R / size; its four products g . (f - corner) are blended with u(f) = 6 f^5 - 15 f^4 + 10 f^3 (Perlin,
    "Improving noise", SIGGRAPH 2002). Octaves add sum_k 2^-k perlin(R 2^k). Angles are drawn image by image, on the
    generator's device, so image i is the same whatever ``count`` and ``device``.

    Raises :class:`UsageError` for sizes below one.
    """
    _check(count, size, cells, octaves)
    return torch.cat(list(_fields(count, size, cells, octaves, generator, device)))


def _check(count: int, size: int, cells: int, octaves: int) -> None:
    if min(count, size, cells, octaves) < 1:
        raise UsageError(
            f"Perlin noise needs at least 1 as count, size, cells and octaves, not {count, size, cells, octaves}"
        )


def _fields(
    count: int, size: int, cells: int, octaves: int, generator: torch.Generator | None, device: torch.device | str
) -> Iterator[Tensor]:
    """The fields of :func:`perlin`, a block at a time."""
    sides = [cells * 2**octave + 1 for octave in range(octaves)]
    position = (torch.arange(size, device=device) + 0.5) / size
    block = _block(size)
    # Always a full block: how a product of matrices is rounded may depend on their number, and image i must not.
    angles = torch.zeros(
        block, sum(side**2 for side in sides), device=generator.device if generator is not None else "cpu"
    )
    for start in range(0, count, block):
        # One draw per image: within one large draw, how values follow each other may depend on its length.
        for row in angles[: count - start]:
            row.uniform_(generator=generator)
        parts = angles.to(device).split([side**2 for side in sides], dim=1)
        field = lattice_noise(parts[0].view(block, sides[0], sides[0]), position)
        for octave in range(1, octaves):
            part = parts[octave].reshape(block, sides[octave], sides[octave])
            field.add_(lattice_noise(part, position), alpha=0.5**octave)
        yield field[: count - start]


def _block(size: int) -> int:
    return max(1, _PIXELS // size**2)


def lattice_noise(turns: Tensor, position: Tensor) -> Tensor:
    """Noise ``(N, P, P)`` at ``position`` x ``position`` in [0, 1), from angles ``(N, R + 1, R + 1)`` in full turns.

    With w_r(p) the share that lattice line r has in the blend at p (1 - u, u, or 0 where it is no neighbour) and
    d_r(p) = w_r(p) (p R - r), the blend of the four products is d S w' + w C d', where S and C ``(R + 1, R + 1)`` hold
    the sines and cosines of the angles: two thin products of matrices instead of four gathers per pixel.
    """
    cells = turns.shape[1] - 1
    angle = 2 * math.pi * turns
    cell = (position * cells).floor().long().clamp_max(cells - 1)[:, None]
    offset = position[:, None] * cells - cell
    fade = offset**3 * (offset * (6 * offset - 15) + 10)
    share = torch.zeros(len(position), cells + 1, dtype=turns.dtype, device=turns.device)
    share = share.scatter(1, cell, 1 - fade).scatter(1, cell + 1, fade)
    slope = share.scatter(1, cell, (1 - fade) * offset).scatter(1, cell + 1, fade * (offset - 1))
    left = torch.cat([slope, share], 1).expand(len(turns), -1, -1)
    return left @ torch.cat([angle.sin() @ share.T, angle.cos() @ slope.T], 1)


def foreground(field: Tensor, share: float | Sequence[float] | Tensor | None) -> Tensor:
    """Masks ``(N, H, W)`` of 0 and 1 from noise ``(N, H, W)``.

    With a ``share`` pi in [0, 1], or one per image, exactly the round(pi H W) highest pixels are foreground; with None,
    those above zero. Raises :class:`UsageError` for a share outside [0, 1].
    """
    if share is None:
        return (field > 0).to(torch.uint8)
    shares = torch.as_tensor(share, dtype=torch.float64, device=field.device).expand(len(field))
    if bool((shares < 0).any()) or bool((shares > 1).any()):
        raise UsageError(f"a share of foreground lies between 0 and 1, not {share}")
    flat = field.flatten(1)
    wanted = (shares * flat.shape[1]).round().long()
    # The lowest value of the foreground, image by image: numpy's partition takes a tenth of the time of a sort.
    places = (flat.shape[1] - wanted).clamp_max(flat.shape[1] - 1).tolist()
    lowest = [np.partition(row, place)[place] for row, place in zip(flat.cpu().numpy(), places)]
    threshold = torch.as_tensor(np.array(lowest), device=field.device)[:, None]
    mask = flat >= threshold
    # Where several pixels have that value the first of them are background.
    surplus = mask.sum(1) - wanted
    for image in surplus.nonzero()[:, 0].tolist():
        ties = (flat[image] == threshold[image]).nonzero()[:, 0]
        mask[image, ties[: surplus[image]]] = False
    return mask.view(torch.uint8).reshape(field.shape)


def scenes(
    count: int,
    size: int = 64,
    *,
    inside: float = 0.7,
    outside: float = 0.3,
    sigma: float = 0.15,
    share: float | tuple[float, float] | None = (0.3, 0.5),
    cells: int = 4,
    octaves: int = 1,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Images ``(N, H, W, 1)`` and masks ``(N, H, W)``, both uint8; object 1, background 0.

    x = mu2 + (mu1 - mu2) mask + sigma e with e ~ N(0, 1), times 255, rounded and clipped.

    Args:
        inside, outside: the means mu1 of the object and mu2 of the background, in 0..1.
        sigma: standard deviation of the white noise.
        share: of foreground in each image: a number, a range to draw from uniformly, or None to cut the noise at zero.
        cells, octaves: of the Perlin noise.

    Image i does not depend on ``count``. Raises :class:`UsageError` as :func:`perlin` and :func:`foreground` do.
    """
    _check(count, size, cells, octaves)
    source = generator.device if generator is not None else torch.device("cpu")
    # One seed per kind of draw: what one of them consumes does not move the others.
    seeds = torch.randint(2**62, (3,), generator=generator, device=source).tolist()
    shapes, shares, noise = (torch.Generator(source).manual_seed(seed) for seed in seeds)
    wanted: Tensor | float | None
    if isinstance(share, tuple):
        low, high = share
        wanted = (low + (high - low) * torch.rand(count, generator=shares, device=source)).to(device)
    else:
        wanted = share
    images = torch.empty(count, size, size, 1, dtype=torch.uint8, device=device)
    masks = torch.empty(count, size, size, dtype=torch.uint8, device=device)
    error = torch.empty(_block(size), size, size, device=source)
    start = 0
    for field in _fields(count, size, cells, octaves, shapes, device):
        part = slice(start, start + len(field))
        masks[part] = foreground(field, wanted[part] if isinstance(wanted, Tensor) else wanted)
        for image in error[: len(field)]:
            image.normal_(generator=noise)
        level = (masks[part] * (inside - outside)).add_(outside)
        level += error[: len(field)].to(device).mul_(sigma)
        images[part, ..., 0] = level.mul_(255).round_().clamp_(0, 255)
        start = part.stop
    return images, masks
