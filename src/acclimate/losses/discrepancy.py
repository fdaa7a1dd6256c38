"""How much two classifiers disagree."""

from __future__ import annotations

from torch import Tensor

from acclimate.errors import UsageError
from acclimate.losses.precision import full


def classifier_discrepancy(zs1: Tensor, zs2: Tensor) -> Tensor:
    """mean_i mean_k |softmax(z1_i)_k - softmax(z2_i)_k|, in [0, 2 / K].

    Args:
        zs1, zs2: logits ``(N, K, *)`` of two classifiers for the same samples.

    The mean is over classes too, as in the released code: the same disagreement counts less the more classes there are.
    Raises :class:`UsageError` for shapes that differ. Saito et al., CVPR 2018, section 3.
    """
    if zs1.shape != zs2.shape:
        raise UsageError(f"give two logits of the same shape, not {tuple(zs1.shape)} and {tuple(zs2.shape)}")
    return (full(zs1).softmax(1) - full(zs2).softmax(1)).abs().mean()
