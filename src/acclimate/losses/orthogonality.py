"""How much two layers read the same features."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.losses.precision import full


def weight_overlap(w1: Tensor, w2: Tensor) -> Tensor:
    """mean_j sum_i |(W1^T W2)_ij| over pairs of input features i, j = 1..D; (W1^T W2)_ij = sum_h w1_hi w2_hj.

    Args:
        w1, w2: weights ``(H, D)`` of the first layers of two classifiers of the same features; of convolutions
            ``(H, C, h, w)``, where every place of the kernel counts as a feature.

    Raises :class:`UsageError` for shapes that differ. The |W1^T W2| of Saito et al., Asymmetric tri-training, ICML 2017,
    eq. 1, in the reduction of the released code.
    """
    if w1.shape != w2.shape:
        raise UsageError(f"give two weights of the same shape, not {tuple(w1.shape)} and {tuple(w2.shape)}")
    w1, w2 = full(w1).flatten(1), full(w2).flatten(1)
    with torch.autocast(w1.device.type, enabled=False):
        return (w1.T @ w2).abs().sum(0).mean()
