"""A square of each image made blank."""

from __future__ import annotations

import torch
from torch import Tensor


def cutout(x: Tensor, side: float, draws: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` with one rectangle of zeros in each image, and the pixels ``(N, H, W)`` that are still to be seen.

    Args:
        x: ``(N, C, H, W)`` images, normalised: zero is the mean colour.
        side: of the rectangle, as a share in [0, 1] of the image's height and width.
        draws: ``(N, 2)`` uniform in [0, 1): where it lies, down and across, always inside of the image.

    DeVries & Taylor, 2017.
    """
    within = []
    for length, draw in zip(x.shape[2:], draws.unbind(1)):
        cut = round(side * length)
        first = (draw * (length - cut + 1)).floor()[:, None]
        place = torch.arange(length, device=x.device)
        within.append((place >= first) & (place < first + cut))
    seen = ~(within[0][:, :, None] & within[1][:, None, :])
    return x * seen[:, None], seen
