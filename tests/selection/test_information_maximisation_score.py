"""Mutual information of image and prediction against SciPy and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from acclimate.selection.information_maximisation import information_maximisation


def test_it_is_the_mean_divergence_from_the_mean_prediction() -> None:
    """I(x; y) = mean_i KL(p_i || mean_l p_l), another way to the same number."""
    p = (2 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).softmax(1)
    expected = scipy_entropy(p.numpy(), p.mean(0, keepdim=True).expand_as(p).numpy(), axis=1).mean()
    assert information_maximisation(p.log()) == pytest.approx(expected, rel=1e-10)


def test_by_hand() -> None:
    """(3/4, 1/4) and (1/4, 3/4): log 2 - (2 log 2 - 3/4 log 3) = 3/4 log 3 - log 2."""
    zt = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    assert information_maximisation(zt) == pytest.approx(0.75 * math.log(3) - math.log(2), rel=1e-6)


def test_its_ends() -> None:
    """Sure and even: log K. The same prediction everywhere, sure or not: 0, and not a rounding error below it."""
    assert information_maximisation(100 * torch.eye(5).repeat(3, 1)) == pytest.approx(math.log(5), rel=1e-9)
    same = torch.randn(5, generator=torch.Generator().manual_seed(1)).repeat(20, 1)
    for zt in (same, 1e4 * same):
        assert 0 <= information_maximisation(zt) < 1e-12
