"""How uncertain predictions are, one by one and all together."""

from __future__ import annotations

from torch import Tensor

from acclimate.losses.precision import full


def entropy(logits: Tensor) -> Tensor:
    """Mean conditional entropy, mean_i H(p_i) with H(p) = -sum_k p_k log p_k, in nats.

    Args:
        logits: ``(N, K, *)``, before softmax.

    Returns a scalar in [0, log K]. Grandvalet & Bengio, NeurIPS 2004, eq. 6.
    """
    log_p = full(logits).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy of the mean prediction, H(mean_i p_i), in nats: log K where all classes are predicted equally often.

    Args:
        logits: ``(N, K, *)``, before softmax.

    entropy - marginal_entropy is minus the mutual information of image and prediction, what SHOT minimises
    (Liang et al., ICML 2020, eq. 3; Krause et al., NeurIPS 2010).
    """
    p = full(logits).softmax(1).movedim(1, -1).flatten(0, -2).mean(0)
    return -(p * p.clamp_min(1e-12).log()).sum()
