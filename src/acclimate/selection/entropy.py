"""Mean conditional entropy: how sure a model is of its predictions, one by one."""

from __future__ import annotations

from torch import Tensor

from acclimate.losses.entropy import entropy as conditional_entropy
from acclimate.selection.base import Score


def entropy(zt: Tensor) -> float:
    """mean_i H(p_i), with p_i the softmax of row i and H(p) = -sum_k p_k log p_k, in nats.

    Args:
        zt: ``(N, K)`` logits of the target.

    Returns a value in [0, log K], low is better. Chosen so by Morerio et al., ICLR 2018 (Minimal-Entropy Correlation
    Alignment), who tune the weight of their alignment by it.
    """
    return max(0.0, float(conditional_entropy(zt.double())))


ENTROPY = Score(
    name="entropy",
    title="Conditional entropy",
    function=entropy,
    better="low",
    paper="Morerio et al., Minimal-Entropy Correlation Alignment for Unsupervised Deep Domain Adaptation, ICLR 2018",
    when="The compared models are trained alike, none of them is trained to be sure of itself, and none has collapsed.",
    fails="It is best for a model that predicts one class everywhere, and for one that is sure and wrong; methods that "
    "minimise entropy or train on their own pseudo-labels, and logits that are merely larger, win for no reason.",
)
