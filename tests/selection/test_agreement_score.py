"""Agreement with the ensemble by hand, and as an ensemble would choose."""

from __future__ import annotations

import torch

from acclimate.selection.agreement import AGREEMENT, agreement


def test_by_hand() -> None:
    """Classes 0, 1, 2, 1 against 0, 1, 1, 0: two of four."""
    zt = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 1.0, 2.0], [0.0, 1e4, 0.0]])
    consensus = torch.tensor([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.0, 0.6, 0.4], [0.5, 0.4, 0.1]])
    assert agreement(zt, consensus) == 0.5


def test_the_worst_of_several_models_is_not_chosen() -> None:
    """Models right on 95, 85, 75 and 30 of 100 rows, each with its own errors: the order is that of accuracy."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 5, (2000,), generator=generator)
    models = []
    for accuracy in (0.95, 0.85, 0.75, 0.3):
        wrong = torch.rand(2000, generator=generator) >= accuracy
        shift = torch.randint(1, 5, (2000,), generator=generator)
        models.append(4.0 * torch.eye(5)[torch.where(wrong, (y + shift) % 5, y)])
    consensus = torch.stack([zt.softmax(1) for zt in models]).mean(0)
    gains = [AGREEMENT.gain(agreement(zt, consensus)) for zt in models]
    assert gains == sorted(gains, reverse=True)


def test_of_two_models_the_surer_one_wins_as_the_card_says() -> None:
    sure, unsure = 9 * torch.eye(3), torch.eye(3).roll(1, 0)
    consensus = (sure.softmax(1) + unsure.softmax(1)) / 2
    assert (agreement(sure, consensus), agreement(unsure, consensus)) == (1, 0)
