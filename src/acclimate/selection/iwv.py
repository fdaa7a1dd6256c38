"""Importance-weighted validation: losses on the source, counted as often as the target would show such images."""

from __future__ import annotations

from torch import Tensor

from acclimate.selection.base import Score
from acclimate.selection.density_ratio import weighted_losses


def iwv(zs: Tensor, fs: Tensor, ys: Tensor, fs_train: Tensor, ft: Tensor) -> float:
    """R_IWV = 1/M sum_i w(f_i) l_i with l_i = -log softmax(z_i)_{y_i}, from 0 on; lower is better.

    Args:
        zs: ``(M, K)`` logits of source rows that training has not seen.
        fs: ``(M, D)`` their features.
        ys: ``(M,)`` their labels; -1 does not count.
        fs_train: ``(L, D)`` features of source rows that were trained on. ft: ``(N, D)`` features of the target.

    Sugiyama et al., JMLR 2007 (IWCV), with rows that training has not seen in place of folds. As there it is the plain
    mean, which is unbiased for the true w, and is not divided by the sum of weights. Their w is a ratio of densities of
    inputs, here of features, :func:`acclimate.selection.density_ratio.density_ratio`. Raises :class:`UsageError` if no
    label counts.
    """
    weights, losses = weighted_losses(zs, fs, ys, fs_train, ft)
    return (weights * losses).mean().item()


IWV = Score(
    name="iwv",
    title="Importance-weighted validation",
    function=iwv,
    better="low",
    paper="Sugiyama et al., Covariate Shift Adaptation by Importance Weighted Cross Validation, JMLR 2007",
    when="The target holds images of kinds that the source holds too, only in other proportions, and some hundred "
    "labelled source images were kept from training.",
    fails="Where the domains look different in the model's features no source image stands for the target: weights "
    "are all close to 0, and then so is the risk, however bad the model; or a few large weights decide "
    "everything.",
)
