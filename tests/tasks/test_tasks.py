"""Scores of a whole set against plain loops, torchmetrics and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics

from acclimate import tasks
from acclimate.errors import UsageError

NAMES = ("a", "b", "c", "d")


def drawn(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, 4, shape)
    predicted = np.where(rng.random(shape) < 0.5, truth.clip(0), rng.integers(0, 4, shape))
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def naive_iou(predicted: np.ndarray, truth: np.ndarray, k: int) -> float:
    hits = union = 0
    for p, t in zip(predicted.ravel(), truth.ravel()):
        if t >= 0:
            hits += p == k and t == k
            union += p == k or t == k
    return hits / union if union else math.nan


@pytest.mark.parametrize("seed", range(3))
def test_iou_is_that_of_a_plain_loop_and_of_torchmetrics(seed: int) -> None:
    predicted, truth = drawn((4, 9, 8), seed)
    task = tasks.build("segmentation", NAMES)
    scores = task.scores(task.confusion(predicted, truth))
    expected = [naive_iou(predicted.numpy(), truth.numpy(), k) for k in range(4)]
    assert [scores[f"IoU {name}"] for name in NAMES] == pytest.approx(expected)
    oracle = torchmetrics.JaccardIndex("multiclass", num_classes=4, ignore_index=-1, average="macro")
    assert scores["mIoU"] == pytest.approx(oracle(predicted, truth).item(), rel=1e-6)


def test_mean_over_some_classes_is_of_the_ious_of_all() -> None:
    """By hand: IoU 1/2, 1/4, 1/3, and the fourth class occurs nowhere."""
    task = tasks.build("segmentation", NAMES)
    counts = torch.tensor([[2, 1, 0, 0], [0, 1, 1, 0], [1, 1, 2, 0], [0, 0, 0, 0]])
    subsets = {"2": ("a", "c"), "with d": ("c", "d"), "all": NAMES, "foreign": ("a", "x")}
    scores = task.scores(counts, subsets)
    assert [scores[f"IoU {name}"] for name in "abc"] == pytest.approx([1 / 2, 1 / 4, 2 / 5])
    assert scores["mIoU"] == pytest.approx((1 / 2 + 1 / 4 + 2 / 5) / 3)
    assert scores["mIoU 2"] == pytest.approx((1 / 2 + 2 / 5) / 2)
    assert scores["mIoU with d"] == pytest.approx(2 / 5)
    assert [name for name in scores if name.startswith("mIoU")] == ["mIoU", "mIoU 2", "mIoU with d"]
    assert "mIoU 2" not in task.scores(counts)
    recall = tasks.build("classification", NAMES).scores(counts, subsets)
    assert recall["mean class accuracy 2"] == pytest.approx((2 / 3 + 2 / 4) / 2)


def test_score_of_the_set_is_not_the_mean_over_images() -> None:
    """One image is all hit, the other, with a hundred times the foreground, all missed."""
    task = tasks.build("segmentation", ("ground", "cell"))
    truth = torch.zeros(2, 20, 20, dtype=torch.long)
    truth[0, 0, 0] = 1
    truth[1, :10, :10] = 1
    predicted = truth.clone()
    predicted[1] = 0
    parts = [task.scores(task.confusion(p, t)) for p, t in zip(predicted, truth)]
    whole = task.scores(task.confusion(predicted, truth))
    assert np.mean([part["foreground IoU"] for part in parts]) == 0.5
    assert whole["foreground IoU"] == pytest.approx(1 / 101)
    assert whole["foreground Dice"] == pytest.approx(2 / 102)
    assert (task.primary, tasks.build("segmentation", NAMES).primary) == ("foreground IoU", "mIoU")


def test_class_that_never_occurs_is_blank_and_does_not_count() -> None:
    task = tasks.build("segmentation", NAMES)
    scores = task.scores(task.confusion(torch.tensor([0, 1]), torch.tensor([0, 0])))
    assert math.isnan(scores["IoU c"])
    assert scores["mIoU"] == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_classification_scores_are_those_of_scikit_learn(seed: int) -> None:
    predicted, truth = drawn((200,), seed)
    task = tasks.build("classification", NAMES)
    counts = task.confusion(predicted, truth)
    known = truth >= 0
    p, t = predicted[known].numpy(), truth[known].numpy()
    assert np.array_equal(counts.numpy(), sklearn.metrics.confusion_matrix(t, p, labels=range(4)))
    scores = task.scores(counts)
    assert scores["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(t, p))
    assert scores["mean class accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(t, p))
    recall = sklearn.metrics.recall_score(t, p, average=None)
    assert [scores[f"recall {name}"] for name in NAMES] == pytest.approx(list(recall))


@pytest.mark.parametrize("name", ["classification", "segmentation"])
def test_nothing_to_count_is_blank(name: str) -> None:
    task = tasks.build(name, NAMES)
    counts = task.confusion(torch.tensor([1]), torch.tensor([-1]))
    assert counts.sum() == 0
    assert math.isnan(task.scores(counts)[task.primary])


def test_errors_name_what_is_known() -> None:
    with pytest.raises(UsageError, match="'segmentation'"):
        tasks.build("segmentaton", NAMES)
    with pytest.raises(UsageError, match="two classes"):
        tasks.build("classification", ["only"])
