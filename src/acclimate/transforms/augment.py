"""Augmentation of a batch from parameters drawn beforehand: tensors in, tensors out, no global randomness.

Photometric operations are kornia's functional ones. Its modules are not used: they draw from the global generator and
read tensors on the host, one synchronisation a step.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.settings import Settings

DRAWS = 16
"""Uniform numbers in [0, 1) that one sample needs: seven for its geometry, six for the photometry of one view."""
_GEOMETRY = 7


class Geometry(Settings):
    """Moves pixels; drawn once per sample, so that all views, labels and columns move together."""

    flips: Literal["none", "horizontal", "dihedral"] = "none"  # dihedral: also vertical and quarter turns
    rotate: float = Field(0.0, ge=0, le=180)  # degrees, uniform in +-rotate
    scale: tuple[float, float] = (1.0, 1.0)  # uniform; 2 shows half of the image at twice the size
    shift: float = Field(0.0, ge=0, le=0.5)  # share of the side, uniform in +-shift

    @property
    def moves(self) -> bool:
        return self.rotate > 0 or self.scale != (1.0, 1.0) or self.shift > 0


class Photometry(Settings):
    """Changes values; drawn anew for each view. Each number is the half-width of a uniform draw around "no change"."""

    brightness: float = Field(0.0, ge=0, le=1)  # added, of the full range
    contrast: float = Field(0.0, ge=0, lt=1)  # factor 1 +- contrast
    gamma: float = Field(0.0, ge=0, lt=1)  # exponent 1 +- gamma
    saturation: float = Field(0.0, ge=0, lt=1)  # factor, colour images only
    hue: float = Field(0.0, ge=0, le=0.5)  # turns, colour images only
    noise: float = Field(0.0, ge=0)  # largest standard deviation, of the full range


def move(x: Tensor, labels: list[Tensor], draws: Tensor, geometry: Geometry) -> tuple[Tensor, list[Tensor]]:
    """Flip, rotate, scale and shift images with their label maps.

    Args:
        x: ``(N, C, H, W)`` float images; what comes into view from outside is the reflected image.
        labels: ``(N, H, W)`` integer maps, sampled at the nearest pixel; what comes into view from outside is -1. Floating
            maps ``(N, K, H, W)`` are sampled bilinearly; outside they are 0.
        draws: ``(N, DRAWS)`` uniform in [0, 1).
    """
    if geometry.flips == "none" and not geometry.moves:
        return x, labels
    maps = [x, *labels]
    if geometry.flips != "none":
        maps = [_where(draws[:, 0] < 0.5, m.flip(-1), m) for m in maps]
    if geometry.flips == "dihedral":
        maps = [_where(draws[:, 1] < 0.5, m.flip(-2), m) for m in maps]
        if x.shape[-1] == x.shape[-2]:
            maps = [_where(draws[:, 2] < 0.5, m.transpose(-1, -2), m) for m in maps]
    if not geometry.moves:
        return maps[0], maps[1:]
    low, high = geometry.scale
    angle = (2 * draws[:, 3] - 1) * math.radians(geometry.rotate)
    zoom = 1 / (low + (high - low) * draws[:, 4])
    across, down = ((2 * draws[:, i] - 1) * 2 * geometry.shift for i in (5, 6))
    ratio = x.shape[-2] / x.shape[-1]  # rotate in pixels, not in the unit square
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack([cos, -sin * ratio, across, sin / ratio, cos, down], 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, [len(x), 1, *x.shape[-2:]], align_corners=False)
    moved = functional.grid_sample(maps[0], grid, padding_mode="reflection", align_corners=False)
    return moved, [_sample(m, grid) for m in maps[1:]]


def _sample(m: Tensor, grid: Tensor) -> Tensor:
    if m.is_floating_point():
        return functional.grid_sample(m, grid, align_corners=False)
    # Labels travel as floats raised by one: the zeros that fill the outside then come back as -1, "ignore".
    raised = functional.grid_sample((m[:, None] + 1).float(), grid, mode="nearest", align_corners=False)
    return raised[:, 0].to(m.dtype) - 1


def recolour(
    x: Tensor, draws: Tensor, photometry: Photometry, noise_seed: int, *, row: int = 0, rows: int | None = None
) -> Tensor:
    """Change brightness, contrast, gamma, saturation and hue of ``(N, C, H, W)`` images in [0, 1], then add noise.

    Args:
        draws: ``(N, DRAWS)`` uniform in [0, 1).
        noise_seed: of the generator that draws the noise.
        row, rows: ``x`` is the part from ``row`` on of a batch of ``rows`` images that shares the noise.
    """
    if photometry == Photometry():
        return x
    from kornia import enhance  # imported here: it costs a third of a second that most runs need not pay

    draws = draws[:, _GEOMETRY:]
    signed = 2 * draws - 1
    if photometry.brightness:
        x = enhance.adjust_brightness(x, signed[:, 0] * photometry.brightness)
    if photometry.contrast:
        x = enhance.adjust_contrast_with_mean_subtraction(x, 1 + signed[:, 1] * photometry.contrast)
    if photometry.gamma:
        x = enhance.adjust_gamma(x.clamp(0, 1), 1 + signed[:, 2] * photometry.gamma, torch.ones_like(signed[:, 2]))
    if x.shape[1] == 3 and photometry.saturation:
        x = enhance.adjust_saturation(x, 1 + signed[:, 3] * photometry.saturation)
    if x.shape[1] == 3 and photometry.hue:
        x = enhance.adjust_hue(x, signed[:, 4] * 2 * math.pi * photometry.hue)
    if photometry.noise:
        generator = torch.Generator(x.device).manual_seed(noise_seed)
        noise = torch.randn((rows or len(x), *x.shape[1:]), generator=generator, device=x.device)[row : row + len(x)]
        x = x + noise * (draws[:, 5] * photometry.noise).view(-1, 1, 1, 1)
    return x.clamp(0, 1)


def _where(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition.view(-1, *[1] * (yes.ndim - 1)), yes, no)
