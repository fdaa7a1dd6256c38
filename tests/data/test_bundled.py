"""The bundled sets: present without a download, the same each time, and what their cards say."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from acclimate import registry
from acclimate.data import bundled
from acclimate.data.domain import Domain
from acclimate.errors import UsageError

COUNTS = {
    "digits-rendered": (4000, 1000, (28, 28, 1)),
    "digits-handwritten": (1297, 500, (28, 28, 1)),
    "digits-blended": (3891, 1000, (28, 28, 3)),
    "perlin-dark": (300, 100, (64, 64, 1)),
    "perlin-bright": (300, 100, (64, 64, 1)),
}
DIGITS = [name for name in COUNTS if name.startswith("digits")]
SHAPES = [name for name in COUNTS if name.startswith("perlin")]


@functools.cache
def opened(name: str, split: str) -> Domain:
    return registry.load("datasets", name).open(split)


def images(name: str, split: str) -> np.ndarray:
    domain = opened(name, split)
    return np.stack([domain.images[index] for index in range(len(domain))])


def labels(name: str, split: str) -> np.ndarray:
    domain = opened(name, split)
    return np.stack([domain.labels[index] for index in range(len(domain))])


@pytest.mark.parametrize("name", COUNTS)
def test_every_set_is_present_and_as_large_as_its_card_says(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path / "nothing"))
    dataset = registry.load("datasets", name)
    assert dataset.present
    assert dataset.card.bundled
    assert dataset.card.name == name
    train, test, shape = COUNTS[name]
    for split, count in (("train", train), ("test", test)):
        domain = dataset.open(split)
        assert len(domain) == count
        assert f"{count:,} {split}" in dataset.card.notes
        assert domain.task == dataset.card.task
        assert domain.classes == dataset.card.classes
        assert domain.images[0].shape == shape
        assert domain.images[0].dtype == np.uint8
    with pytest.raises(UsageError, match="did you mean 'train'"):
        dataset.open("trian")


@pytest.mark.parametrize("name", DIGITS)
def test_digits_have_every_class_in_both_splits(name):
    for split in ("train", "test"):
        shares = np.bincount(labels(name, split), minlength=10) / len(opened(name, split))
        assert shares.min() > 0.07
        assert shares.max() < 0.13


@pytest.mark.parametrize("name", COUNTS)
def test_no_image_is_in_both_splits(name):
    train, test = ({image.tobytes() for image in images(name, split)} for split in ("train", "test"))
    assert not train & test


@pytest.mark.parametrize("name", COUNTS)
def test_a_set_is_the_same_each_time(name):
    before = images(name, "test"), labels(name, "test")
    for cached in (bundled._rendered, bundled._handwritten, bundled._blended, bundled._shapes):
        cached.cache_clear()
    again = registry.load("datasets", name).open("test")
    assert np.array_equal(np.stack([again.images[i] for i in range(len(again))]), before[0])
    assert np.array_equal(np.stack([again.labels[i] for i in range(len(again))]), before[1])


def test_nobody_can_change_what_others_open():
    dataset = registry.load("datasets", "digits-handwritten")
    first = dataset.open("test")
    expected = first.images[0].copy()
    first.images[0][:] = 7
    assert np.array_equal(dataset.open("test").images[0], expected)


@pytest.mark.parametrize(("name", "accuracy"), [("digits-rendered", 0.4), ("digits-handwritten", 0.95)])
def test_digits_are_white_on_black_and_can_be_told_apart(name, accuracy):
    from sklearn.neighbors import KNeighborsClassifier

    train, test = images(name, "train"), images(name, "test")
    assert train[:, [0, -1]].mean() < 5 < 200 < np.median(train.max(axis=(1, 2, 3)))
    neighbours = KNeighborsClassifier(1).fit(train[::2].reshape(len(train[::2]), -1), labels(name, "train")[::2])
    assert neighbours.score(test.reshape(len(test), -1), labels(name, "test")) > accuracy


def test_rendered_digits_stay_inside_the_image():
    ring = images("digits-rendered", "train")[..., 0].copy()
    ring[:, 1:-1, 1:-1] = 0
    assert (ring.max(axis=(1, 2)) > 128).mean() < 0.02


def test_blended_digits_are_the_patch_minus_the_digit():
    digits = np.zeros((50, 28, 28, 1), np.uint8)
    patches = bundled.blend(digits, "train")
    digits[:, 10:20] = 255
    digits[:, 20:] = 100
    blended = bundled.blend(digits, "train")
    assert np.array_equal(blended[:, :10], patches[:, :10])
    assert np.array_equal(blended[:, 10:20], 255 - patches[:, 10:20])
    assert np.array_equal(blended[:, 20:], np.abs(patches[:, 20:].astype(int) - 100))


def test_train_and_test_use_other_regions_of_the_photos(monkeypatch):
    # Photos whose pixels say from which column they are.
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (60, 200, 3))
    monkeypatch.setattr(bundled, "_photos", lambda: [columns])
    black = np.zeros((300, 28, 28, 1), np.uint8)
    train, test = bundled.blend(black, "train"), bundled.blend(black, "test")
    assert train.max() == 149
    assert test.min() == 150
    assert (train.min(), test.max()) == (0, 199)


def test_blended_digits_are_the_handwritten_ones_of_the_same_split():
    for split, times in (("train", 3), ("test", 2)):
        expected = np.tile(labels("digits-handwritten", split), times)
        assert np.array_equal(labels("digits-blended", split), expected)
        # Beyond the digit's frame of four pixels there is nothing but photo; within it the stroke has been subtracted.
        digits = np.tile(images("digits-handwritten", split), (times, 1, 1, 1))
        stroke = np.broadcast_to(digits, (*digits.shape[:3], 3)) > 250
        patches = bundled.blend(np.zeros_like(digits), split)
        blended = images("digits-blended", split)
        assert np.array_equal(blended[:, :4], patches[:, :4])
        assert np.abs(blended[stroke].astype(int) - (255 - patches[stroke].astype(int))).max() <= 5


@pytest.mark.parametrize(("name", "inside", "outside"), [("perlin-dark", 0.5, 0.1), ("perlin-bright", 0.7, 0.3)])
def test_shapes_have_the_brightness_of_their_card(name, inside, outside):
    assert f"mean {inside} inside and {outside} outside" in registry.load("datasets", name).card.notes
    value, mask = images(name, "train")[..., 0] / 255, labels(name, "train").astype(bool)
    # Medians, because clipping at black moves the mean.
    assert np.median(value[mask]) == pytest.approx(inside, abs=0.01)
    assert np.median(value[~mask]) == pytest.approx(outside, abs=0.01)
    shares = mask.mean(axis=(1, 2))
    assert 0.299 < shares.min() < 0.32 < 0.48 < shares.max() < 0.501
    assert set(np.unique(labels(name, "train"))) == {0, 1}


def test_the_two_shape_sets_share_no_mask():
    dark, bright = ({mask.tobytes() for mask in labels(name, "train")} for name in SHAPES)
    assert not dark & bright
