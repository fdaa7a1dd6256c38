"""Fourier domain adaptation of images: the source's phase with the target's low-frequency amplitude."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def half_size(height: int, width: int, beta: float) -> int:
    """b = floor(beta min(H, W)), at least 1 unless ``beta`` is 0: a small crop would else keep its own amplitude."""
    return max(1, math.floor(min(height, width) * beta)) if beta > 0 else 0


def amplitude_swap(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """x = F^-1([M F_A(target) + (1 - M) F_A(source), F_P(source)]), M the frequencies |k_y|, |k_x| <= b.

    F_A is the amplitude and F_P the phase of each channel's Fourier transform, b :func:`half_size`, k cycles per image.
    ``beta`` of 0 returns the source, b of half the side or more takes every amplitude. The mean (k = 0), whose phase is 0 for
    images of values >= 0, is the target's with its sign: so images that a mean and a deviation normalised per channel
    give what those of 0..255 give, normalised. Results may leave the range of the inputs and are not clipped.

    Args:
        source, target: ``(N, C, H, W)`` images of one size; the target may have one row for all.

    Returns ``(N, C, H, W)`` float32. Yang & Soatto, CVPR 2020, eq. 2 and 3.
    """
    height, width = source.shape[2:]
    b = half_size(height, width, beta)
    if b == 0:
        return source.float()
    fs, ft = torch.fft.rfft2(source.float()), torch.fft.rfft2(target.float())
    ky = torch.fft.fftfreq(height, 1 / height, device=source.device).abs().round()
    kx = torch.fft.rfftfreq(width, 1 / width, device=source.device).round()
    low = (ky[:, None] <= b) & (kx <= b)
    mixed = torch.where(low, torch.polar(ft.abs(), fs.angle()), fs)
    mean = (ky[:, None] == 0) & (kx == 0)
    return torch.fft.irfft2(torch.where(mean, ft, mixed), s=(height, width))
