"""How right a model is, estimated without labels of the place where it is asked.

All start from how it behaves on labelled images of its source, and all assume that confidence keeps its meaning. Under a
shift that makes a model confidently wrong (inverted contrast) every one of them is too high.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.errors import DataError
from acclimate.tasks import Task

PIXELS = 20_000  # of the source, from which temperatures are fitted


def expected_confusion(p: Tensor, predicted: Tensor, present: Tensor) -> Tensor:
    """The confusion matrix ``(K, K)`` that one would count on average if the probabilities were right.

    E_ij = sum over predictions of class j of p_i. Diagonal, row and column sums are the expected true positives, truth and
    prediction counts of MOVAL (Li et al., Estimating model performance under domain shifts with class-specific confidence
    scores, MICCAI 2022).

    Args:
        p: ``(n, K)`` probabilities. predicted: ``(n,)`` classes.
        present: ``(K,)`` which classes the source holds. The others count only where they are predicted: the tails of a
            softmax would otherwise be taken for traces of them.
    """
    k = p.shape[1]
    found = torch.zeros(k, k, dtype=torch.float64).index_add_(0, predicted, p.double()).T
    known = present | (torch.bincount(predicted, minlength=k) > 0)
    return found * known[:, None]


def class_temperatures(logits: Tensor, labels: Tensor) -> Tensor:
    """For each predicted class the temperature ``(K,)`` at which its mean confidence equals its precision.

    Found by bisection on log T; a class that is predicted fewer than 20 times takes the temperature of all.
    ``logits`` ``(n, K)``, ``labels`` ``(n,)`` in 0..K-1.
    """
    predicted = logits.argmax(1)

    def fit(chosen: Tensor) -> Tensor:
        z, right = logits[chosen], (predicted[chosen] == labels[chosen]).double().mean()
        # Confidence lies between 1 / K and 1; outside, the nearest temperature that can be had.
        low, high = torch.tensor(-4.0), torch.tensor(6.0)
        for _ in range(40):
            middle = (low + high) / 2
            confident = (z / middle.exp()).softmax(1).max(1).values.double().mean() > right
            low, high = (middle, high) if confident else (low, middle)
        return ((low + high) / 2).exp()

    of_all = fit(torch.ones_like(predicted, dtype=torch.bool))
    return torch.stack(
        [fit(mine) if int((mine := predicted == k).sum()) >= 20 else of_all for k in range(logits.shape[1])]
    )


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What the source's labels say about the model's confidence; ``(K,)`` by predicted class."""

    temperatures: Tensor  # at which mean confidence equals precision
    excess: Tensor  # mean confidence less precision
    threshold: Tensor  # the share of lower confidences equals the share of errors
    present: Tensor  # classes that the source's labels hold
    score: float  # the task's primary score


def rows_of(logits: Tensor) -> Tensor:
    """``(N, K, *)`` as ``(n, K)``."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1])


def calibrate(task: Task, logits: Tensor, labels: Tensor, seed: int = 0) -> Calibration:
    """From logits ``(N, K, *)`` and labels ``(N, *)`` of held-out source images; labels of -1 do not count.

    A class that is predicted fewer than 20 times takes what holds for all. Raises :class:`DataError` if no label counts.
    """
    k, rows, flat = logits.shape[1], rows_of(logits), labels.flatten()
    rows, flat = rows[flat >= 0], flat[flat >= 0]
    if not len(flat):
        raise DataError("every label of these source images is 'ignore'; give images with labels that count")
    score = task.scores(task.confusion(rows.argmax(1), flat))[task.primary]
    present = torch.bincount(flat, minlength=k) > 0
    some = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))[:PIXELS]
    rows, flat = rows[some], flat[some]
    confidence, predicted = rows.softmax(1).max(1)
    wrong = (predicted != flat).double()
    excess, threshold = [], []
    for c in range(k):
        mine = predicted == c
        mine = mine if int(mine.sum()) >= 20 else torch.ones_like(mine)
        excess.append(confidence[mine].double().mean() - 1 + wrong[mine].mean())
        threshold.append(confidence[mine].double().quantile(wrong[mine].mean()))
    return Calibration(
        class_temperatures(rows, flat), torch.stack(excess), torch.stack(threshold), present, float(score)
    )


def calibrated_score(task: Task, logits: Tensor, calibration: Calibration) -> float:
    """The task's primary score of the expected confusion matrix, p = softmax(z / T_j) where class j is predicted."""
    rows = rows_of(logits)
    predicted = rows.argmax(1)
    p = (rows / calibration.temperatures[predicted][:, None]).softmax(1)
    return task.scores(expected_confusion(p, predicted, calibration.present))[task.primary]


def difference_of_confidence(task: Task, logits: Tensor, calibration: Calibration) -> float:
    """Difference of confidence (Guillory et al., ICCV 2021), class by class as in MOVAL.

    Each confidence is lowered by what it exceeds the precision of its class on the source; what it loses goes to the other
    classes in proportion. The score is that of the expected confusion matrix.
    """
    p = rows_of(logits).softmax(1).double()
    confidence, predicted = p.max(1)
    right = (confidence - calibration.excess[predicted]).clamp(0, 1)
    others = p * ((1 - right) / (1 - confidence).clamp_min(1e-9))[:, None]
    p = others.scatter(1, predicted[:, None], right[:, None])
    return task.scores(expected_confusion(p, predicted, calibration.present))[task.primary]


def thresholded_confidence(task: Task, logits: Tensor, calibration: Calibration) -> float:
    """Average thresholded confidence (Garg et al., ICLR 2022, eq. 1), class by class.

    A prediction counts as right where its confidence reaches the threshold of its class; the others are taken for the
    second most probable class, which gives a confusion matrix and from it the task's primary score.
    """
    top = rows_of(logits).softmax(1).topk(2, 1)
    confidence, (predicted, second) = top.values[:, 0], top.indices.unbind(1)
    truth = torch.where(confidence.double() >= calibration.threshold[predicted], predicted, second)
    p = functional.one_hot(truth, logits.shape[1])
    return task.scores(expected_confusion(p, predicted, calibration.present))[task.primary]


def mean_entropy(logits: Tensor) -> float:
    """The mean of -sum_k p_k ln p_k over predictions, divided by ln K: 0 is certain, 1 is uniform."""
    p = functional.log_softmax(logits.double(), 1)
    return (-(p.exp() * p).sum(1).mean() / torch.log(torch.tensor(float(logits.shape[1])))).item()
