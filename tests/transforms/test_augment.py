"""Augmentation from given draws: moves against hand-computed pixels, colours within their range."""

from __future__ import annotations

import pytest
import torch

from acclimate.transforms.augment import DRAWS, Geometry, Photometry, move, recolour


def draws(count: int, **chosen: float) -> torch.Tensor:
    """Uniform numbers, 0.5 ("no change") but for those named by their place."""
    d = torch.full((count, DRAWS), 0.5)
    for place, value in chosen.items():
        d[:, int(place[1:])] = value
    return d


IMAGE = torch.arange(12.0).view(1, 1, 3, 4) / 12
LABEL = torch.arange(12).view(1, 3, 4)


def test_flip_is_that_of_torch() -> None:
    x, (y,) = move(IMAGE, [LABEL], draws(1, _0=0.1), Geometry(flips="horizontal"))
    assert torch.equal(x, IMAGE.flip(-1))
    assert torch.equal(y, LABEL.flip(-1))
    x, _ = move(IMAGE, [LABEL], draws(1, _0=0.9), Geometry(flips="horizontal"))
    assert torch.equal(x, IMAGE)


def test_dihedral_group_has_eight_members_on_a_square() -> None:
    square = torch.arange(9.0).view(1, 1, 3, 3)
    found = {
        tuple(move(square, [], draws(1, _0=a, _1=b, _2=c), Geometry(flips="dihedral"))[0].flatten().tolist())
        for a in (0.1, 0.9) for b in (0.1, 0.9) for c in (0.1, 0.9)
    }  # fmt: skip
    assert len(found) == 8


def test_quarter_turn_is_that_of_torch() -> None:
    square = torch.arange(25.0).view(1, 1, 5, 5)
    label = torch.arange(25).view(1, 5, 5)
    x, (y,) = move(square, [label], draws(1, _3=1.0), Geometry(rotate=90))
    turned = [torch.rot90(label[0], k) for k in (1, -1)]
    assert any(torch.equal(y[0], t) for t in turned)
    torch.testing.assert_close(x[0, 0], y[0].float(), atol=1e-4, rtol=0)


def test_shift_by_whole_pixels_ignores_what_comes_into_view() -> None:
    label = torch.arange(16).view(1, 4, 4)
    _, (y,) = move(label[:, None].float(), [label], draws(1, _5=1.0), Geometry(shift=0.25))
    assert torch.equal(y[0, :, :3], label[0, :, 1:])
    assert (y[0, :, 3] == -1).all()


def test_no_geometry_returns_the_tensors_themselves() -> None:
    x, (y,) = move(IMAGE, [LABEL], draws(1), Geometry())
    assert x is IMAGE
    assert y is LABEL


ALL = Photometry(brightness=0.2, contrast=0.4, gamma=0.3, saturation=0.4, hue=0.2, noise=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_stay_in_range_and_depend_on_draws_and_seed_only(channels: int) -> None:
    x, d = torch.rand(8, channels, 6, 6), torch.rand(8, DRAWS)
    before = x.clone()
    a = recolour(x, d, ALL, 1)
    torch.manual_seed(99)
    assert torch.equal(a, recolour(x, d, ALL, 1))
    assert not torch.equal(a, recolour(x, d, ALL, 2))
    assert torch.equal(x, before)
    assert a.min() >= 0
    assert a.max() <= 1
    assert a.isfinite().all()


@pytest.mark.parametrize("field", ["brightness", "contrast", "gamma", "saturation", "hue"])
def test_middle_draw_changes_nothing(field: str) -> None:
    x = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(recolour(x, draws(2), Photometry(**{field: 0.3}), 0), x, atol=1e-4, rtol=0)


def test_brightness_has_the_value_of_its_formula() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    torch.testing.assert_close(recolour(x, draws(1, _7=1.0), Photometry(brightness=0.2), 0), x + 0.2)


def test_rows_share_the_noise_of_the_whole_batch() -> None:
    x, d = torch.full((6, 1, 4, 4), 0.5), torch.rand(6, DRAWS)
    whole = recolour(x, d, Photometry(noise=0.1), 5)
    parts = [recolour(x[r : r + 2], d[r : r + 2], Photometry(noise=0.1), 5, row=r, rows=6) for r in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.allclose(parts[0], parts[1])
