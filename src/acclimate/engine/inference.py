"""Prediction of large images: sliding windows, several scales, and the mirror image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.settings import Settings

WINDOW_PIXELS = 1 << 20  # that pass through the network at a time

Predict = Callable[[Tensor], Tensor]


class Inference(Settings):
    """How a network is asked about an image.

    ``window``: pieces of this size, as large as what the network was trained on, pass through it one after another, and
    their *logits* are averaged where they overlap: where windows agree that is the plain prediction, as sure as before.
    A logit counts by a Hann window, so the border of a piece, where the network does not see what lies beyond, counts
    little, and pieces fade into each other without a seam.

    ``scales`` and ``flip``: *probabilities* of the enlarged or shrunk image and of its mirror image are averaged, because
    logits of different scales differ in size. CBST and CRST test with the scales 0.9, 1 and 1.2.
    """

    window: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None  # height, width of the input
    overlap: float = Field(0.5, ge=0, lt=1)  # share of a window that the next one shares at least; Hann adds up at 1/2
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), min_length=1)  # segmentation
    flip: bool = False  # also the mirror image, left to right


PLAIN = Inference()
"""Each image in one pass."""


def averaged(predict: Predict, x: Tensor, inference: Inference, size: tuple[int, ...] = ()) -> Tensor:
    """Logits of one segmented image ``(1, C, H, W)`` at ``size``, or of classified images ``(N, C, H, W)``.

    Where several predictions are averaged these are the logarithms of the averaged probabilities: softmax gives them
    back. Beside what one prediction takes, their sum ``(K, *size)`` lies on the device, however many there are.
    """
    mirrors = (False, True) if inference.flip else (False,)
    count = len(inference.scales) * len(mirrors)
    total: Tensor | None = None
    for scale in inference.scales:
        scaled = _scaled(x, scale)
        for mirrored in mirrors:
            z = slide(predict, scaled.flip(-1) if mirrored else scaled, inference)
            if z.ndim == 4:
                z = z.flip(-1) if mirrored else z
                z = _brought(z, size)
            if count == 1:
                return z
            p = z.softmax(1)
            total = p if total is None else total.add_(p)
    assert total is not None
    return total.div_(count).clamp_min_(torch.finfo(total.dtype).tiny).log_()


def slide(predict: Predict, x: Tensor, inference: Inference) -> Tensor:
    """Logits ``(1, K, H, W)`` of one image from overlapping windows; those of a plain pass where it fits into one."""
    if inference.window is None:
        return predict(x).float()
    height, width = (min(have, want) for have, want in zip(x.shape[2:], inference.window))
    corners = windows(x.shape[2], x.shape[3], inference.window, inference.overlap)
    if len(corners) == 1:
        return predict(x).float()
    weight = hann(height, device=x.device)[:, None] * hann(width, device=x.device)
    together = max(1, WINDOW_PIXELS // (height * width))
    weights = x.new_zeros(x.shape[2:], dtype=torch.float32)
    total: Tensor | None = None
    for first in range(0, len(corners), together):
        some = corners[first : first + together]
        zs = predict(torch.cat([x[:, :, top : top + height, left : left + width] for top, left in some])).float()
        if total is None:
            total = zs.new_zeros(1, zs.shape[1], *x.shape[2:])
        for z, (top, left) in zip(zs, some):
            total[0, :, top : top + height, left : left + width] += weight * z
            weights[top : top + height, left : left + width] += weight
    assert total is not None
    return total.div_(weights)


def windows(height: int, width: int, window: tuple[int, int], overlap: float) -> list[tuple[int, int]]:
    """The top left corners of windows that cover an image, row by row."""
    return [(top, left) for top in _starts(height, window[0], overlap) for left in _starts(width, window[1], overlap)]


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Evenly spaced, the first at the beginning, the last at the end, sharing ``overlap`` of a window or more."""
    if window >= length:
        return [0]
    stride = max(1, math.floor(window * (1 - overlap) + 1e-9))
    steps = math.ceil((length - window) / stride)
    return [i * (length - window) // steps for i in range(steps + 1)]


def hann(length: int, device: torch.device | str = "cpu") -> Tensor:
    """sin^2(pi (i + 1/2) / n): positive everywhere, so a pixel that only one window sees keeps its value."""
    return torch.sin(math.pi * (torch.arange(length, device=device) + 0.5) / length).square()


def _scaled(x: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return x
    size = [max(1, round(side * scale)) for side in x.shape[2:]]
    return functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def _brought(z: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(z.shape[2:]) == size:
        return z
    return functional.interpolate(z, size, mode="bilinear", align_corners=False)
