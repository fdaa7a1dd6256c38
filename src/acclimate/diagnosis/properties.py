"""Properties of images that a person can see and name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

LAPLACE = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])


def grey(x: Tensor) -> Tensor:
    """``(N, H, W)`` of images ``(N, C, H, W)``: the mean over channels."""
    return x.mean(1)


def brightness(x: Tensor) -> Tensor:
    """Mean value, 0..1."""
    return grey(x).flatten(1).mean(1)


def contrast(x: Tensor) -> Tensor:
    """Standard deviation of the values."""
    return grey(x).flatten(1).std(1)


def skew(x: Tensor) -> Tensor:
    """Third standardised moment: positive where few pixels are bright on a dark ground."""
    flat = grey(x).flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    return centred.pow(3).mean(1) / centred.square().mean(1).clamp_min(1e-8).pow(1.5)


def noise(x: Tensor) -> Tensor:
    """Standard deviation of white noise, sqrt(pi / 2) / 6 mean |x * L|, L the difference of two Laplacians.

    Immerkaer, Fast noise variance estimation, CVIU 1996.
    """
    edges = functional.conv2d(grey(x)[:, None], LAPLACE.to(x)[None, None])
    return edges.abs().flatten(1).mean(1) * (torch.pi / 2) ** 0.5 / 6


def sharpness(x: Tensor) -> Tensor:
    """The share of the variance that neighbouring pixels do not have in common, in decibels."""
    g = grey(x)
    differences = (g[:, :, 1:] - g[:, :, :-1]).square().flatten(1).mean(1) + (
        (g[:, 1:] - g[:, :-1]).square().flatten(1).mean(1)
    )
    return 10 * (differences / (4 * g.flatten(1).var(1).clamp_min(1e-8)) + 1e-4).log10()


def grain(x: Tensor) -> Tensor:
    """The size of structures: how much of the variance is left after averaging over blocks of 8 x 8 pixels."""
    g = grey(x)
    coarse = functional.avg_pool2d(g[:, None], min(8, g.shape[-1], g.shape[-2]))
    return coarse.flatten(1).var(1, correction=0) / g.flatten(1).var(1, correction=0).clamp_min(1e-8)


def vignette(x: Tensor) -> Tensor:
    """Mean of the middle half minus mean of the rest."""
    g = grey(x)
    height, width = g.shape[1:]
    inner = torch.zeros(height, width, dtype=torch.bool, device=x.device)
    inner[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return g[:, inner].mean(1) - g[:, ~inner].mean(1)


def saturation(x: Tensor) -> Tensor:
    """Mean distance between the largest and the smallest channel; 0 for grey images."""
    return (x.amax(1) - x.amin(1)).flatten(1).mean(1)


def warmth(x: Tensor) -> Tensor:
    """Mean of the first channel minus mean of the last (red minus blue); 0 for grey images."""
    return (x[:, 0] - x[:, -1]).flatten(1).mean(1)


PROPERTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "skew": skew,
    "noise": noise,
    "sharpness": sharpness,
    "grain": grain,
    "vignette": vignette,
    "saturation": saturation,
    "warmth": warmth,
}


FINE = ("noise", "sharpness", "grain")
"""Properties that depend on the size of a pixel: they are compared on windows, the others on whole images."""


def measured(x: Tensor) -> dict[str, Tensor]:
    """Every property of every image ``(N, C, H, W)`` in [0, 1]: ``(N,)`` each."""
    return {name: function(x) for name, function in PROPERTIES.items()}
