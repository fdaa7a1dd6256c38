"""Conditional entropy against SciPy and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from acclimate.selection.entropy import ENTROPY, entropy


def test_it_is_scipys_mean_entropy() -> None:
    zt = 3 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    expected = scipy_entropy(zt.double().softmax(1).numpy(), axis=1).mean()
    assert entropy(zt) == pytest.approx(expected, rel=1e-12)


def test_by_hand() -> None:
    """(3/4, 1/4) has 2 log 2 - 3/4 log 3, (1/2, 1/2) has log 2; their mean is 3/2 log 2 - 3/8 log 3."""
    zt = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    assert entropy(zt) == pytest.approx(1.5 * math.log(2) - 0.375 * math.log(3), rel=1e-6)


def test_a_collapsed_model_is_best_as_the_card_says() -> None:
    collapsed = torch.tensor([[1e4, 0.0, 0.0]]).repeat(9, 1)
    assert entropy(collapsed) == 0
    assert str(entropy(collapsed)) == "0.0"  # not -0.0
    assert ENTROPY.gain(entropy(collapsed)) > ENTROPY.gain(entropy(4 * torch.eye(3).repeat(3, 1)))
    assert "one class" in ENTROPY.fails
