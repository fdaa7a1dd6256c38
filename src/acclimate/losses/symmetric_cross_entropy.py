"""Cross-entropy in both directions, for labels that may be wrong."""

from __future__ import annotations

import math

from torch import Tensor

from acclimate.losses.cross_entropy import IGNORE, cross_entropy
from acclimate.losses.precision import full

P_MIN, Y_MIN = 1e-7, 1e-4  # of a probability and of a label inside a logarithm or a sum


def symmetric_cross_entropy(logits: Tensor, labels: Tensor, alpha: float = 0.1, beta: float = 1.0) -> Tensor:
    """alpha CE(p, y) + beta CE(y, p): mean over the n labels that count of alpha -log p_y + beta -sum_k p_k log y_k.

    p = softmax(logits); in the second part y is one-hot with 1e-4 for each 0, and p is 1e-7 at least, so that it is
    -log 1e-4 sum_{k != y} p_k: 9.21 times the probability that the label is wrong, a loss of bounded gradient.

    Args:
        logits: ``(N, K, *)``, before softmax.
        labels: ``(N, *)`` integers in -1..K-1; -1 is ignored.

    Returns a float32 scalar (float64 for float64 logits); 0, with a zero gradient, where every label is ignored.
    Wang et al., ICCV 2019, with the values of Zhang et al., CVPR 2021.
    """
    counts = labels != IGNORE
    p = full(logits).softmax(1).clamp_min(P_MIN)
    wrong = p.sum(1) - p.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1)
    reverse = -math.log(Y_MIN) * (wrong * counts).sum() / counts.sum().clamp_min(1)
    return alpha * cross_entropy(logits, labels) + beta * reverse
