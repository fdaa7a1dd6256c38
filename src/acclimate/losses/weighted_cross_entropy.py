"""Cross-entropy in which labels count by how far they are trusted."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from acclimate.losses.cross_entropy import IGNORE
from acclimate.losses.precision import full


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """-1/n sum_i w_i log softmax(logits_i)[labels_i], over the n labels that are not -1.

    The sum is divided by n, not by the sum of the weights: w = q everywhere gives q times the plain cross-entropy.

    Args:
        logits: ``(N, K, *)``, before softmax.
        labels: ``(N, *)`` integers in -1..K-1; -1 is ignored.
        weights: ``(N, *)``, one for each label; no gradient reaches them.

    Returns a float32 scalar (float64 for float64 logits); 0, with a zero gradient, where every label is ignored.
    """
    if not logits.movedim(1, -1).shape[:-1] == labels.shape == weights.shape:
        raise ValueError(
            f"give one label and one weight to each position of {tuple(logits.shape)}, not {tuple(labels.shape)} labels and "
            f"{tuple(weights.shape)} weights"
        )
    rows = full(logits).movedim(1, -1).flatten(0, -2)  # a matrix: the 2-D kernel is deterministic on CUDA too
    labels = labels.flatten()
    each = functional.cross_entropy(rows, labels, ignore_index=IGNORE, reduction="none")
    return (each * weights.detach().flatten()).sum() / (labels != IGNORE).sum().clamp_min(1)
