"""Translators: networks that draw an image anew, or draw one of a label map, and a critic of patches of images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

Normalisation = tuple[Sequence[float], Sequence[float]]
"""``(mean, std)`` per channel, as a :class:`acclimate.networks.Network` has them."""


class _Drawing(nn.Module):
    """What draws images in the units of a network's input: v in [0, 1] becomes (v - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, normalisation: Normalisation | None) -> None:
        super().__init__()
        mean, std = normalisation or ([0.5] * channels, [0.5] * channels)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)


class _Residual(nn.Module):
    """x + IN(conv(ReLU(IN(conv(x))))) with 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(width, width, 3),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate", bias=False),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> list[nn.Module]:
    # The normalisation that follows subtracts any bias.
    convolution = nn.Conv2d(
        inputs, outputs, side, stride=stride, padding=side // 2, padding_mode="replicate", bias=False
    )
    return [convolution, nn.InstanceNorm2d(outputs), nn.ReLU()]


class Translator(_Drawing):
    """Images ``(N, C, H, W)`` of one domain drawn anew for another, in the same units; untrained it is the identity.

    7x7 convolution, two 3x3 convolutions of stride 2, ``blocks`` residual blocks, two 4x4 transposed convolutions of stride
    2, 7x7 convolution, with instance normalisation and ReLU between them (Johnson et al., ECCV 2016; Zhu et al., ICCV 2017).
    What comes out, r, changes the image: clamp(v + tanh(r), 0, 1), v being its values in [0, 1]. The last convolution begins
    at zero. Borders are replicated, because CUDA has no deterministic gradient of reflection. An image whose sides are no
    multiples of 4, or below 8, is continued at the right and bottom, and what stands over is cut off.

    Args:
        width: channels at full size, four times as many in the residual blocks. CycleGAN: 64.
        blocks: CycleGAN: 9, or 6 for images of 128 pixels.
    """

    def __init__(
        self, channels: int, width: int = 64, blocks: int = 9, normalisation: Normalisation | None = None
    ) -> None:
        super().__init__(channels, normalisation)
        layers = _convolution(channels, width, 7)
        for number in (width, 2 * width):
            layers += _convolution(number, 2 * number, 3, stride=2)
        layers += [_Residual(4 * width) for _ in range(blocks)]
        for number in (4 * width, 2 * width):
            layers += [
                nn.ConvTranspose2d(number, number // 2, 4, stride=2, padding=1, bias=False),
                nn.InstanceNorm2d(number // 2),
                nn.ReLU(),
            ]
        last = nn.Conv2d(width, channels, 7, padding=3, padding_mode="replicate")
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.body = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        change = self.body(_continued(x, 4, 8))[:, :, :height, :width].float().tanh()
        v = x.float() * self.std + self.mean
        return ((v + change).clamp(0, 1) - self.mean) / self.std


class SpatialNorm(nn.Module):
    """Instance normalisation, then a scale and a shift at each position, which a 3x3 convolution makes of the label map.

    Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, CVPR 2019, eq. 1 (there: BatchNorm and two
    convolutions). Maps ``(N, C, h, w)`` and the shares of each class in each position ``(N, K, h, w)``.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.style = nn.Conv2d(classes, 2 * channels, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        scale, shift = self.style(shares).chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class LabelGenerator(_Drawing):
    """Images ``(N, C, H, W)`` of label maps ``y (N, H, W)``, as the network that shall see them takes them.

    Noise z for each cell of 8 x 8 pixels -> 1x1 convolution, doubled three times by 4x4 transposed convolutions of stride 2,
    each after a :class:`SpatialNorm` and ReLU; SpatialNorm, ReLU, 3x3 convolution; v = (1 + tanh) / 2 in [0, 1];
    (v - mean) / std. A pixel of label -1 is of no class. A map whose sides are no multiples of 8, or below 16, is continued
    at the right and bottom, and what stands over is cut off.

    Args:
        width: channels at full size, twice as many at each coarser one.
        latent: numbers in the noise of a cell.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int = 64,
        latent: int = 64,
        normalisation: Normalisation | None = None,
    ) -> None:
        super().__init__(channels, normalisation)
        widths = [8 * width, 4 * width, 2 * width, width]
        self.classes, self.latent = classes, latent
        self.first = nn.Conv2d(latent, widths[0], 1)
        self.norms = nn.ModuleList(SpatialNorm(number, classes) for number in widths)
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
            for inputs, outputs in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1, padding_mode="replicate")

    def forward(self, y: Tensor, z: Tensor | None = None) -> Tensor:
        """``z (N, latent, h, w)``, h and w the rounded-up eighths, is drawn by torch's global generator if not given."""
        height, width = y.shape[1:]
        shares = (y[:, None] == torch.arange(self.classes, device=y.device).view(-1, 1, 1)).float()
        shares = _continued(shares, 8, 16)
        rows, columns = (side // 8 for side in shares.shape[2:])
        x = self.first(torch.randn(len(y), self.latent, rows, columns, device=y.device) if z is None else z)
        for level, norm in enumerate(self.norms):
            if level:
                x = self.rise[level - 1](x)
            x = F.relu(norm(x, F.avg_pool2d(shares, 8 >> level)))
        v = (1 + self.last(x)[:, :, :height, :width].float().tanh()) / 2
        return (v - self.mean) / self.std


class _ImagePatches(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_continued(x, 1, 24))  # smaller images would leave no position


def image_patch_critic(channels: int, width: int = 64) -> nn.Sequential:
    """One logit for each patch of 70 x 70 pixels, real or made: ``(N, C, H, W) -> (N, 1, H // 8 - 2, W // 8 - 2)``.

    Five 4x4 convolutions with width, 2, 4, 8 * width and 1 channels, the first three of stride 2, with LeakyReLU of slope 0.2
    between them (Isola et al., CVPR 2017, appendix 6.1.2). Every weight matrix is divided by its largest singular value, as in
    :func:`acclimate.networks.critics.image_critic`: the original's normalisation would hide from the critic how bright and
    how rich in contrast an image is. Images below 24 pixels are continued at the right and bottom.
    """
    widths, strides = [channels, width, 2 * width, 4 * width, 8 * width, 1], [2, 2, 2, 1, 1]
    layers: list[nn.Module] = []
    for (inputs, outputs), stride in zip(itertools.pairwise(widths), strides):
        layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1)), nn.LeakyReLU(0.2)]
    return _ImagePatches(*layers[:-1])


def _continued(x: Tensor, multiple: int, least: int) -> Tensor:
    """``x`` with its last row and column repeated until the sides are multiples of ``multiple`` and at least ``least``."""
    down, right = (max(least, -(-side // multiple) * multiple) - side for side in x.shape[2:])
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
