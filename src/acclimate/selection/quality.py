"""How well a score chooses, where the truth is known: regret and rank correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def regret(gains: Sequence[float], truths: Sequence[float]) -> float:
    """max_i truth_i - truth of the model with the largest gain: what choosing by the score costs against an oracle.

    In units of ``truths``; of equal gains the mean counts. Zero for a score that finds the best.
    """
    g, t = np.asarray(gains, float), np.asarray(truths, float)
    return float(t.max() - t[g == g.max()].mean())


def rank_correlation(gains: Sequence[float], truths: Sequence[float]) -> float | None:
    """Spearman's: Pearson's correlation of the ranks, equal values sharing their mean rank; None where all are equal."""
    from scipy.stats import rankdata

    g, t = rankdata(gains), rankdata(truths)
    if g.std() == 0 or t.std() == 0:
        return None
    return float(np.corrcoef(g, t)[0, 1])
