"""Agreement with the ensemble of all compared models (EnsV)."""

from __future__ import annotations

from torch import Tensor

from acclimate.selection.base import Score


def agreement(zt: Tensor, consensus: Tensor) -> float:
    """mean_i [argmax_k zt_ik = argmax_k q_ik], with q the mean of all compared models' probabilities.

    Args:
        zt: ``(N, K)`` logits of the target.
        consensus: ``(N, K)`` mean probabilities q of the same rows.

    Returns a share in [0, 1], high is better: the model's accuracy if the ensemble were right. Hu et al., NeurIPS 2024
    (EnsV).
    """
    return float((zt.argmax(1) == consensus.argmax(1)).double().mean())


AGREEMENT = Score(
    name="agreement",
    title="Agreement with the ensemble (EnsV)",
    function=agreement,
    better="high",
    paper="Hu et al., Towards Reliable Model Selection for Unsupervised Domain Adaptation: An Empirical Study and a "
    "Certified Baseline, NeurIPS 2024 Datasets and Benchmarks",
    when="Several models are compared and they err in different ways; it is made to avoid the worst of them, not "
    "to find the best.",
    fails="Where most of the compared models share an error the one without it looks worst, near copies of one model "
    "outvote the others, and of two models alone the surer one wins.",
)
