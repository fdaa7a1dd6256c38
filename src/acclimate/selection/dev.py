"""Deep Embedded Validation: importance-weighted validation, less the variance that its weights explain."""

from __future__ import annotations

from torch import Tensor

from acclimate.selection.base import Score
from acclimate.selection.density_ratio import weighted_losses

CONSTANT = 1e-9
"""Relative deviation up to which weights are equal but for rounding."""


def dev(zs: Tensor, fs: Tensor, ys: Tensor, fs_train: Tensor, ft: Tensor) -> float:
    """R_DEV = mean(w l) + eta mean(w) - eta, eta = -Cov(w l, w) / Var(w), l = -log softmax(z)_y; lower is better.

    E w = 1 holds for true weights, so eta (mean(w) - 1) has mean 0 and only cancels variance (a control variate): that
    of w l is multiplied by 1 - Corr(w l, w)^2. Any real number can come out, also a negative one. Where all weights are
    equal eta is 0.

    Args:
        zs: ``(M, K)`` logits of source rows that training has not seen.
        fs: ``(M, D)`` their features.
        ys: ``(M,)`` their labels; -1 does not count.
        fs_train: ``(L, D)`` features of source rows that were trained on. ft: ``(N, D)`` features of the target.

    You et al., ICML 2019, and their released code (``dev.py``, which names the error, 0 or 1, as the usual loss; the
    cross-entropy here also tells sure from unsure models). For w see
    :func:`acclimate.selection.density_ratio.density_ratio`. Raises :class:`UsageError` if no label counts.
    """
    weights, losses = weighted_losses(zs, fs, ys, fs_train, ft)
    return control_variate(weights, losses)


def control_variate(weights: Tensor, losses: Tensor) -> float:
    """mean(w l) + eta (mean(w) - 1) of weights ``(m,)`` and losses ``(m,)``."""
    weighted = weights * losses
    off = weights - weights.mean()
    variance = off.square().mean()
    if variance.sqrt() <= CONSTANT * weights.mean():
        return weighted.mean().item()
    eta = -((weighted - weighted.mean()) * off).mean() / variance
    return (weighted.mean() + eta * (weights.mean() - 1)).item()


DEV = Score(
    name="dev",
    title="Deep Embedded Validation",
    function=dev,
    better="low",
    paper="You et al., Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, ICML 2019",
    when="As importance-weighted validation, with steadier values: the method has brought both domains together in "
    "its features, and some hundred labelled source images were kept from training.",
    fails="Features in which the domains stay apart: the weights are then guesses, and the correction may push the "
    "value below 0. Features that lie together with classes exchanged look perfect to it.",
)
