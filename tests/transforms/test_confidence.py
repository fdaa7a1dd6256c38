"""Confidence levels and per-class thresholds against sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.transforms.confidence import LEVELS, class_thresholds, confidence_level


def test_class_is_the_most_probable_and_level_its_log_odds() -> None:
    label, level = confidence_level(torch.tensor([[0.0, 2.0], [1.0, 1.0], [9.0, -9.0]]))
    assert label.tolist() == [1, 0, 0]
    assert level.tolist() == [(2 + 16) * 64, 16 * 64, (18 + 16) * 64]
    assert (label.dtype, level.dtype) == (torch.int16, torch.int16)


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.floats(0, 20))
@settings(max_examples=80, deadline=None)
def test_level_grows_with_the_probability(logits: list[float], more: float) -> None:
    z = torch.tensor([logits])
    best = z.argmax(1)
    surer = z.clone()
    surer[0, best] += more
    assert confidence_level(surer)[1] >= confidence_level(z)[1]


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_levels_order_samples_as_their_probabilities_do(seed: int) -> None:
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(seed)) * 5
    level = confidence_level(z)[1].long()
    order = z.double().softmax(1).amax(1).argsort()
    assert (level[order].diff() >= 0).all()


def test_maps_keep_their_shape_and_extremes_their_range() -> None:
    z = torch.zeros(2, 3, 4, 5)
    z[:, 1] = 1e4
    label, level = confidence_level(z.half())
    assert label.shape == level.shape == (2, 4, 5)
    assert (label == 1).all()
    assert (level == LEVELS - 1).all()


def test_thresholds_of_a_case_by_hand() -> None:
    histogram = torch.zeros(3, 10, dtype=torch.int64)
    histogram[0, [1, 5, 7, 9]] = 1  # half of four: the two best, at 7 and 9
    histogram[1, 4] = 6  # all alike: half cannot be had, all stay
    assert class_thresholds(histogram, 0.5).tolist() == [7, 4, 9]  # never predicted: the highest level
    assert class_thresholds(histogram, 1.0).tolist() == [1, 4, 9]
    assert class_thresholds(histogram, 1e-6).tolist() == [9, 4, 9]  # at least one


@given(st.lists(st.integers(0, LEVELS - 1), min_size=1, max_size=60), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_threshold_is_that_of_a_sort(levels: list[int], portion: float) -> None:
    histogram = torch.bincount(torch.tensor(levels), minlength=LEVELS)[None]
    count = max(1.0, torch.tensor(len(levels)).mul(portion).item())
    needed = int(-(-count // 1))
    assert class_thresholds(histogram, portion).item() == sorted(levels, reverse=True)[needed - 1]


@pytest.mark.parametrize("portion", [0.2, 0.5, 1.0])
def test_at_least_the_portion_of_every_class_is_kept(portion: float) -> None:
    generator = torch.Generator().manual_seed(0)
    label, level = confidence_level(torch.randn(500, 4, generator=generator) * 3)
    cells = label.long() * LEVELS + level.long()
    thresholds = class_thresholds(torch.bincount(cells, minlength=4 * LEVELS).view(4, LEVELS), portion)
    for k in range(4):
        kept = (level[label == k] >= thresholds[k]).float().mean()
        assert portion <= kept <= min(1.0, portion + 0.05)
