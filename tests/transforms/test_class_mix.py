"""Class mixing on images that show their labels: what is pasted, how much, and how often."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.transforms.class_mix import Mixed, class_mix, half_of_the_classes

TARGET = 100  # what a target image shows above its label


def mixed(seed: int, classes: int = 5, n: int = 4, side: int = 6) -> tuple[Tensor, Tensor, Mixed]:
    """Labels of the source and the target, and their mixture; each pixel of an image shows its label in all channels."""
    g = torch.Generator().manual_seed(seed)
    ys = torch.randint(-1, classes, (n, side, side), generator=g)
    for row in range(n):  # not every image has every class
        ys[row][ys[row] == torch.randint(0, classes, (), generator=g)] = -1
    yt = torch.randint(0, classes, (n, side, side), generator=g)
    torch.manual_seed(seed)
    xs, xt = (y[:, None].expand(-1, 3, -1, -1).float() for y in (ys, yt + TARGET))
    return ys, yt, class_mix(xs, ys, xt, yt, torch.full((n, side, side), 0.25), classes)


@given(st.integers(0, 1000), st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_image_labels_and_weights_come_from_the_same_place(seed: int, classes: int) -> None:
    ys, yt, (x, y, weights) = mixed(seed, classes)
    pasted = x[:, 0] < TARGET
    assert torch.equal(x[:, 0], x[:, 2])
    assert torch.equal(x[:, 0].long(), torch.where(pasted, y, y + TARGET))
    assert torch.equal(y, torch.where(pasted, ys, yt))
    assert torch.equal(weights, torch.where(pasted, 1.0, 0.25))


@given(st.integers(0, 1000), st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_half_of_the_classes_of_each_image_is_pasted_whole_and_ignore_never(seed: int, classes: int) -> None:
    ys, _, (x, _, _) = mixed(seed, classes)
    for labels, shown in zip(ys, x[:, 0]):
        pasted = shown < TARGET
        chosen = set(labels[pasted].tolist())
        present = set(labels.unique().tolist()) - {-1}
        assert chosen <= present
        assert len(chosen) == math.ceil(len(present) / 2)  # (n + n % 2) / 2 of Tranheden et al.
        assert all(pasted[labels == c].all() for c in chosen)


def test_of_two_classes_one_is_drawn_as_often_as_the_other() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([[0, 0, 0, 1]]).repeat(2000, 1, 1)
    pasted = half_of_the_classes(labels, 2)
    foreground = pasted[:, 0, 3]
    assert torch.equal(pasted[:, 0, 0], ~foreground)
    assert abs(foreground.float().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(2000)  # four standard errors


def test_every_class_is_drawn_equally_often_and_images_apart() -> None:
    torch.manual_seed(0)
    labels = torch.arange(5).repeat(4000, 1, 1)
    pasted = half_of_the_classes(labels, 5)[:, 0].float()
    assert (pasted.sum(1) == 3).all()
    assert (pasted.mean(0) - 0.6).abs().max() < 4 * math.sqrt(0.6 * 0.4 / 4000)
    assert len(pasted.unique(dim=0)) == math.comb(5, 3)


def test_a_single_class_is_pasted_whole_and_none_leaves_the_target() -> None:
    labels = torch.stack([torch.full((2, 2), 3), torch.full((2, 2), -1)])
    pasted = half_of_the_classes(labels, 4)
    assert pasted[0].all()
    assert not pasted[1].any()


def test_one_weight_may_serve_all_pixels() -> None:
    ys, yt = torch.tensor([[[0, 1]]]), torch.tensor([[[1, 1]]])
    x = torch.zeros(1, 1, 1, 2)
    weights = class_mix(x, ys, x, yt, torch.tensor(0.5), 2).weights
    assert sorted(weights.flatten().tolist()) == [0.5, 1.0]


def test_the_seed_alone_decides() -> None:
    one, two, other = (mixed(seed)[2].y for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_images_of_different_sizes_are_refused() -> None:
    y = torch.zeros(1, 4, 4, dtype=torch.long)
    with pytest.raises(UsageError, match="--crop"):
        class_mix(torch.zeros(1, 3, 4, 4), y, torch.zeros(1, 3, 4, 5), y, torch.tensor(1.0), 2)
