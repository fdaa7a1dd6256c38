"""Soft neighbourhood density: whether predictions form dense groups."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.selection.base import Score

BLOCK = 2**21
"""Similarities at a time: 16 MiB in float64, a few of which are alive together."""


def snd(zt: Tensor, temperature: float = 0.05) -> float:
    """mean_i H(P_i), P_ij = exp(s_ij / temperature) / sum_{l != i} exp(s_il / temperature) for j != i.

    s_ij is the cosine of the softmax outputs of rows i and j, H(p) = -sum_j p_j log p_j in nats. A row that has many
    close neighbours spreads its P_i over all of them.

    Args:
        zt: ``(N, K)`` logits of the target.
        temperature: What the cosines are divided by; the paper's 0.05.

    Returns a value in [0, log(N - 1)], high is better; 0 for a single row, which has no neighbour. Values are of use
    between models on the same rows only. Saito et al., ICCV 2021. It takes time N^2 K, and memory N K.
    """
    rows = len(zt)
    if rows < 2:
        return 0.0
    directions = functional.normalize(zt.double().softmax(1), dim=1)
    total = 0.0
    for begin in range(0, rows, size := max(1, BLOCK // rows)):
        block = directions[begin : begin + size]
        cosines = (block @ directions.T).div_(temperature)
        own = torch.arange(len(block))
        cosines[own, begin + own] = -torch.inf
        total += float(torch.special.entr(cosines.softmax(1)).sum())
    return total / rows


SND = Score(
    name="snd",
    title="Soft neighbourhood density (SND)",
    function=snd,
    better="high",
    paper="Saito et al., Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft Neighborhood "
    "Density, ICCV 2021",
    when="All compared models still predict every class about as often as it occurs; then it sees whether similar "
    "images stay together, where entropy sees only how sure each prediction is.",
    fails="It is largest of all for a model that gives every image the same prediction, sure or unsure, so look at the "
    "predicted class frequencies first; with few classes it hardly sees more than them.",
)
