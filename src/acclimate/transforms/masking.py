"""Hiding square blocks of images, so that what is there must be told from its surroundings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mask_blocks(x: Tensor, block: int | None, ratio: float) -> Tensor:
    """Images ``(N, C, H, W)`` in which each block of about ``block`` x ``block`` pixels (None: a sixteenth of the smaller side)
    is set to 0 with probability ``ratio``.

    There are round(H / block) x round(W / block) blocks, at least one, of sides that differ by a pixel at most. 0 is the
    mean colour of normalised images. Draws from torch's generator of the images' device. Hoyer et al., MIC, CVPR 2023.
    """
    block = block or max(1, min(x.shape[-2:]) // 16)
    rows, columns = (max(1, round(side / block)) for side in x.shape[-2:])
    shown = (torch.rand(len(x), 1, rows, columns, device=x.device) >= ratio).to(x.dtype)
    return x * functional.interpolate(shown, x.shape[-2:], mode="nearest")
