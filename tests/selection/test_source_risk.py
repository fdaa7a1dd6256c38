import math

import pytest
import torch

from acclimate.errors import UsageError
from acclimate.selection.source_risk import SOURCE_RISK, source_risk


def test_mean_cross_entropy_by_hand():
    zs = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]).log() + torch.tensor([[3.0], [-2.0], [0.0]])
    expected = -(math.log(0.8) + math.log(0.5) + math.log(0.1)) / 3
    assert source_risk(zs, torch.tensor([0, 1, 0])) == pytest.approx(expected, rel=1e-6)


def test_ignored_rows_do_not_count():
    zs, ys = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 5 - 1
    assert source_risk(zs, ys) == pytest.approx(source_risk(zs[ys >= 0], ys[ys >= 0]), rel=1e-12)


def test_extreme_logits_stay_finite():
    zs = torch.tensor([[1e30, -1e30], [-1e4, 1e4]])
    assert source_risk(zs, torch.tensor([0, 1])) == 0
    assert source_risk(zs[1:], torch.tensor([0])) == pytest.approx(2e4)


def test_refuses_labels_that_are_all_ignored():
    with pytest.raises(UsageError, match="every label"):
        source_risk(torch.zeros(3, 2), torch.full((3,), -1))


def test_lower_is_better():
    assert SOURCE_RISK.gain(0.1) > SOURCE_RISK.gain(0.2)
    assert SOURCE_RISK.takes == ("zs", "ys")
