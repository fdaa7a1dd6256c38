"""Hidden blocks: whole, of the right size, and as many as asked for."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.transforms.masking import mask_blocks


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_is_hidden_is_zero_and_the_rest_untouched(height: int, width: int, block: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.rand(2, 3, height, width) + 1
    masked = mask_blocks(x, block, 0.5)
    hidden = masked == 0
    assert torch.equal(masked[~hidden], x[~hidden])
    assert torch.equal(hidden.any(1), hidden.all(1))  # all channels together


def test_blocks_are_hidden_as_a_whole() -> None:
    torch.manual_seed(0)
    hidden = mask_blocks(torch.ones(50, 1, 12, 8), 4, 0.7)[:, 0] == 0
    blocks = hidden.view(50, 3, 4, 2, 4)
    assert torch.equal(blocks.any(4).any(2), blocks.all(4).all(2))
    assert 0 < blocks.any(4).any(2).float().mean() < 1


def test_sides_that_blocks_do_not_divide_are_shared_out() -> None:
    """11 pixels at blocks of 4 are round(2.75) = 3 blocks, of 4, 4 and 3."""
    torch.manual_seed(0)
    hidden = mask_blocks(torch.ones(40, 1, 11, 4), 4, 0.5)[:, 0] == 0
    blocks = hidden.split([4, 4, 3], 1)
    assert all(torch.equal(block.any(2).any(1), block.all(2).all(1)) for block in blocks)
    assert all((one[:, 0, 0] != two[:, 0, 0]).any() for one, two in itertools.combinations(blocks, 2))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7])
def test_share_of_hidden_blocks_is_the_ratio(ratio: float) -> None:
    torch.manual_seed(0)
    hidden = (mask_blocks(torch.ones(20, 1, 64, 64), 4, ratio) == 0).float().mean().item()
    assert abs(hidden - ratio) <= 4 * math.sqrt(ratio * (1 - ratio) / (20 * 256))


def test_images_of_a_batch_are_masked_apart_and_by_the_seed() -> None:
    x = torch.ones(2, 1, 32, 32)
    torch.manual_seed(0)
    one = mask_blocks(x, 4, 0.5)
    torch.manual_seed(0)
    assert torch.equal(mask_blocks(x, 4, 0.5), one)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(mask_blocks(x, 4, 0.5), one)


def test_a_block_larger_than_the_image_hides_all_of_it_or_nothing() -> None:
    torch.manual_seed(0)
    means = mask_blocks(torch.ones(100, 1, 8, 8), 64, 0.7).mean((1, 2, 3))
    assert set(means.tolist()) == {0.0, 1.0}


def test_blocks_are_a_sixteenth_of_the_smaller_side_unless_said_otherwise() -> None:
    torch.manual_seed(0)
    given = mask_blocks(torch.ones(2, 1, 64, 96), 4, 0.5)
    torch.manual_seed(0)
    assert torch.equal(mask_blocks(torch.ones(2, 1, 64, 96), None, 0.5), given)
