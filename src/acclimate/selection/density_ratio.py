"""How much likelier each source row is in the target than in the source: the weights of IWV and DEV."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from acclimate.distances.pair import pair
from acclimate.errors import UsageError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of scikit-learn, the inverse of the L2 penalty's weight."""
BLOCKS, EVERY = 25, 5  # of each domain's rows; each fifth block is held out to choose the penalty
LARGEST_LOG = 50.0


def density_ratio(fs: Tensor, fs_train: Tensor, ft: Tensor) -> Tensor:
    """w(f) = p_t(f) / p_s(f) = (n_s / n_t) P(target | f) / P(source | f), ``(M,)`` float64, positive.

    P is a logistic regression on standardised features, fitted to all rows of ``fs_train (n_s, D)`` against all rows of
    ``ft (n_t, D)``; the first factor undoes their numbers. It is applied to ``fs (M, D)``, on which it was not fitted.
    You et al., ICML 2019, whose released code (``dev.py``) fits an MLP with three hidden layers instead and takes, of
    nine L2 penalties, the one with the highest accuracy on a fifth of the rows. Here it is of five penalties the one
    with the lowest log loss, which, unlike accuracy, asks for right probabilities. Blocks of neighbouring rows are
    held out, so that pixels of one image are rarely on both sides; the images come in a drawn order. The chosen one is
    fitted again to all rows.

    Nothing is clipped or normalised: the penalty alone keeps weights tame, and where the domains can be told apart they
    are not. Only ln w is kept within ±50, so that all sums stay finite.

    Raises :class:`UsageError` for features that are not finite, differ in number, or have fewer than 5 rows a domain.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.preprocessing import StandardScaler

    fs_train, ft = pair(fs_train.cpu(), ft.cpu())
    if min(len(fs_train), len(ft)) < EVERY:
        raise UsageError(f"weights need at least {EVERY} rows of each domain; give more images")
    if fs.ndim != 2 or fs.shape[1] != ft.shape[1] or not fs.isfinite().all():
        raise UsageError(f"the source's features must be finite and ({len(fs)}, {ft.shape[1]}), not {tuple(fs.shape)}")
    values = torch.cat([fs_train, ft]).numpy()
    is_target = np.repeat([0, 1], [len(fs_train), len(ft)])
    held_out = np.concatenate([_held_out(len(fs_train)), _held_out(len(ft))])
    scaler = StandardScaler().fit(values)
    values = scaler.transform(values)

    def fit(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=1000, tol=1e-3).fit(values[rows], is_target[rows])

    losses = {
        strength: log_loss(is_target[held_out], fit(strength, ~held_out).predict_proba(values[held_out])[:, 1])
        for strength in STRENGTHS
    }
    best = fit(min(losses, key=lambda strength: losses[strength]), np.ones_like(held_out))
    log_odds = best.decision_function(scaler.transform(fs.detach().cpu().double().numpy()))
    log_ratio = log_odds + np.log(len(fs_train) / len(ft))
    return torch.from_numpy(np.exp(np.clip(log_ratio, -LARGEST_LOG, LARGEST_LOG)))


def losses_of(zs: Tensor, ys: Tensor) -> Tensor:
    """-log softmax(z)_y of the rows whose label counts, ``(m,)`` float64.

    Raises :class:`UsageError` if no label counts.
    """
    counts = ys >= 0
    if not counts.any():
        raise UsageError("every label of the held-out source images is 'ignore'; give images with labels that count")
    return functional.cross_entropy(zs[counts].double(), ys[counts], reduction="none")


def weighted_losses(zs: Tensor, fs: Tensor, ys: Tensor, fs_train: Tensor, ft: Tensor) -> tuple[Tensor, Tensor]:
    """Weights w and losses l of the held-out source rows whose label counts, ``(m,)`` each."""
    losses = losses_of(zs, ys)
    return density_ratio(fs[ys >= 0], fs_train, ft), losses


def _held_out(count: int) -> np.ndarray:
    """Which rows choose the penalty ``(count,)``: the third of each five neighbouring blocks."""
    blocks = min(BLOCKS, count - count % EVERY)
    return np.arange(count) * blocks // count % EVERY == EVERY // 2
