"""Maximum mean discrepancy as a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.losses.precision import full


def multi_kernel_mmd(fs: Tensor, ft: Tensor, kernels: int = 5) -> Tensor:
    """MMD^2 = mean_ij k(s_i, s_j) + mean_ij k(t_i, t_j) - 2 mean_ij k(s_i, t_j), k(a, b) = sum_u exp(-||a - b||^2 / sigma_u).

    sigma_u = sigma 2^(u - kernels // 2) for u = 0 .. kernels - 1, where sigma is the mean of ||a - b||^2 over all pairs of
    different samples of both sets; no gradient reaches it. Widths that follow the data leave a gradient however far apart
    the sets are.

    Args:
        fs: ``(N, *)`` activations of the source. ft: ``(M, *)`` of the target; each sample is flattened.

    The biased estimator: 0 for identical sets, never negative, in [0, 2 kernels], but larger than 0 in the mean for
    finite samples of equal distributions. :func:`acclimate.distances.kernel.mmd` is the unbiased measure of a whole data
    set, with median width, mean of kernels, in float64 and chunks; this one is for batches and gradients.
    Gretton et al., JMLR 2012, eq. 5; Long et al., ICML 2015.
    """
    fs, ft = rows(fs, ft)
    n = len(fs)
    with torch.autocast(fs.device.type, enabled=False):
        f = torch.cat([fs, ft])
        f = f - f.detach().mean(0)  # ||a||^2 + ||b||^2 - 2ab loses digits far from the origin
        length = f.square().sum(1)
        squared = (length[:, None] + length - 2 * f @ f.T).clamp_min(0)
        sigma = squared.detach().sum() / (len(f) * (len(f) - 1))
        sigma = torch.where(sigma > 0, sigma, 1)  # all samples are one point: any width serves
        k = torch.stack([(-squared / (sigma * 2.0 ** (u - kernels // 2))).exp() for u in range(kernels)]).sum(0)
        return k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()


def rows(fs: Tensor, ft: Tensor) -> tuple[Tensor, Tensor]:
    """Both as matrices ``(N, d)`` and ``(M, d)`` in full precision. Raises :class:`UsageError` where they do not match."""
    if fs.ndim < 2 or fs.shape[1:] != ft.shape[1:] or min(len(fs), len(ft)) < 2:
        raise UsageError(
            f"give at least two samples of each domain, shaped (N, *) alike but for N, not {tuple(fs.shape)} and "
            f"{tuple(ft.shape)}"
        )
    return full(fs).flatten(1), full(ft).flatten(1)
