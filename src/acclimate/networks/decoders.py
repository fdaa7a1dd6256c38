"""Decoders: networks that turn features back into images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError


class Decoder(nn.Module):
    """Images ``(N, C, H, W)`` of a feature map ``(N, D, h, w)`` alone, without skip connections.

    One block for each doubling from h to H: bilinear up-sampling, then twice 3x3 convolution, BatchNorm, ReLU; widths
    D/2, D/4, ... but not below 8. A 1x1 convolution without activation makes the channels. What is larger than the image
    because strided networks round up (or pad) is cropped at the right and bottom; any other size is met bilinearly.

    Args:
        shape: ``(D, h, w)`` of the features for images of ``image``.
        image: ``(C, H, W)``; other sizes of the same ratio may follow.

    Raises :class:`UsageError` for features that are not maps.
    """

    def __init__(self, shape: Sequence[int], image: Sequence[int]) -> None:
        super().__init__()
        if len(shape) != 3:
            raise UsageError(f"a decoder reads maps (D, h, w), not {tuple(shape)}; align at another layer")
        ratio = max(image[1] / shape[1], image[2] / shape[2], 1)
        layers: list[nn.Module] = []
        width = shape[0]
        for _ in range(math.ceil(math.log2(ratio))):
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            inputs, width = width, max(8, width // 2)
            for number in (inputs, width):
                layers += [
                    nn.Conv2d(number, width, 3, padding=1, padding_mode="replicate", bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, image[0], 1)
        self.scale = 2 ** math.ceil(math.log2(ratio))

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """The image ``(N, C, *size)`` that the features describe."""
        height, width = size
        x = self.head(self.body(features))
        if all(-(-wanted // self.scale) == found for wanted, found in zip(size, features.shape[2:])):
            return x[:, :, :height, :width]
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
