"""Cross-entropy over the labels that count."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from acclimate.losses.precision import full

IGNORE = -1


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, -1/n sum_i log softmax(logits_i)[labels_i], over the n labels that are not -1.

    Args:
        logits: ``(N, K, *)``, before softmax.
        labels: ``(N, *)`` integers in -1..K-1; -1 is ignored.

    Returns a float32 scalar (float64 for float64 logits); 0, with a zero gradient, where every label is ignored
    (PyTorch's own mean would be NaN).
    """
    rows = full(logits).movedim(1, -1).flatten(0, -2)  # a matrix: the 2-D kernel is deterministic on CUDA too
    labels = labels.flatten()
    total = functional.cross_entropy(rows, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp_min(1)
