"""How right a model is, estimated without labels of the place where it is asked.

All start from how it behaves on labelled images of its source, and all assume that confidence keeps its meaning. Under a
shift that makes a model confidently wrong (inverted contrast) every one of them is too high.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.tasks import Task

PIXELS = 20_000  # of the source, from which temperatures are fitted


def expected_confusion(logits: Tensor, temperatures: Tensor) -> Tensor:
    """The confusion matrix ``(K, K)`` one would count if probabilities were calibrated.

    E_ij = sum over predictions of class j of p_i, with p = softmax(z / T_j) and one temperature for each predicted
    class. Diagonal, row and column sums are the expected true positives, truth and prediction counts of MOVAL (Li et al.,
    Estimating model performance under domain shifts with class-specific confidence scores, MICCAI 2022, eq. 5-7).

    Args:
        logits: ``(N, K, *)``.
        temperatures: ``(K,)``.
    """
    k = logits.shape[1]
    rows = logits.movedim(1, -1).reshape(-1, k)
    predicted = rows.argmax(1)
    p = (rows / temperatures[predicted][:, None]).softmax(1).double()
    return torch.zeros(k, k, dtype=torch.float64).index_add_(0, predicted, p).T


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
    """What the source's labels say about the model's confidence."""

    temperatures: Tensor  # (K,), by predicted class
    threshold: Tensor  # (K,), by predicted class: the share of lower confidences equals the share of errors
    confidence: float  # mean largest probability, at temperature 1
    score: float  # the task's primary score


def calibrate(task: Task, logits: Tensor, labels: Tensor, seed: int = 0) -> Calibration:
    """From logits ``(N, K, *)`` and labels ``(N, *)`` of held-out source images; labels of -1 do not count."""
    k = logits.shape[1]
    rows, flat = logits.movedim(1, -1).reshape(-1, k), labels.flatten()
    counts = flat >= 0
    rows, flat = rows[counts], flat[counts]
    score = task.scores(task.confusion(rows.argmax(1), flat))[task.primary]
    some = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))[:PIXELS]
    rows, flat = rows[some], flat[some]
    confidence, predicted = rows.softmax(1).max(1)
    wrong = (predicted != flat).double()

    def threshold(mine: Tensor) -> Tensor:
        chosen = mine if int(mine.sum()) >= 20 else torch.ones_like(mine)
        return confidence[chosen].double().quantile(wrong[chosen].mean())

    thresholds = torch.stack([threshold(predicted == c) for c in range(k)])
    return Calibration(class_temperatures(rows, flat), thresholds, confidence.mean().item(), score)


def calibrated_score(task: Task, logits: Tensor, calibration: Calibration) -> float:
    """The task's primary score of the expected confusion matrix (class-wise calibrated confidence, MOVAL)."""
    return task.scores(expected_confusion(logits, calibration.temperatures))[task.primary]


def difference_of_confidence(logits: Tensor, calibration: Calibration) -> float:
    """score_s - (AC_s - AC_t), AC the mean largest probability (Guillory et al., ICCV 2021, eq. 3); clipped to [0, 1]."""
    confidence = logits.softmax(1).max(1).values.double().mean().item()
    return min(1.0, max(0.0, calibration.score - calibration.confidence + confidence))


def thresholded_confidence(task: Task, logits: Tensor, calibration: Calibration) -> float:
    """Average thresholded confidence (Garg et al., ICLR 2022, eq. 1), class by class.

    A prediction counts as right where its confidence exceeds the threshold of its class; the others are taken for the
    second most probable class, which gives a confusion matrix and from it the task's primary score.
    """
    k = logits.shape[1]
    top = logits.movedim(1, -1).reshape(-1, k).softmax(1).topk(2, 1)
    confidence, (predicted, second) = top.values[:, 0], top.indices.unbind(1)
    truth = torch.where(confidence.double() > calibration.threshold[predicted], predicted, second)
    return task.scores(task.confusion(predicted, truth))[task.primary]


def mean_entropy(logits: Tensor) -> float:
    """The mean of -sum_k p_k ln p_k over predictions, divided by ln K: 0 is certain, 1 is uniform."""
    p = functional.log_softmax(logits.double(), 1)
    return (-(p.exp() * p).sum(1).mean() / torch.log(torch.tensor(float(logits.shape[1])))).item()
