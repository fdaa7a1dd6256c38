"""Perlin noise and the segmentation scenes made from it: shapes whose look is known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from acclimate.errors import UsageError


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
    if min(count, size, cells, octaves) < 1:
        raise UsageError(
            f"Perlin noise needs at least 1 as count, size, cells and octaves, not {count, size, cells, octaves}"
        )
    sides = [cells * 2**octave + 1 for octave in range(octaves)]
    source = generator.device if generator is not None else "cpu"
    # One draw per image: within one large draw, how values follow each other may depend on its length.
    numbers = sum(side**2 for side in sides)
    angles = torch.stack([torch.rand(numbers, generator=generator, device=source) for _ in range(count)]).to(device)
    position = (torch.arange(size, device=device) + 0.5) / size
    field = torch.zeros(count, size, size, device=device)
    for octave, part in enumerate(angles.split([side**2 for side in sides], dim=1)):
        field += 0.5**octave * lattice_noise(part.reshape(count, sides[octave], sides[octave]), position)
    return field


def lattice_noise(turns: Tensor, position: Tensor) -> Tensor:
    """Noise ``(N, P, P)`` at ``position`` x ``position`` in [0, 1), from angles ``(N, R + 1, R + 1)`` in full turns."""
    cells = turns.shape[1] - 1
    angle = 2 * math.pi * turns
    cell = (position * cells).floor().long().clamp_max(cells - 1)
    offset = position * cells - cell
    fade = offset**3 * (offset * (6 * offset - 15) + 10)

    def corner(row: int, column: int) -> Tensor:
        at = angle[:, cell + row][:, :, cell + column]
        return at.sin() * (offset - row)[:, None] + at.cos() * (offset - column)[None, :]

    top = torch.lerp(corner(0, 0), corner(0, 1), fade[None, None, :])
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade[None, None, :])
    return torch.lerp(top, bottom, fade[None, :, None])


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
    # Ranks rather than a threshold: equal values would otherwise make the share inexact.
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1)
    count = (shares * flat.shape[1]).round()
    return (ranks >= flat.shape[1] - count[:, None]).to(torch.uint8).reshape(field.shape)


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
    masks = foreground(perlin(count, size, cells, octaves, shapes, device), wanted)
    error = torch.stack([torch.randn(size, size, generator=noise, device=source) for _ in range(count)]).to(device)
    images = outside + (inside - outside) * masks + sigma * error
    return (images * 255).round().clamp(0, 255).to(torch.uint8).unsqueeze(-1), masks
