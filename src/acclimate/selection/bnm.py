"""Nuclear norm of the predictions: sure and varied at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from acclimate.selection.base import Score


def bnm(zt: Tensor) -> float:
    """||P||_* / sqrt(N min(N, K)), with P the ``(N, K)`` softmax outputs and ||.||_* the sum of singular values.

    Args:
        zt: ``(N, K)`` logits of the target.

    Returns a value in (0, 1], high is better: ||P||_* <= sqrt(rank P) ||P||_F, and no row of P is longer than 1. It is
    1 where rows are sure and all classes are predicted equally often. Cui et al., CVPR 2020 (there the norm of a batch,
    divided by N, is what training maximises); as a score Musgrave et al., 2022 (arXiv 2208.07360).
    """
    rows, classes = zt.shape
    norm = torch.linalg.svdvals(zt.double().softmax(1)).sum()
    return min(1.0, float(norm) / math.sqrt(rows * min(rows, classes)))


BNM = Score(
    name="bnm",
    title="Nuclear norm of the predictions (BNM)",
    function=bnm,
    better="high",
    paper="Cui et al., Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label "
    "Insufficient Situations, CVPR 2020; as a score Musgrave et al., arXiv 2208.07360, 2022",
    when="The classes are about equally frequent in the target; it asks for sure predictions of all classes at once.",
    fails="It rewards equally frequent predictions, so it misleads where classes are rare (most segmentation), and it "
    "cannot tell a sure, balanced and wrong model from a right one.",
)
