"""Mutual information of image and prediction: sure one by one, and varied all together."""

from __future__ import annotations

from torch import Tensor

from acclimate.losses.entropy import entropy, marginal_entropy
from acclimate.selection.base import Score


def information_maximisation(zt: Tensor) -> float:
    """H(mean_i p_i) - mean_i H(p_i), with p_i the softmax of row i and H(p) = -sum_k p_k log p_k, in nats.

    Args:
        zt: ``(N, K)`` logits of the target.

    Returns a value in [0, log K], high is better: 0 where all rows get the same prediction, log K where all are sure
    and all classes are predicted equally often. Krause et al., NeurIPS 2010; for adaptation Shi & Sha, ICML 2012;
    compared with other scores by Musgrave et al., 2022 (arXiv 2208.07360).
    """
    zt = zt.double()
    return max(0.0, float(marginal_entropy(zt) - entropy(zt)))


INFORMATION_MAXIMISATION = Score(
    name="information-maximisation",
    title="Information maximisation",
    function=information_maximisation,
    better="high",
    paper="Musgrave et al., Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain "
    "Adaptation, arXiv 2208.07360, 2022; Shi & Sha, ICML 2012",
    when="The classes are about equally frequent in the target; unlike entropy, it gives nothing to a model that "
    "predicts one class everywhere.",
    fails="It rewards equally frequent predictions, so it misleads where classes are rare (most segmentation), and it "
    "cannot tell a sure, balanced and wrong model from a right one.",
)
