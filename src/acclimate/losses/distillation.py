"""A student that learns the probabilities of a teacher, pixel by pixel."""

from __future__ import annotations

from torch import Tensor

from acclimate.losses.precision import full


def distillation(teacher: Tensor, student: Tensor, counts: Tensor) -> Tensor:
    """Mean over the n pixels that count of KL(p || q) = sum_k p_k (log p_k - log q_k), p of the teacher, q of the student.

    Args:
        teacher, student: logits ``(N, K, *)``, before softmax; no gradient reaches the teacher.
        counts: ``(N, *)`` booleans; pixels that are False are left out.

    Returns a float32 scalar (float64 for float64 logits); 0, with a zero gradient, where no pixel counts. Hinton et al.,
    2015, at temperature 1. :func:`acclimate.losses.divergence` is the same where every sample counts.
    """
    log_p, log_q = full(teacher).detach().log_softmax(1), full(student).log_softmax(1)
    each = (log_p.exp() * (log_p - log_q)).sum(1)
    return (each * counts).sum() / counts.sum().clamp_min(1)
