"""The classical U-Net, with a bottleneck that can be read before its ReLU."""

from __future__ import annotations

import itertools
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks.card import network
from acclimate.networks.contract import Network

_NORMS = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": None}
Padding = Literal["replicate", "reflect", "zeros"]
_UPS = ("bilinear", "transposed")
_PADDINGS = get_args(Padding)


class UNet(nn.Module):
    """Logits ``(N, K, H, W)`` of images ``(N, C, H, W)``.

    Sub-modules: ``down`` (one per level), ``bottleneck`` (ends with its last normalisation; the ReLU follows outside),
    ``rise`` and ``up`` (one per level, deepest first), ``head`` (1x1).
    """

    def __init__(
        self, classes: int, channels: int, width: int, depth: int, norm: str, up: str, padding_mode: Padding
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            layers: list[nn.Module] = []
            for number in (inputs, outputs):
                # A bias before a normalisation would be subtracted at once.
                layers.append(nn.Conv2d(number, outputs, 3, padding=1, padding_mode=padding_mode, bias=norm == "none"))
                if (kind := _NORMS[norm]) is not None:
                    layers.append(kind(outputs, affine=True))
                layers.append(nn.ReLU())
            return layers

        def rise(inputs: int, outputs: int) -> nn.Module:
            if up == "transposed":
                return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
            return nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(inputs, outputs, 1)
            )

        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(
            nn.Sequential(*block(inputs, outputs)) for inputs, outputs in zip([channels, *widths], widths[:-1])
        )
        self.bottleneck = nn.Sequential(*block(*pairs[-1])[:-1])
        self.rise = nn.ModuleList(rise(deep, shallow) for shallow, deep in reversed(pairs))
        self.up = nn.ModuleList(nn.Sequential(*block(2 * shallow, shallow)) for shallow, _ in reversed(pairs))
        self.head = nn.Conv2d(width, classes, 1)
        self.multiple = 2**depth

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        down, right = -height % self.multiple, -width % self.multiple
        if down >= height or right >= width:
            raise UsageError(
                f"images of {height} x {width} pixels are too small for this U-Net; "
                f"give at least {self.multiple} x {self.multiple}, or a smaller depth"
            )
        if down or right:
            x = F.pad(x, (0, right, 0, down), mode="reflect")
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = F.relu(self.bottleneck(x))
        for rise, up, skip in zip(self.rise, self.up, reversed(skips)):
            x = up(torch.cat([skip, rise(x)], dim=1))
        return self.head(x)[:, :, :height, :width]


@network("segmentation", 64)
def unet(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (64, 64),
    *,
    width: int = 16,
    depth: int = 4,
    norm: Literal["batch", "instance", "none"] = "batch",
    up: Literal["bilinear", "transposed"] = "bilinear",
    padding_mode: Padding = "replicate",
) -> Network:
    """Classical U-Net: two 3x3 convolutions per level, skip connections; 1.8 M weights at width 16.

    Levels have width, 2 * width, ..., 2**depth * width channels: width 64 gives the original's bottleneck of 1,024.
    Methods align at the tap ``bottleneck``, the last normalisation *before* its ReLU: after it, distributions have a
    spike at zero that breaks Gaussian distances. Images whose side is not a multiple of 2**depth are padded by
    reflection and the logits cropped. Borders are replicated, because zeros break the exact invariance of re-estimated
    BatchNorm to brightness and contrast (and CUDA has a deterministic gradient for replication, none for reflection).
    Raises :class:`UsageError` if images are too small. Ronneberger et al., MICCAI 2015, figure 1 (there: unpadded).
    """
    for setting, value, known in (("norm", norm, _NORMS), ("up", up, _UPS), ("padding_mode", padding_mode, _PADDINGS)):
        if value not in known:
            raise UsageError(f"{setting} is one of {', '.join(known)}, not {value!r}")
    if width < 1 or depth < 1:
        raise UsageError(f"a U-Net has width and depth of at least 1, not {width} and {depth}")
    module = UNet(classes, channels, width, depth, norm, up, padding_mode)
    return Network(module, "head", input_shape=(channels, *size), taps=("bottleneck",), align="bottleneck")
