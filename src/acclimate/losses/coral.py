"""Correlation alignment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from acclimate.losses.mmd import rows


def coral(fs: Tensor, ft: Tensor) -> Tensor:
    """||C_s - C_t||_F^2 / (4 d^2) with the covariances C = (f - mean f)^T (f - mean f) / (n - 1).

    Args:
        fs: ``(N, *)`` activations of the source. ft: ``(M, *)`` of the target; each sample is flattened to d values.

    Blind to means. For d > N + M it is computed from inner products of samples, without a matrix of d x d:
    ||A^T A - B^T B||^2 = ||A A^T||^2 + ||B B^T||^2 - 2 ||A B^T||^2. Sun & Saenko, ECCV workshops 2016, eq. 1-3.
    """
    fs, ft = rows(fs, ft)
    with torch.autocast(fs.device.type, enabled=False):
        s, t = ((f - f.mean(0)) / math.sqrt(len(f) - 1) for f in (fs, ft))
        if fs.shape[1] > len(fs) + len(ft):
            distance = _square(s @ s.T) + _square(t @ t.T) - 2 * _square(s @ t.T)
        else:
            distance = _square(s.T @ s - t.T @ t)
        return distance / (4 * fs.shape[1] ** 2)


def _square(matrix: Tensor) -> Tensor:
    return matrix.square().sum()
