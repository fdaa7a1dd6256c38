"""Soft neighbourhood density against two loops in NumPy and by hand."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch

from acclimate.selection.snd import SND, snd

module = importlib.import_module("acclimate.selection.snd")


def looped(zt: torch.Tensor, temperature: float) -> float:
    p = np.exp(zt.double().numpy())
    p /= p.sum(1, keepdims=True)
    entropies = []
    for i, own in enumerate(p):
        cosines = [own @ other / np.sqrt((own @ own) * (other @ other)) for j, other in enumerate(p) if j != i]
        shares = np.exp(np.array(cosines) / temperature)
        shares /= shares.sum()
        entropies.append(-(shares * np.log(shares)).sum())
    return float(np.mean(entropies))


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_it_is_the_double_loop(temperature: float) -> None:
    zt = 3 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert snd(zt, temperature) == pytest.approx(looped(zt, temperature), rel=1e-10)
    assert snd(zt) == snd(zt, 0.05)


def test_by_hand() -> None:
    """Two sure rows of one class and one of another: cosines 1 and 0.

    A row of the pair divides its attention as e^20 : 1; with q = 1 / (e^20 + 1) that is log(1 + e^20) - 20 (1 - q).
    The third row divides it evenly, log 2.
    """
    zt = torch.tensor([[500.0, 0.0], [500.0, 0.0], [0.0, 500.0]])
    paired = math.log1p(math.exp(20)) - 20 * (1 - 1 / (math.exp(20) + 1))
    assert snd(zt) == pytest.approx((2 * paired + math.log(2)) / 3, rel=1e-9)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    zt = 2 * torch.randn(53, 4, generator=torch.Generator().manual_seed(2))
    whole = snd(zt)
    for block in (1, 53, 53 * 7, 53 * 52):
        monkeypatch.setattr(module, "BLOCK", block)
        assert snd(zt) == pytest.approx(whole, rel=1e-12)


def test_no_more_than_a_few_blocks_are_held() -> None:
    """3,000 rows have 9 million cosines, 72 MB at once in float64."""
    assert 8 * module.BLOCK * 6 < 200e6


def test_groups_are_denser_than_a_spread() -> None:
    """Ten classes of ten rows each, sure and kept together, against rows with two or three classes mixed at random."""
    generator = torch.Generator().manual_seed(3)
    grouped = 12 * torch.eye(10).repeat(10, 1) + 0.1 * torch.randn(100, 10, generator=generator)
    spread = 5 * torch.randn(100, 10, generator=generator)
    assert SND.gain(snd(grouped)) > SND.gain(snd(spread))
    assert snd(grouped) == pytest.approx(math.log(9), abs=1e-3)  # nine equal neighbours


def test_one_prediction_for_all_is_the_upper_end_as_the_card_says() -> None:
    for row in ([0.0, 0.0, 0.0], [1e4, 0.0, 0.0]):
        assert snd(torch.tensor([row]).repeat(30, 1)) == pytest.approx(math.log(29), rel=1e-12)
    assert "same prediction" in SND.fails


def test_few_rows() -> None:
    """Alone there is no neighbour; of two, each has one."""
    assert snd(torch.randn(1, 3)) == 0
    assert snd(torch.randn(2, 3)) == 0
