"""Estimated scores against hand-computed ones."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from acclimate.diagnosis.estimates import (
    calibrate,
    calibrated_score,
    class_temperatures,
    difference_of_confidence,
    expected_confusion,
    mean_entropy,
    rows_of,
    thresholded_confidence,
)
from acclimate.errors import DataError
from acclimate.tasks import build

SEGMENTATION = build("segmentation", ("background", "object"))
CLASSES = build("classification", ("a", "b", "c"))


def logits_of(p: list[float]) -> torch.Tensor:
    """Logits ``(1, 2, 1, n)`` with these probabilities of the object."""
    row = torch.tensor(p)
    return torch.stack([(1 - row).log(), row.log()])[None, :, None]


def test_expected_confusion_by_hand() -> None:
    p = rows_of(logits_of([0.9, 0.6, 0.2])).softmax(1)
    found = expected_confusion(p, torch.tensor([1, 1, 0]), torch.tensor([True, True]))
    # Predicted object: 0.9 and 0.6; predicted background: 0.2
    assert torch.allclose(found, torch.tensor([[0.8, 0.5], [0.2, 1.5]], dtype=torch.float64), atol=1e-6)
    iou = 1.5 / (1.5 + 0.5 + 0.2)
    calibration = calibrate(SEGMENTATION, logits_of([0.9, 0.1]), torch.tensor([[[1, 0]]]))
    plain = dataclasses.replace(calibration, temperatures=torch.ones(2))
    assert calibrated_score(SEGMENTATION, logits_of([0.9, 0.6, 0.2]), plain) == pytest.approx(iou, abs=1e-6)


def test_temperature_makes_confidence_equal_precision() -> None:
    """40 predictions of class 0 with probability .9, 30 of them right: p(T) = .75 at T = ln 9 / ln 3 = 2."""
    logits = torch.tensor([0.9, 0.1]).log().expand(40, 2)
    labels = torch.cat([torch.zeros(30), torch.ones(10)]).long()
    assert class_temperatures(logits, labels)[0].item() == pytest.approx(2.0, abs=1e-3)


def test_rare_class_takes_the_temperature_of_all() -> None:
    logits = torch.cat([torch.tensor([0.9, 0.1]).log().expand(40, 2), torch.tensor([0.1, 0.9]).log().expand(3, 2)])
    found = class_temperatures(logits, torch.cat([torch.zeros(30), torch.ones(13)]).long())
    p = 33 / 43
    assert found[1].item() == pytest.approx(math.log(9) / math.log(p / (1 - p)), abs=1e-3)


def test_difference_of_confidence_by_hand() -> None:
    """Class 0 is predicted with mean confidence .8 and right half of the time: .3 too sure; a confidence of .6 is .3."""
    source = torch.tensor([[0.9, 0.05, 0.05], [0.7, 0.2, 0.1]] * 20).log()
    calibration = calibrate(CLASSES, source, torch.tensor([0, 1] * 20))
    assert calibration.score == 0.5
    assert calibration.excess[0].item() == pytest.approx(0.3)
    target = torch.tensor([[0.6, 0.2, 0.2]]).log()
    assert difference_of_confidence(CLASSES, target, calibration) == pytest.approx(0.3)


def test_a_model_that_finds_no_object_is_not_called_good() -> None:
    """4 % objects, found well on the source; on the target nothing is predicted: all estimates must be near 0."""
    source, labels = logits_of([0.95, 0.95, *[0.02] * 48] * 20), torch.tensor([[[1, 1, *[0] * 48] * 20]])
    calibration = calibrate(SEGMENTATION, source, labels)
    blank = logits_of([0.02] * 50)
    for estimate in (calibrated_score, difference_of_confidence):
        found = estimate(SEGMENTATION, blank, calibration)
        assert not found > 0.05  # or not defined: no object is expected either


def test_classes_that_nobody_holds_do_not_count() -> None:
    """Four classes of which the source holds two: the tails of the softmax are no traces of the others."""
    task = build("segmentation", ("a", "b", "c", "d"))
    rows = torch.tensor([[0.9, 0.08, 0.01, 0.01], [0.08, 0.9, 0.01, 0.01]] * 50).log().T[None, :, None]
    labels = torch.tensor([[[0, 1] * 50]])
    calibration = calibrate(task, rows, labels)
    assert calibrated_score(task, rows, calibration) > 0.9
    assert thresholded_confidence(task, rows, calibration) == 1.0


def test_thresholded_confidence_recovers_the_source() -> None:
    """On the source itself the share of confidences above the threshold is the accuracy (up to ties)."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 3, generator=generator)
    labels = (
        torch.distributions.Categorical(logits=0.5 * logits)
        .probs.cumsum(1)
        .gt(torch.rand(4000, 1, generator=generator))
    )
    labels = labels.double().argmax(1)
    calibration = calibrate(CLASSES, logits, labels)
    assert thresholded_confidence(CLASSES, logits, calibration) == pytest.approx(calibration.score, abs=0.005)
    # Calibrated confidence as well: the labels were drawn at temperature 2.
    assert calibration.temperatures.mean().item() == pytest.approx(2.0, rel=0.15)
    assert calibrated_score(CLASSES, logits, calibration) == pytest.approx(calibration.score, abs=0.005)


def test_estimates_fall_where_the_model_gets_unsure() -> None:
    source, labels = logits_of([0.95, 0.9, 0.1, 0.05] * 20), torch.tensor([[[1, 0, 0, 1] * 20]])
    calibration = calibrate(SEGMENTATION, source, labels)
    unsure = logits_of([0.6, 0.55, 0.45, 0.4] * 20)
    assert difference_of_confidence(SEGMENTATION, unsure, calibration) < calibration.score
    assert mean_entropy(unsure) > mean_entropy(source)


def test_entropy_is_one_for_uniform_probabilities() -> None:
    assert mean_entropy(torch.zeros(5, 4)) == pytest.approx(1.0)


def test_ignored_pixels_do_not_count() -> None:
    logits, labels = logits_of([0.9, 0.9, 0.1, 0.1]), torch.tensor([[[1, -1, 0, -1]]])
    assert calibrate(SEGMENTATION, logits, labels).score == 1.0
    with pytest.raises(DataError, match="ignore"):
        calibrate(SEGMENTATION, logits, torch.full_like(labels, -1))
