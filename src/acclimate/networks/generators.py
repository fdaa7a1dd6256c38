"""Generators: networks that draw images of a class."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError

_WIDEST = 8  # times the width


class ConditionalNorm(nn.Module):
    """BatchNorm without weights, then a scale and a shift for each class and channel (Dumoulin et al., ICLR 2017, eq. 5).

    The statistics are those of a batch of all classes; maps ``(N, C, h, w)`` and classes ``(N,)``.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.norm(x)
        scale, shift = (table(y).to(x.dtype)[..., None, None] for table in (self.scale, self.shift))
        return x * scale + shift  # in half precision under autocast: the maps are large


class Generator(nn.Module):
    """Images ``(N, C, H, W)`` of the classes ``y (N,)``, as the network that shall see them takes them.

    (z, one-hot y) -> dense -> map of h x w, doubled by 4x4 transposed convolutions of stride 2, each after a
    :class:`ConditionalNorm` and ReLU; 3x3 convolution; v = (1 + tanh) / 2 in [0, 1]; (v - mean) / std. The map begins
    with at least 4 pixels a side (4 x 4 for 32 x 32 images, 7 x 7 for 28 x 28); what stands over in the end is cut off.

    Args:
        shape: ``(C, H, W)`` of an image, each side 4 pixels or more.
        width: channels before the last convolution; twice as many at each coarser size, 8 times at most. 64 gives
            512-256-128-64 for 32 x 32 images.
        latent: numbers in the noise z.
        normalisation: ``(mean, std)`` per channel, as a :class:`acclimate.networks.Network` has them.

    Raises :class:`UsageError` for smaller images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        width: int = 64,
        latent: int = 100,
        normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if min(height, breadth) < 4:
            raise UsageError(f"a generator draws images of 4 x 4 pixels or more, not {height} x {breadth}")
        doublings = int(math.log2(min(height, breadth) / 4))
        widths = [width * min(_WIDEST, 2**level) for level in reversed(range(doublings + 1))]
        self.classes, self.latent, self.size = classes, latent, (height, breadth)
        self.begin = (widths[0], -(-height // 2**doublings), -(-breadth // 2**doublings))
        self.dense = nn.Linear(latent + classes, math.prod(self.begin))
        self.norms = nn.ModuleList(ConditionalNorm(number, classes) for number in widths)
        self.rise = nn.ModuleList(
            # the normalisation that follows subtracts any bias
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
            for inputs, outputs in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        mean, std = normalisation or ([0.5] * channels, [0.5] * channels)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, y: Tensor, z: Tensor | None = None) -> Tensor:
        """``z (N, latent)`` is drawn from N(0, I) by torch's global generator where it is not given."""
        if z is None:
            z = torch.randn(len(y), self.latent, device=y.device)
        x = self.dense(
            torch.cat([z, (y[:, None] == torch.arange(self.classes, device=y.device)).to(z.dtype)], dim=1)
        ).view(-1, *self.begin)
        x = F.relu(self.norms[0](x, y))
        for rise, norm in zip(self.rise, self.norms[1:]):
            x = F.relu(norm(rise(x), y))
        top, left = (x.shape[2] - self.size[0]) // 2, (x.shape[3] - self.size[1]) // 2
        x = self.last(x)[:, :, top : top + self.size[0], left : left + self.size[1]]
        return ((1 + x.float().tanh()) / 2 - self.mean) / self.std
