"""A labelled twin of the target: the source's images made to look like the target's, as far as values and noise go."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.diagnosis.properties import noise
from acclimate.transforms.shifts import blurred

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
    pairs = zip(source.split(1, dim=1), target.split(1, dim=1))
    return torch.cat([_channel(mine, theirs, generator) for mine, theirs in pairs], 1)


def _channel(x: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    x = match_histogram(x, target, generator)
    wanted, here = noise(target).mean(), noise(x).mean()
    if here < wanted:
        x = x + (wanted.square() - here.square()).sqrt() * torch.randn(x.shape, generator=generator)
    else:
        x = min((blurred(x, sigma) for sigma in BLURS), key=lambda one: float((noise(one).mean() - wanted).abs()))
    return match_histogram(x, target, generator)


def match_histogram(x: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    """One channel's values mapped by the increasing function that makes their quantiles the target's.

    Values that many pixels share (a background of exactly 0) become the mean of the target's quantiles at their ranks.
    """
    levels = torch.linspace(0, 1, LEVELS)
    mine, theirs = (some(values, generator).quantile(levels) for values in (x, target))
    values, which = mine.unique(return_inverse=True)
    mapped = torch.zeros(len(values)).index_add_(0, which, theirs) / torch.bincount(which)
    if len(values) == 1:
        return torch.full_like(x, float(mapped[0]))
    flat = x.clamp(float(values[0]), float(values[-1])).contiguous()
    place = torch.searchsorted(values, flat).clamp(1, len(values) - 1)
    share = ((flat - values[place - 1]) / (values[place] - values[place - 1])).clamp(0, 1)
    return torch.lerp(mapped[place - 1], mapped[place], share).clamp(0, 1)


def some(values: Tensor, generator: torch.Generator) -> Tensor:
    """At most :data:`VALUES` of them, drawn at random."""
    flat = values.flatten()
    if len(flat) <= VALUES:
        return flat
    return flat[torch.randint(len(flat), (VALUES,), generator=generator)]
