"""Signs of how right a model is, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.diagnosis.behaviour import (
    State,
    agreement,
    borders,
    differing,
    divergence,
    effect,
    like_neighbours,
    move,
    score,
    source_layer,
    thirds,
)
from acclimate.distances import frechet
from acclimate.networks.activations import Activations
from acclimate.tasks import build

SEGMENTATION = build("segmentation", ("background", "object"))
CLASSES = build("classification", ("a", "b", "c"))


def test_borders_of_a_half_plane_and_of_noise() -> None:
    half = torch.zeros(1, 8, 8, dtype=torch.long)
    half[:, :, 4:] = 1
    # 8 of 56 horizontal pairs differ, none of the vertical; 1 - sum q^2 = 1 / 2
    assert borders(half) == pytest.approx((8 / 56) / 2 / 0.5)
    random = torch.randint(2, (4, 128, 128), generator=torch.Generator().manual_seed(0))
    assert borders(random) == pytest.approx(1, abs=0.02)
    assert borders(torch.zeros(5, dtype=torch.long)) == 0


def test_like_neighbours_of_a_lonely_pixel() -> None:
    lonely = torch.zeros(1, 5, 5, dtype=torch.long)
    lonely[0, 2, 2] = 1
    found = like_neighbours(lonely)
    assert found[0, 2, 2] == 0
    assert found[0, 1, 1] == pytest.approx(7 / 8)
    edge = torch.zeros(1, 4, 4, dtype=torch.long)
    edge[0, :, 0] = 1
    assert found[0, 0, 0] == 1
    assert like_neighbours(edge)[0, 1, 3] == 1  # the other side is no neighbour


def test_agreement_is_the_score_of_one_against_the_other() -> None:
    one, other = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 0, 1]]])
    assert agreement(SEGMENTATION, one, other) == pytest.approx(1 / 3)
    empty = torch.zeros(1, 1, 4, dtype=torch.long)
    assert agreement(SEGMENTATION, empty, empty) == 1  # nothing there and nothing said: 1 - IoU is a metric only so


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_gain_is_bounded_by_what_changes(seed: int) -> None:
    """1 - IoU and 1 - accuracy are metrics: the triangle inequality bounds the gain, whatever the truth is."""
    draw = torch.Generator().manual_seed(seed)
    for task, shape in ((SEGMENTATION, (2, 6, 6)), (CLASSES, (30,))):
        k = len(task.classes)
        before, after, truth = (torch.randint(k, shape, generator=draw) for _ in range(3))
        if seed % 3 == 0:
            before, after = before * 0, after * (torch.rand(shape, generator=draw) < 0.1)  # next to nothing predicted
        ignored = torch.rand(shape, generator=draw) < 0.3
        truth = truth.masked_fill(ignored, -1)
        gain = score(task, after, truth) - score(task, before, truth)
        assert abs(gain) <= 1 - agreement(task, before, after.masked_fill(ignored, -1)) + 1e-12


def test_votes_where_predictions_differ_by_hand() -> None:
    def state(p: list[float], moved: list[int]) -> State:
        row = torch.tensor(p)
        logits = torch.stack([(1 - row).log(), row.log()])[None, :, None]
        return State(logits, logits.argmax(1), torch.tensor([[moved]]), {})

    before, after = state([0.9, 0.2, 0.6], [1, 0, 1]), state([0.8, 0.7, 0.1], [1, 1, 1])
    found = differing(before, after, torch.tensor([[[1, 1, 1]]]), torch.ones(2))
    assert found["differ"] == pytest.approx(2 / 3)  # the second and the third pixel
    assert found["margin before"] == pytest.approx((0.6 + 0.2) / 2)
    assert found["margin after"] == pytest.approx((0.4 + 0.8) / 2)
    assert found["steady where before"] == pytest.approx(1.0)
    assert found["steady where after"] == pytest.approx(0.5)
    assert found["halfway where after"] == pytest.approx(0.5)
    same = differing(before, before, before.predicted, torch.ones(2))
    assert set(same.values()) == {0.0}


def test_null_of_a_layer_is_split_by_image_and_new_to_its_basis() -> None:
    """Windows of one image resemble each other; two halves that share no image are as far apart as two domains' samples."""
    draw = torch.Generator().manual_seed(0)
    images = torch.arange(40).repeat_interleave(4)
    own = torch.randn(40, 8, generator=draw)[images]  # what an image has of its own
    values = (own[:, None] + 0.3 * torch.randn(160, 6, 8, generator=draw)).flatten(0, 1)
    found = Activations(values, torch.arange(160).repeat_interleave(6))
    layer = source_layer(found, images, 0)
    assert layer is not None
    by_window = source_layer(found, torch.arange(160), 0)
    assert by_window is not None
    assert layer.frechet.mean > 2 * by_window.frechet.mean
    fresh = (torch.randn(20, 8, generator=draw)[torch.arange(20).repeat_interleave(4)])[:, None]
    fresh = (fresh + 0.3 * torch.randn(80, 6, 8, generator=draw)).flatten(0, 1)
    assert frechet(layer.rows, layer.project(fresh)).item() < 2 * layer.frechet.quantile


def test_a_layer_that_never_varies_is_left_out() -> None:
    found = Activations(torch.ones(64, 3), torch.arange(16).repeat_interleave(4))
    assert source_layer(found, torch.arange(16), 0) is None


def test_divergence_is_zero_for_equal_shares_and_one_bit_apart() -> None:
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert divergence(p, p) == pytest.approx(0, abs=1e-6)
    assert divergence(p, q) == pytest.approx(1, abs=1e-3)


def test_effect_is_a_difference_in_deviations() -> None:
    source = torch.tensor([0.0, 1.0, 2.0])
    assert effect(source, source + 3) == pytest.approx(math.asinh(3.0), rel=1e-2)


def test_moves_change_nothing_that_matters() -> None:
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(move(x, SEGMENTATION).flip(-1), x)
    assert torch.equal(move(x, CLASSES)[..., 1:, 1:], x[..., :-1, :-1])


def test_thirds_share_layers_where_there_are_few() -> None:
    assert thirds(list("abcdef")) == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert all(thirds(["a"]))
