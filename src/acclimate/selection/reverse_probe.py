"""Reverse probe: does what the model says of the target lead back to the source's labels?"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from acclimate.distances.pair import pair
from acclimate.errors import UsageError
from acclimate.selection.base import Score

STRENGTH = 0.1
"""C of scikit-learn, the inverse of the L2 penalty's weight."""


def reverse_probe(zt: Tensor, ft: Tensor, fs: Tensor, ys: Tensor) -> float:
    """How well a linear classifier of the model's labels of the target does on the source, in [0, 1]; higher is better.

    h = logistic regression on (f_t, argmax z_t); score = 1/|Y| sum_{k in Y} P(h(f_s) = k | y_s = k), Y the classes of
    ``ys``.

    Args:
        zt: ``(N, K)`` logits of the target. ft: ``(N, D)`` its features.
        fs: ``(M, D)`` features of source rows that training has not seen. ys: ``(M,)`` their labels; -1 does not count.

    Reverse validation (Zhong et al., ECML PKDD 2010; Ganin et al., JMLR 2016, section 5.1.2) inside the model's own
    features: there the whole method is trained again from the target back to the source
    (:func:`acclimate.selection.reverse.reverse_validation`), here only a linear classifier. And there plain accuracy is
    taken; the mean over classes is a deviation, because the background of most segmentations is more than nine tenths
    of them. For the same reason each predicted class has the same total weight in the fit. Features are standardised by
    the target's mean and deviation. A model that predicts one class only is worth what that constant is: 1/|Y|, or 0 if
    ``ys`` lacks it.

    Raises :class:`UsageError` if no label counts, and for features that are not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = ys.cpu() >= 0
    if not counts.any():
        raise UsageError("every label of the held-out source images is 'ignore'; give images with labels that count")
    fs, ft = pair(fs.cpu(), ft.cpu())
    truth, values = ys.cpu()[counts].numpy(), fs[counts].numpy()
    predicted = zt.argmax(1).cpu().numpy()
    if len(np.unique(predicted)) < 2:
        found = np.full_like(truth, predicted[0])
    else:
        probe = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000, tol=1e-3)
        found = make_pipeline(StandardScaler(), probe).fit(ft.numpy(), predicted).predict(values)
    return float(np.mean([(found[truth == k] == k).mean() for k in np.unique(truth)]))


REVERSE_PROBE = Score(
    name="reverse-probe",
    title="Reverse probe",
    function=reverse_probe,
    better="high",
    paper="after Zhong et al., Cross Validation Framework to Choose amongst Models and Datasets for Transfer "
    "Learning, ECML PKDD 2010; Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016",
    when="Models that predict nonsense on the target, or only some of the classes, are to be sorted out: wrong "
    "labels of the target rarely lead back to right ones of the source.",
    fails="Features that exchange two classes on the target as a whole lead back faultlessly. Networks whose "
    "features need a shift between domains to be read (their own BatchNorm statistics are accounted for) are "
    "judged too low.",
)
