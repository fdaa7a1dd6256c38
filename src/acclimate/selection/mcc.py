"""Class confusion: whether a row that speaks for one class also speaks for others."""

from __future__ import annotations

from torch import Tensor

from acclimate.selection.base import Score


def mcc(zt: Tensor, temperature: float = 2.5) -> float:
    """(1 / K) sum_j sum_{k != j} C_jk / sum_l C_jl, with C = P' W P the class correlation.

    P is the ``(N, K)`` softmax of ``zt / temperature``, and W is diagonal with W_ii = N (1 + exp(-H_i)) / sum_l (1 +
    exp(-H_l)), H_i the entropy of row i of P: sure rows weigh up to twice as much.

    The rows of P sum to 1, hence sum_l C_jl = sum_i W_ii P_ij, and what is not on the diagonal of row j is one minus a
    mean of P_ij with weights W_ii P_ij. So it is computed, with row j of C scaled by the largest P_ij: a class that
    nobody predicts, whose P_ij all underflow, counts as in the limit.

    Args:
        zt: ``(N, K)`` logits of the target.
        temperature: What the logits are divided by; 2.5, as in the paper's code.

    Returns a value in [0, 1 - 1 / K], low is better; the upper end where all rows get the same prediction. Jin et al.,
    ECCV 2020.
    """
    log_p = (zt.double() / temperature).log_softmax(1)
    p = log_p.exp()
    sureness = 1 + (p * log_p).sum(1, keepdim=True).exp()
    weights = sureness * (log_p - log_p.amax(0)).exp()
    return float(((weights * (1 - p)).sum(0) / weights.sum(0)).mean())


MCC = Score(
    name="mcc",
    title="Class confusion (MCC)",
    function=mcc,
    better="low",
    paper="Jin et al., Minimum Class Confusion for Versatile Domain Adaptation, ECCV 2020",
    when="Errors come from pairs of classes that the model mixes up; it is worst for a model that gives all images the "
    "same prediction, and does not ask that classes be equally frequent, only that each is predicted now and then.",
    fails="It cannot tell a sure and wrong model from a right one, favours logits that are merely larger and models "
    "trained by minimising class confusion, and counts a class that the target does not have as confused.",
)
