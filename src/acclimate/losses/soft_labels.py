"""Labels softened by their entropy, and two regularisers of predictions."""

from __future__ import annotations

from torch import Tensor

from acclimate.losses.precision import full


def entropy_soft_labels(log_ratios: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """LRENT: the labels y that minimise sum_k -y_k log(p_k / t_k) + alpha sum_k y_k log y_k, and which are kept.

    They are y_k proportional to (p_k / t_k)^(1 / alpha). With them the sum is -alpha log Z, Z = sum_k (p_k / t_k)^(1 / alpha);
    they are kept where that does not exceed 0, the cost of no label. Zou et al., ICCV 2019.

    Args:
        log_ratios: ``(N, K, *)``, log(p / t) of probabilities p and a threshold t for each class.

    Returns y ``(N, K, *)`` and booleans ``(N, *)``.
    """
    odds = full(log_ratios) / alpha
    return odds.softmax(1), odds.logsumexp(1) >= 0


def soft_cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Mean over the pixels that count of -sum_k y_k log softmax(logits)_k.

    Args:
        logits: ``(N, K, *)``, before softmax, and labels of the same shape; no gradient reaches the labels.
        counts: ``(N, *)`` booleans.

    Returns a float32 scalar (float64 for float64 logits); 0, with a zero gradient, where no pixel counts.
    """
    each = -(labels.detach() * full(logits).log_softmax(1)).sum(1)
    return (each * counts).sum() / counts.sum().clamp_min(1)


def negative_entropy(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean over the pixels that count of sum_k p_k log p_k: MRENT of Zou et al., ICCV 2019."""
    log_p = full(logits).log_softmax(1)
    return ((log_p.exp() * log_p).sum(1) * counts).sum() / counts.sum().clamp_min(1)


def squared_norm(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean over the pixels that count of sum_k p_k^2: MRL2 of Zou et al., ICCV 2019."""
    return (full(logits).softmax(1).square().sum(1) * counts).sum() / counts.sum().clamp_min(1)
