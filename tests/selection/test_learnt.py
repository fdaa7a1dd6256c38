from __future__ import annotations

import pytest
import torch

from acclimate import tasks
from acclimate.selection.base import Seen
from acclimate.selection.learnt import forgot, learnt


def seen(right: int, wrong: int, share: float = 0.5) -> Seen:
    """Held-out source rows of two classes, some of which are named rightly."""
    n = right + wrong
    ys = (torch.arange(n) >= share * n).long()
    predicted = torch.where(torch.randperm(n, generator=torch.Generator().manual_seed(0)) < right, ys, 1 - ys)
    z = torch.nn.functional.one_hot(predicted, 2).float()
    return Seen(zt=z, ft=z, image_t=torch.arange(n), zs=z, ys=ys, classes=2)


def test_it_is_counted_from_what_one_answer_for_all_gives() -> None:
    task = tasks.build("classification", ("a", "b"))
    assert learnt(seen(100, 0), task) == pytest.approx(1.0)
    assert learnt(seen(75, 25), task) == pytest.approx(0.5)  # (.75 - .5) / (1 - .5)
    assert learnt(seen(50, 50), task) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("method", "own", "usual", "expected"),
    [
        ("dann", 0.4, 0.9, True),
        ("dann", 0.46, 0.9, False),
        ("adabn", 0.1, 0.9, False),  # it sees no source
        ("dann", None, 0.9, False),
        ("dann", -0.1, -0.2, False),
    ],
)
def test_half_of_what_source_only_has_is_enough(method, own, usual, expected) -> None:
    assert forgot(method, own, usual) is expected
