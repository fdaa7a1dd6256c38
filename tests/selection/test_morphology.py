import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from acclimate.errors import UsageError
from acclimate.selection.components import objects
from acclimate.selection.morphology import MORPHOLOGY, _kolmogorov_smirnov, morphology

EIGHT = np.ones((3, 3))


def discs(count: int, radius: float, seed: int, side: int = 96) -> torch.Tensor:
    """A mask with discs on a jittered grid, so that they do not touch."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    places = [(16 + 32 * i, 16 + 32 * j) for i in range(side // 32) for j in range(side // 32)]
    mask = np.zeros((side, side), np.int16)
    for i in rng.permutation(len(places))[:count]:
        cy, cx = places[i] + rng.uniform(-2, 2, 2)
        mask[np.hypot(y - cy, x - cx) < radius * rng.uniform(0.8, 1.2)] = 1
    return torch.from_numpy(mask)


def set_of(count: int, radius: float, seed: int = 0) -> list[torch.Tensor]:
    return [discs(count, radius, 100 * seed + i) for i in range(12)]


def of(picture: str, k: int = 1) -> list[tuple[float, ...]]:
    """The objects of class k of a map that is drawn in digits; '-' is ignored."""
    labels = np.array([[-1 if c == "-" else int(c) for c in line] for line in picture.split()], np.int16)
    found = objects(labels)
    return sorted(tuple(map(float, row)) for row in zip(*found) if row[0] == k)


def test_objects_by_hand():
    (square,) = of("0000 0110 0110 0000")
    assert square == pytest.approx((1, 4, 1, 1, 0))
    (bar,) = of("11111")
    assert bar == pytest.approx((1, 5, 16 * 5 / 12**2, 1 / 5, 0))  # as wide as long, in deviations: 1/12 over 25/12
    (ring,) = of("111 101 111")
    assert ring == pytest.approx((1, 8, 16 * 8 / 16**2, 1, 1))
    assert len(of("100 010 001")) == 1  # corners connect
    (diamond,) = of("010 101 010")
    assert diamond[4] == 1
    assert len(of("1-1")) == 2
    assert of("1-1", -1) == []


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("classes", [2, 4])
def test_objects_equal_those_of_scipy(density, classes):
    rng = np.random.default_rng(classes)
    labels = np.where(rng.random((41, 57)) < density, rng.integers(0, classes, (41, 57)), 0).astype(np.int16)
    labels[rng.random(labels.shape) < 0.05] = -1
    labels = ndimage.zoom(labels, 2, order=0)[:-1]
    found = objects(labels)
    for k in range(classes):
        parts, count = ndimage.label(labels == k, EIGHT)
        area = ndimage.sum_labels(labels == k, parts, range(1, count + 1))
        padded = np.pad(parts, 1)
        perimeter = [
            sum(int(((padded == i) & (np.roll(padded, 1, axis) != i)).sum()) * 2 for axis in (0, 1))
            for i in range(1, count + 1)
        ]
        holes = [ndimage.label(np.pad(parts != i, 1, constant_values=True))[1] - 1 for i in range(1, count + 1)]
        mine = found.label == k
        expected = sorted(zip(area, 16 * area / np.square(perimeter), holes))
        got = sorted(zip(found.area[mine], found.compactness[mine], found.holes[mine]))
        assert np.allclose(got, expected)


def test_roundness_is_the_ratio_of_principal_axes():
    y, x = np.mgrid[:80, :80] - 39.5
    for angle in (0.0, 0.4, 2.0):
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        found = objects(((u / 30) ** 2 + (v / 12) ** 2 < 1).astype(np.int16))
        assert found.roundness[found.label == 1] == pytest.approx([12 / 30], rel=0.03)


def test_kolmogorov_smirnov_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 20, 50), rng.integers(3, 25, 70)
    assert _kolmogorov_smirnov(a, b, np.ones(50), np.ones(70)) == pytest.approx(stats.ks_2samp(a, b).statistic)
    weights = rng.integers(1, 5, 50)  # a weight of w is w times the same value
    expected = stats.ks_2samp(np.repeat(a, weights), b).statistic
    assert _kolmogorov_smirnov(a, b, weights, np.ones(70)) == pytest.approx(expected)


def test_by_hand():
    """One 2 x 2 square in 16 pixels, against two single pixels in 16.

    Share 4/16 and 2/16: 1/3; number 1 and 2: 1/3; no holes; areas 4 and 1: 1 and 1; all are squares: 0 and 0.
    """
    square, dots = torch.zeros(4, 4).short(), torch.zeros(4, 4).short()
    square[1:3, 1:3] = 1
    dots[0, 0] = dots[3, 3] = 1
    assert morphology([square], [dots], 2) == pytest.approx((1 / 3 + 1 / 3 + 0 + 1 + 1 + 0 + 0) / 7)
    assert morphology([dots], [square], 2) == pytest.approx((1 / 3 + 1 / 3 + 0 + 1 + 1 + 0 + 0) / 7)


def test_equal_masks_are_at_distance_nothing():
    masks = set_of(5, 8)
    assert morphology(masks, masks, 2) == 0
    assert morphology(masks, [mask.T for mask in masks], 2) == pytest.approx(0)
    assert morphology([mask.roll(1, 0) for mask in masks], masks, 2) == pytest.approx(0)
    assert morphology(masks * 2, masks, 2) == pytest.approx(0)  # the number of images cancels


def test_kinds_of_damage_are_seen():
    source, good = set_of(5, 8), morphology(set_of(5, 8, 1), set_of(5, 8), 2)
    rng = np.random.default_rng(0)
    salt = [torch.where(torch.from_numpy(rng.random((96, 96)) < 0.02), 1 - mask, mask) for mask in set_of(5, 8, 1)]
    frayed = [
        torch.from_numpy(
            (ndimage.gaussian_filter(mask.double().numpy(), 2) + 0.2 * rng.standard_normal((96, 96)) > 0.5) * 1
        )
        for mask in set_of(5, 8, 1)
    ]
    hollow = [
        mask - torch.from_numpy(ndimage.binary_erosion(mask.numpy(), iterations=4) * 1) for mask in set_of(5, 8, 1)
    ]
    assert good < 0.15
    for damaged in (salt, frayed, hollow, set_of(5, 5, 1), set_of(2, 8, 1)):
        assert morphology(damaged, source, 2) > good + 0.1


def test_a_class_that_one_domain_lacks_is_as_far_as_can_be():
    source, none = set_of(5, 8), [torch.zeros(96, 96).short()]
    assert morphology(none, source, 2) == 1
    assert morphology(source, none, 2) == 1
    assert morphology(none, none, 2) == 0
    assert morphology([torch.ones(96, 96).short()], source, 2) > 0.7


def test_many_classes_are_averaged_and_absent_ones_left_out():
    one, two = torch.zeros(4, 4).short(), torch.zeros(4, 4).short()
    one[1:3, 1:3] = 1
    two[1:3, 1:3] = 3
    assert morphology([one], [two], 5) == pytest.approx((0 + 1 + 1) / 3)  # of classes 0, 1 and 3


def test_ignored_pixels_do_not_count():
    """A frame of -1 in the source changes nothing of what is inside."""
    inner = discs(5, 8, 0)
    framed = torch.full((110, 120), -1, dtype=torch.int16)
    framed[7:103, 12:108] = inner
    assert morphology([inner], [framed], 2) == 0
    with pytest.raises(UsageError, match="every pixel of the source"):
        morphology([inner], [torch.full((4, 4), -1)], 2)


def test_lower_is_better_and_only_segmentation():
    assert MORPHOLOGY.gain(0.1) > MORPHOLOGY.gain(0.2)
    assert MORPHOLOGY.tasks == ("segmentation",)
    assert MORPHOLOGY.takes == ("masks_t", "masks_s", "classes")
