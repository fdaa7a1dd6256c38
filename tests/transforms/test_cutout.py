"""The blank square: its size, its place, what it leaves."""

from __future__ import annotations

import pytest
import torch

from acclimate.transforms.cutout import cutout


@pytest.mark.parametrize(("draw", "top", "left"), [((0.0, 0.0), 0, 0), ((0.999, 0.5), 6, 5), ((0.5, 0.999), 3, 10)])
def test_blanks_a_rectangle_inside_of_the_image(draw: tuple[float, float], top: int, left: int) -> None:
    x = torch.rand(1, 3, 9, 15) + 1
    blank, seen = cutout(x, 1 / 3, torch.tensor([draw]))
    expected = torch.ones(9, 15, dtype=torch.bool)
    expected[top : top + 3, left : left + 5] = False
    assert torch.equal(seen[0], expected)
    assert torch.equal(blank[0], torch.where(expected, x[0], 0))


def test_each_image_has_its_own_and_none_has_one_of_side_zero() -> None:
    x = torch.ones(2, 1, 8, 8)
    blank, seen = cutout(x, 0.25, torch.tensor([[0.0, 0.0], [0.99, 0.99]]))
    assert blank[0, 0, :2, :2].sum() == blank[1, 0, 6:, 6:].sum() == 0
    assert seen.sum() == 2 * 60
    same, seen = cutout(x, 0.0, torch.rand(2, 2))
    assert torch.equal(same, x)
    assert seen.all()
