"""Vectors drawn to those that a memory holds of their class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from acclimate.losses.precision import full


def memory_contrast(vectors: Tensor, scores: Tensor, memory: Tensor, memory_scores: Tensor) -> Tensor:
    """1/K sum_c 1/(N_p N_z) sum_i sum_j w_p(i) w_z(j) (1 - cos(p_i, z_j)), p_i and z_j being those of class c.

    w_p(i) = N_p S(p_i) / sum_k S(p_k) is the share that p_i has in the attention of its class, w_z likewise. There are no
    negatives. Since both weights have the mean 1, the double sum is 1 - u . v, where u is the attention-weighted mean of
    the p_i at length 1, and v that of the z_j. Alonso et al., ICCV 2021, the three formulas of section 3.3.

    Args:
        vectors: ``(K, n, C)``, n places for each of the K classes.
        scores: ``(K, n)`` attention S > 0, and 0 where a place holds no vector.
        memory: ``(K, m, C)``; no gradient reaches it.
        memory_scores: ``(K, m)`` like ``scores``.

    Returns a float32 scalar (float64 for float64 vectors) in [0, 2]. A class without a vector on either side adds 0, with a
    zero gradient.
    """
    u, present = _mean_direction(vectors, scores)
    v, known = _mean_direction(memory.detach(), memory_scores)
    return ((1 - (u * v).sum(1)) * (present & known)).mean()


def _mean_direction(vectors: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean ``(K, C)`` of vectors at length 1, and whether a class has any weight ``(K,)``."""
    scores = full(scores)
    whole = scores.sum(1)
    present = whole > 0
    weights = scores / whole.where(present, whole.new_ones(()))[:, None]
    return (functional.normalize(full(vectors), dim=2) * weights[..., None]).sum(1), present
