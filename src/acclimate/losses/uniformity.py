"""Predictions kept away from certainty."""

from __future__ import annotations

from torch import Tensor

from acclimate.losses.precision import full


def uniformity(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean over the n pixels that count of -1/K sum_k log p_k = KL(u || p) + log K, u being uniform, p = softmax(logits).

    Args:
        logits: ``(N, K, *)``, before softmax.
        counts: ``(N, *)`` booleans; pixels that are False are left out.

    Returns a float32 scalar (float64 for float64 logits), log K at least; 0, with a zero gradient, where no pixel counts.
    The model regulariser MRKLD of Zou et al., ICCV 2019, and l_reg of Zhang et al., CVPR 2021, which
    sum over the K classes where this is their mean: K times smaller here.
    """
    each = -full(logits).log_softmax(1).mean(1)
    return (each * counts).sum() / counts.sum().clamp_min(1)
