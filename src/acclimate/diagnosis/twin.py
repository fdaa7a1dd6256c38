"""A labelled twin of the target: the source's images made to look like the target's, as far as values and noise go."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.diagnosis.properties import noise

LEVELS = 256  # quantiles of the histogram
VALUES = 200_000  # of which it is taken
BLURS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0, 3.0)  # pixels


def twin(source: Tensor, target: Tensor, seed: int = 0) -> Tensor:
    """Images ``(N, C, H, W)`` of the source with the target's histogram and fine noise.

    Per channel, values are mapped so that their quantiles become the target's; then white noise is added, or the image is
    blurred, until the noise is the target's; then values are mapped again. The map is increasing: contrast is never
    inverted, shapes never move. So a target that differs in brightness, contrast, gamma or noise has a faithful twin, whose
    labels are known; how far the twin is from any other target is for the advisor to learn.
    """
    generator = torch.Generator().manual_seed(seed)
    x = match_histogram(source, target, generator)
    wanted, here = noise(target).mean(), noise(x).mean()
    if here < wanted:
        extra = (wanted.square() - here.square()).sqrt()
        x = x + extra * torch.randn(x.shape, generator=generator)
    else:
        x = min((blurred(x, sigma) for sigma in BLURS), key=lambda one: float((noise(one).mean() - wanted).abs()))
    return match_histogram(x, target, generator)


def match_histogram(x: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    """``x`` with each channel's values mapped by the increasing function that makes its quantiles the target's."""
    levels = torch.linspace(0, 1, LEVELS)
    channels = []
    for c in range(x.shape[1]):
        mine, theirs = (some(values[:, c], generator).quantile(levels) for values in (x, target))
        # Equal quantiles (a flat background) are spread by a hair, so that the map stays a function.
        mine = mine + torch.arange(LEVELS) * 1e-7
        flat = x[:, c].clamp(float(mine[0]), float(mine[-1])).contiguous()
        place = torch.searchsorted(mine, flat).clamp(1, LEVELS - 1)
        low, high = mine[place - 1], mine[place]
        share = ((flat - low) / (high - low)).clamp(0, 1)
        channels.append(torch.lerp(theirs[place - 1], theirs[place], share))
    return torch.stack(channels, 1).clamp(0, 1)


def some(values: Tensor, generator: torch.Generator) -> Tensor:
    """At most :data:`VALUES` of them, drawn at random."""
    flat = values.flatten()
    if len(flat) <= VALUES:
        return flat
    return flat[torch.randint(len(flat), (VALUES,), generator=generator)]


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with reflected borders; ``sigma`` in pixels, 0 leaves the images as they are."""
    if sigma == 0:
        return x
    radius = min(int(3 * sigma + 0.5), min(x.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1)
    kernel = (-(offsets**2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    padded = functional.pad(x, (radius, radius, radius, radius), mode="reflect")
    across = functional.conv2d(padded, kernel[:, :, None, :], groups=x.shape[1])
    return functional.conv2d(across, kernel[:, :, :, None], groups=x.shape[1])
