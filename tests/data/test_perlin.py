"""Perlin noise and scenes: exact shares, reproducible images, smooth shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from acclimate.data.perlin import foreground, lattice_noise, perlin, scenes
from acclimate.errors import UsageError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(turns: np.ndarray, x: float, y: float) -> float:
    """Perlin noise at one point, straight from the definition."""
    cells = len(turns) - 1
    column, row = min(int(x * cells), cells - 1), min(int(y * cells), cells - 1)
    fx, fy = x * cells - column, y * cells - row
    total = 0.0
    for down in (0, 1):
        for right in (0, 1):
            angle = 2 * math.pi * turns[row + down, column + right]
            product = math.cos(angle) * (fx - right) + math.sin(angle) * (fy - down)
            u, v = (6 * f**5 - 15 * f**4 + 10 * f**3 for f in (fx, fy))
            total += product * (u if right else 1 - u) * (v if down else 1 - v)
    return total


def test_noise_agrees_with_the_definition():
    turns = torch.rand(2, 5, 5, generator=seeded())
    position = torch.tensor([0.01, 0.2, 0.33, 0.5, 0.77, 0.99])
    field = lattice_noise(turns, position)
    for n in range(2):
        for i, y in enumerate(position.tolist()):
            for j, x in enumerate(position.tolist()):
                assert field[n, i, j].item() == pytest.approx(by_hand(turns[n].numpy(), x, y), abs=1e-5)


def test_noise_is_zero_at_lattice_points_and_not_between():
    field = lattice_noise(torch.rand(3, 5, 5, generator=seeded()), torch.arange(8) / 8)
    assert field[:, ::2, ::2].abs().max() < 1e-6
    assert field[:, 1::2, 1::2].abs().mean() > 0.05


def test_noise_and_its_slope_are_continuous_across_cells():
    position = torch.linspace(0.2, 0.3, 401, dtype=torch.float64)  # crosses the border of a cell at 0.25
    field = lattice_noise(torch.rand(1, 5, 5, generator=seeded(), dtype=torch.float64), position)[0]
    slope = field.diff(dim=1) / position.diff()
    assert field.diff(dim=1).abs().max() < 4e-3
    assert slope.diff(dim=1).abs().max() < 0.02 * slope.abs().max()


def test_image_i_depends_on_the_seed_alone():
    many, few = perlin(6, 16, octaves=3, generator=seeded()), perlin(2, 16, octaves=3, generator=seeded())
    torch.testing.assert_close(many[:2], few, atol=1e-6, rtol=0)
    assert not torch.allclose(perlin(2, 16, generator=seeded(1)), perlin(2, 16, generator=seeded(0)))
    assert not torch.allclose(many[0], many[1])


def test_octaves_are_weighed_by_halves():
    turns = torch.rand(25 + 81 + 289, generator=seeded()).split([25, 81, 289])
    position = (torch.arange(20) + 0.5) / 20
    parts = [lattice_noise(t.view(1, s, s), position) for t, s in zip(turns, (5, 9, 17))]
    expected = parts[0] + parts[1] / 2 + parts[2] / 4
    torch.testing.assert_close(perlin(1, 20, octaves=3, generator=seeded()), expected, atol=1e-6, rtol=0)


def test_octaves_add_detail():
    def roughness(octaves: int) -> float:
        field = perlin(16, 64, octaves=octaves, generator=seeded())
        return (field.diff(dim=1).square().mean() / field.var()).item()

    assert roughness(3) > 1.5 * roughness(1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 1.0])
def test_the_share_of_foreground_is_exact(share):
    masks = foreground(perlin(5, 20, generator=seeded()), share)
    assert masks.sum(dim=(1, 2)).tolist() == [round(share * 400)] * 5


def test_the_share_is_exact_even_among_equal_values():
    assert foreground(torch.zeros(1, 4, 4), 0.25).sum() == 4


def test_few_equal_values_at_the_border_are_split():
    field = torch.tensor([[[3.0, 1.0], [1.0, 2.0]], [[0.0, 1.0], [2.0, 3.0]]])
    assert foreground(field, 0.75).tolist() == [[[1, 0], [1, 1]], [[0, 1], [1, 1]]]


def test_shares_per_image_and_highest_pixels_first():
    field = perlin(3, 20, generator=seeded())
    masks = foreground(field, [0.1, 0.5, 0.9])
    assert masks.sum(dim=(1, 2)).tolist() == [40, 200, 360]
    assert field[1][masks[1] == 1].min() >= field[1][masks[1] == 0].max()


def test_without_a_share_the_noise_is_cut_at_zero():
    field = perlin(3, 20, generator=seeded())
    assert torch.equal(foreground(field, None).bool(), field > 0)


def test_scenes_have_the_asked_for_look():
    images, masks = scenes(40, 32, inside=0.6, outside=0.4, sigma=0.05, share=(0.3, 0.5), generator=seeded())
    assert images.dtype == masks.dtype == torch.uint8
    assert images.shape == (40, 32, 32, 1)
    assert masks.shape == (40, 32, 32)
    value, inside = images[..., 0].float() / 255, masks.bool()
    assert value[inside].mean().item() == pytest.approx(0.6, abs=0.002)
    assert value[~inside].mean().item() == pytest.approx(0.4, abs=0.002)
    assert value[inside].std().item() == pytest.approx(0.05, abs=0.002)
    shares = masks.float().mean(dim=(1, 2))
    assert shares.min() >= 0.299
    assert shares.max() <= 0.501
    assert shares.std() > 0.03


def test_bright_scenes_are_clipped_not_wrapped():
    images, masks = scenes(4, 32, inside=1.0, outside=0.0, sigma=0.1, generator=seeded())
    assert images[..., 0][masks == 1].min() > 100
    assert images[..., 0][masks == 0].max() < 150
    assert (images == 255).any()


def test_scenes_are_reproducible_and_independent_of_their_number():
    # 13 * 13 is no multiple of the block in which normal numbers are drawn.
    many, few = scenes(7, 13, generator=seeded()), scenes(3, 13, generator=seeded())
    assert all(torch.equal(a[:3], b) for a, b in zip(many, few))
    other = scenes(3, 13, generator=seeded(1))
    assert not torch.equal(few[0], other[0])


def test_images_of_later_blocks_do_not_depend_on_the_number_either():
    # 400 x 400 pixels: six to a block.
    many, few = scenes(15, 400, octaves=2, generator=seeded()), scenes(8, 400, octaves=2, generator=seeded())
    assert all(torch.equal(a[:8], b) for a, b in zip(many, few))
    assert len(set(many[1].long().sum((1, 2)).tolist())) == 15  # each has a share of its own
    single = perlin(8, 400, octaves=2, generator=seeded())
    assert torch.equal(perlin(15, 400, octaves=2, generator=seeded())[:8], single)


def test_the_look_can_change_while_shapes_stay():
    dark, bright = (scenes(3, 16, inside=a, outside=b, generator=seeded()) for a, b in ((0.7, 0.3), (0.5, 0.1)))
    assert torch.equal(dark[1], bright[1])
    assert not torch.equal(dark[0], bright[0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: perlin(0, 8),
        lambda: perlin(1, 8, cells=0),
        lambda: scenes(1, 0),
        lambda: scenes(-1, 8),
        lambda: scenes(1, 8, octaves=0),
        lambda: foreground(torch.zeros(1, 4, 4), 1.5),
        lambda: scenes(2, 8, share=(0.5, 1.5), generator=seeded()),
    ],
)
def test_impossible_sizes_and_shares_are_refused(call):
    with pytest.raises(UsageError):
        call()
