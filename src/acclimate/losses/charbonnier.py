"""Entropy that presses on undecided predictions more than on sure ones."""

from __future__ import annotations

import math

from torch import Tensor

from acclimate.losses.precision import full


def charbonnier_entropy(logits: Tensor, eta: float = 2.0, epsilon: float = 1e-3) -> Tensor:
    """mean_i (h_i^2 + epsilon^2)^eta with h_i = -sum_k p_ik log p_ik / log K in [0, 1].

    The generalised Charbonnier penalty of the entropy of each prediction: with eta > 0.5 its gradient vanishes towards
    sure predictions, so that undecided ones count more. eta = 0.5 and epsilon = 0 is the mean entropy itself.

    Args:
        logits: ``(N, K, *)``, before softmax.

    Returns a scalar in [epsilon^(2 eta), (1 + epsilon^2)^eta]. Yang & Soatto, CVPR 2020, eq. 5; the division by log K is
    their released code's.
    """
    log_p = full(logits).log_softmax(1)
    h = -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])
    return (h.square() + epsilon**2).pow(eta).mean()
