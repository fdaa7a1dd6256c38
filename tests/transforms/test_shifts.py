"""Shifts of domain: each against numbers worked out by hand, and what all of them promise."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from scipy import ndimage

from acclimate.errors import UsageError
from acclimate.transforms.shifts import FAMILIES, Shift, draw, shift

GEOMETRIC = [name for name, family in FAMILIES.items() if family.kind == "geometric"]
PHOTOMETRIC = [name for name, family in FAMILIES.items() if family.kind == "photometric"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shapes(count: int = 4, side: int = 48, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy colour images of a disc (1) and a bar (2) with some ignored pixels."""
    down, across = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    y = torch.zeros(count, side, side, dtype=torch.int64)
    for n in range(count):
        y[n][(down - 16 - n) ** 2 + (across - 18 + n) ** 2 < 90] = 1
        y[n][(down > 34) & (down < 42)] = 2
        y[n, :2] = -1
    values = torch.tensor([[0.3, 0.35, 0.4], [0.7, 0.5, 0.6], [0.5, 0.7, 0.4]])
    x = values[y.clamp_min(0)].permute(0, 3, 1, 2) + 0.03 * torch.randn(count, 3, side, side, generator=seeded())
    return x[:, :channels].clamp(0, 1).contiguous(), y


def one(x: torch.Tensor, y: torch.Tensor, family: str, amount: float, seed: int = 0):
    return shift(x, y, [Shift(family=family, amount=amount)], seed)


def changed(x: torch.Tensor, family: str, amount: float) -> torch.Tensor:
    """What a photometric shift makes of images."""
    return one(x, torch.zeros(len(x), dtype=torch.int64), family, amount)[0]


def amounts(family: str) -> tuple[float, ...]:
    return (-1, -0.3, 0.3, 1) if FAMILIES[family].signed else (0.3, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_amount_zero_changes_no_bit(family):
    x, y = shapes()
    for labels in (y, torch.arange(4)):
        again, labels_again = one(x, labels, family, 0.0)
        assert torch.equal(again, x)
        assert torch.equal(labels_again, labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_stay_images_and_labels_stay_labels(family):
    x, y = shapes()
    before = x.clone(), y.clone()
    for amount in amounts(family):
        moved, labels = one(x, y, family, amount)
        assert moved.shape == x.shape
        assert labels.shape == y.shape
        assert moved.dtype == x.dtype
        assert labels.dtype == y.dtype
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert set(labels.unique().tolist()) <= {-1, 0, 1, 2}
        assert not torch.equal(moved, x)
        assert torch.equal(labels, y) == (family in PHOTOMETRIC)
        assert moved.std() > 0.02  # still an image
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_decides_and_image_i_stands_alone(family):
    x, y = shapes()
    torch.manual_seed(1)
    first = one(x, y, family, 0.8, seed=3)
    torch.manual_seed(2)
    second = one(x, y, family, 0.8, seed=3)
    fewer = one(x[:2], y[:2], family, 0.8, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    for all_four, two in zip(first, fewer):
        torch.testing.assert_close(all_four[:2], two, atol=1e-6, rtol=0)
    other = one(x, y, family, 0.8, seed=4)[0]
    drawn = family in ("noise", "texture", "affine", "elastic", "crop", "proportion")
    assert torch.equal(first[0], other) != drawn


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.signed])
def test_families_without_a_sign_use_the_absolute_value(family):
    x, y = shapes()
    assert all(torch.equal(a, b) for a, b in zip(one(x, y, family, 0.6), one(x, y, family, -0.6)))


@pytest.mark.parametrize("family", [f for f in PHOTOMETRIC if f != "inversion"])
def test_more_is_more(family):
    x, _ = shapes()
    for sign in (-1, 1) if FAMILIES[family].signed else (1,):
        far = [(changed(x, family, sign * a) - x).abs().mean().item() for a in (0.2, 0.5, 1.0)]
        assert far[0] > 0.001
        assert far == sorted(far)
        assert far[2] > 1.5 * far[0]


def test_shifts_are_applied_in_order_and_clamped_between():
    x, y = torch.full((1, 1, 2, 2), 0.8), torch.zeros(1, dtype=torch.int64)
    up, down = Shift(family="brightness", amount=1), Shift(family="brightness", amount=-1)
    assert shift(x, y, [up, down], 0)[0].mean().item() == pytest.approx(0.6)  # 0.8 + 0.4 -> 1, - 0.4
    assert shift(x, y, [down, up], 0)[0].mean().item() == pytest.approx(0.8)
    assert torch.equal(shift(x, y, [], 0)[0], x)


def test_two_noises_in_a_row_differ():
    x, y = torch.full((1, 1, 64, 64), 0.5), torch.zeros(1, dtype=torch.int64)
    once = one(x, y, "noise", 0.3)[0] - x
    twice = shift(x, y, [Shift(family="noise", amount=0.3)] * 2, 0)[0] - x
    assert (twice.std() / once.std()).item() == pytest.approx(math.sqrt(2), rel=0.05)


GREY = torch.tensor([0.3, 0.5, 0.5, 0.7]).view(1, 1, 2, 2)  # mean 0.5


@pytest.mark.parametrize(
    ("family", "amount", "expected"),
    [
        ("brightness", 1, [0.7, 0.9, 0.9, 1.0]),
        ("brightness", -0.5, [0.1, 0.3, 0.3, 0.5]),
        ("contrast", 1, [0.15, 0.5, 0.5, 0.85]),
        ("contrast", -1, [0.45, 0.5, 0.5, 0.55]),
        ("gamma", 1, [0.3**3, 0.125, 0.125, 0.343]),
        ("gamma", -1, [0.3 ** (1 / 3), 0.5 ** (1 / 3), 0.5 ** (1 / 3), 0.7 ** (1 / 3)]),
        ("inversion", 1, [0.7, 0.5, 0.5, 0.3]),
        ("inversion", 0.75, [0.6, 0.5, 0.5, 0.4]),
        ("vignette", 1, [0.06, 0.1, 0.1, 0.14]),  # four corners
        ("vignette", -0.5, [0.42, 0.7, 0.7, 0.98]),
    ],
)
def test_effects_worked_out_by_hand(family, amount, expected):
    assert changed(GREY, family, amount).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_vignette_leaves_the_centre():
    x = torch.full((1, 1, 5, 7), 0.5)
    assert changed(x, "vignette", 1)[0, 0, 2].tolist() == pytest.approx(
        [0.5 * (1 - 0.4 * (i / 3) ** 2) for i in range(-3, 4)]
    )


def test_noise_has_the_stated_deviation_and_a_negative_amount_takes_it_away():
    x = torch.full((2, 1, 96, 96), 0.5)
    noisy = changed(x, "noise", 0.3)
    assert (noisy - x).std().item() == pytest.approx(0.105, rel=0.03)
    median = torch.from_numpy(ndimage.median_filter(noisy[0, 0].numpy(), size=3, mode="nearest"))
    torch.testing.assert_close(changed(noisy, "noise", -1)[0, 0], median)
    torch.testing.assert_close(changed(noisy, "noise", -0.5)[0, 0], (median + noisy[0, 0]) / 2)


def test_blur_is_a_gaussian_of_a_share_of_the_side():
    x, _ = shapes(side=64)
    oracle = ndimage.gaussian_filter(x[0, 0].numpy(), 3, mode="nearest", truncate=3)
    torch.testing.assert_close(changed(x, "blur", 1)[0, 0], torch.from_numpy(oracle), atol=1e-5, rtol=0)
    oracle = ndimage.gaussian_filter(x[0, 0].numpy(), 1.5, mode="nearest", radius=5)
    torch.testing.assert_close(changed(x, "blur", 0.5)[0, 0], torch.from_numpy(oracle), atol=1e-5, rtol=0)


def test_texture_is_smooth_and_reaches_three_tenths():
    x = torch.full((3, 2, 64, 64), 0.5)
    field = changed(x, "texture", 1) - x
    assert field.abs().amax((1, 2, 3)).tolist() == pytest.approx([0.3] * 3, abs=1e-5)
    assert field.mean((1, 2, 3)).abs().max() < 1e-5
    assert field.diff(dim=-1).std() < 0.5 * field.std()  # of white noise it would be 1.4 times
    assert torch.equal(field[:, 0], field[:, 1])


def test_hue_and_saturation_move_colours_alone():
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 2, 2).contiguous()
    turned = changed(red, "hue", 1)[0, :, 0, 0]
    assert turned.tolist() == pytest.approx([0.2, 0.8, 0.8], abs=1e-4)  # half the wheel from red is cyan
    assert changed(red, "saturation", -1)[0, :, 0, 0].tolist() == pytest.approx([0.8] * 3, abs=1e-4)
    # In HSV: saturation 0.2 -> 0.6 at value 0.8.
    pale = torch.tensor([0.8, 0.64, 0.64]).view(1, 3, 1, 1).expand(1, 3, 2, 2).contiguous()
    assert changed(pale, "saturation", 1)[0, :, 0, 0].tolist() == pytest.approx([0.8, 0.32, 0.32], abs=1e-4)
    for family in ("hue", "saturation"):
        assert torch.equal(changed(GREY, family, 1), GREY)


@pytest.mark.parametrize("family", [*GEOMETRIC, "proportion"])
@pytest.mark.parametrize("size", [(40, 40), (32, 56)])
def test_images_and_label_maps_move_together(family, size):
    """Smooth images that say where each pixel came from, and label maps that are their rounded values."""
    down, across = torch.meshgrid(*(torch.arange(s, dtype=torch.float64) for s in size), indexing="ij")
    x = torch.stack([down, across])[None].expand(6, 2, *size) / 64
    moved = []
    for plane in (down, across):
        labels = plane.long()[None].expand(6, *size)
        for amount in amounts(family):
            images, after = one(x.contiguous(), labels, family, amount)
            image = images[:, 0 if plane is down else 1] * 64
            known = after >= 0
            assert (image - after)[known].abs().max() <= 0.501  # the nearest pixel is at most half a pixel away
            assert known.float().mean() > 0.2
            moved.append(not torch.equal(after, labels))
    assert any(moved)


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_stay_when_images_move(family):
    x, _ = shapes()
    labels = torch.tensor([2, -1, 0, 1])
    _, after = one(x, labels, family, 0.9)
    assert torch.equal(after, labels) or family == "proportion"


def test_scale_doubles_and_halves():
    y = torch.zeros(1, 48, 48, dtype=torch.int64)
    y[:, 16:28, 16:32] = 1
    x = torch.rand(1, 1, 48, 48, generator=seeded())
    for amount, factor in ((1, 4), (-1, 1 / 4), (0.5, 2)):
        _, labels = one(x, y, "scale", amount)
        assert (labels == 1).sum().item() == pytest.approx(factor * 12 * 16, rel=0.05)
    small_image, small_labels = one(x, y, "scale", -1)
    assert (small_labels[0, :12] == -1).all()  # a quarter of the side on each side
    assert (small_labels[0, :, :12] == -1).all()
    assert (small_labels[0, 12:36, 12:36] >= 0).all()
    torch.testing.assert_close(small_image[0, :, 12:36, 12:36], torch.nn.functional.avg_pool2d(x, 2)[0])
    torch.testing.assert_close(small_image[0, 0, 12:36, :12], small_image[0, 0, 12:36, 12:24].flip(-1))


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_affine_turns_by_forty_five_degrees(size):
    y = torch.zeros(200, *size, dtype=torch.int64)
    middle = size[0] // 2
    y[:, middle - 2 : middle + 2, size[1] // 2 - 14 : size[1] // 2 + 14] = 1
    x = y[:, None].float()
    down, across = torch.meshgrid(*(torch.arange(s, dtype=torch.float32) for s in size), indexing="ij")
    for amount in (-1, 0.5, 1):
        _, after = one(x, y, "affine", amount)
        # Neither turn nor shear changes an area.
        assert (after == 1).sum().item() == pytest.approx((y == 1).sum().item(), rel=0.03)
        angles, places = [], []
        for mask in after == 1:
            v, u = down[mask], across[mask]
            places.append([(u.mean() - size[1] / 2).item(), (v.mean() - size[0] / 2).item()])
            u, v = u - u.mean(), v - v.mean()
            angles.append(math.degrees(0.5 * math.atan2(2 * (u * v).mean(), (u * u - v * v).mean())))
        angle = torch.tensor(angles)
        assert abs(angle.mean().abs().item() - 45 * abs(amount)) < 3
        assert angle.std() < 12 * abs(amount)
        assert (angle.mean() < 0) == (amount > 0)
        reach = torch.tensor(places).abs().amax(0) / max(size)
        assert (reach < 0.15 * abs(amount) + 0.02).all()
        assert (reach > 0.06 * abs(amount)).all()


def test_elastic_bends_by_six_per_cent_and_does_not_fold():
    side = 64
    down, across = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    x = (torch.stack([down, across]) / side).expand(20, 2, side, side).contiguous()
    after = one(x, torch.zeros(20, dtype=torch.int64), "elastic", 1)[0]
    inner = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    far = (after - x)[inner].norm(dim=1)
    assert far.max() <= 0.0601
    assert far.max() > 0.057
    (dd, da), (ad, aa) = ((p.diff(dim=1)[:, :, 1:], p.diff(dim=2)[:, 1:]) for p in after[inner].unbind(1))
    assert (dd * aa - da * ad > 0).double().mean() > 0.999
    half = one(x, torch.zeros(20, dtype=torch.int64), "elastic", 0.5)[0]
    torch.testing.assert_close(2 * (half - x)[inner], (after - x)[inner], atol=1e-9, rtol=0)


def test_crop_shows_a_window_of_the_stated_share():
    side = 50
    x = (torch.arange(side, dtype=torch.float64) / side).expand(30, 1, side, side).contiguous()
    for amount, share in ((0.5, 0.7), (1, 0.4)):
        after = one(x, torch.zeros(30, dtype=torch.int64), "crop", amount)[0]
        row = after[:, 0, 0] * side
        slope = (row[:, -5] - row[:, 4]) / (side - 9)
        assert slope.tolist() == pytest.approx([share] * 30, rel=0.02)
        assert row.min() >= 0
        assert row.max() <= side - 1
        assert row.mean(1).std() > 0.1 * side * (1 - share)
    _, y = shapes()
    assert (one(shapes()[0], torch.zeros_like(y), "crop", 1)[1] == 0).all()


def test_proportion_of_classes_in_a_classification_set():
    y = torch.arange(600) % 3
    x = torch.arange(600.0).view(600, 1, 1, 1) / 600
    for amount, expected in ((1, [20, 64, 200]), (-1, [200, 64, 20]), (0.5, [64, 113, 200])):
        images, labels = one(x, y, "proportion", amount)
        # 200 times 10^-|a|, 10^-|a|/2 and 1, rounded up
        assert labels.bincount().tolist() == expected
        kept = (images.flatten() * 600).round().long()
        assert torch.equal(y[kept], labels)
        assert (kept.diff() > 0).all()  # the order stays
    weak, strong = (set(one(x, y, "proportion", a)[0].flatten().tolist()) for a in (0.3, 0.9))
    assert strong < weak
    assert one(x, -torch.ones_like(y), "proportion", 1)[1].shape == y.shape


def test_proportion_of_classes_in_label_maps():
    # Bright foreground in one corner of each image; three fifths of 20 are windows of 12 x 12 at 0, 3, 5, 8.
    y = torch.zeros(400, 20, 20, dtype=torch.int64)
    y[:, :8, :8] = 1
    x = y[:, None].float()

    def share(amount: float) -> torch.Tensor:
        images, labels = one(x, y, "proportion", amount)
        assert torch.equal(images[:, 0].long(), labels)
        return labels.float().mean((1, 2))

    # A window at (0, 0) holds 64 of 144, shown as 14 x 14 of 20 x 20 pixels; one at (8, 8) holds none.
    assert (share(1) == 196 / 400).all()
    assert (share(-1) == 0).all()
    half, slightly = share(0.5), share(0.01)
    assert (half == 196 / 400).float().mean().item() == pytest.approx(0.5 + 0.5 / 16, abs=0.08)
    assert share(-0.5).mean() < slightly.mean() < half.mean()
    assert slightly.unique().numel() > 5


def test_ignored_pixels_do_not_count_as_background():
    y = torch.zeros(1, 20, 20, dtype=torch.int64)
    y[:, 8:, 8:] = -1
    y[:, 19, 19] = 1  # all that is labelled there, but a single pixel
    y[:, :10, :10] = 1
    y[:, ::2, :8] = 0
    _, labels = one(y[:, None].clamp_min(0).float(), y, "proportion", 1)
    assert (labels == 1).sum() / (labels >= 0).sum() == 1


def test_draw_is_balanced_spread_and_reproducible():
    domains = draw(400, seed=5, channels=3)
    assert domains == draw(400, seed=5, channels=3)
    assert domains != draw(400, seed=6, channels=3)
    assert Counter(map(len, domains)) == {1: 300, 2: 100}
    assert all(len({s.family for s in d}) == len(d) for d in domains)
    shifts = [s for d in domains for s in d]
    counts = Counter(s.family for s in shifts)
    assert set(counts) == set(FAMILIES)
    assert max(counts.values()) - min(counts.values()) <= 1
    for name, family in FAMILIES.items():
        severities = sorted(s.amount for s in shifts if s.family == name)
        assert all(family.least <= abs(a) <= 1 for a in severities)
        assert family.least >= 0.15
        assert max(severities) > 0.9
        if family.signed:
            assert abs(2 * sum(a > 0 for a in severities) - len(severities)) <= 1
            assert min(severities) < -0.9
        else:
            assert min(severities) < family.least + 0.1
    assert len({len(d) for d in domains[:40]}) == 2  # compounds are not all at one end


def test_draw_leaves_colour_out_for_grey_images():
    assert {s.family for d in draw(60, 0) for s in d} == set(FAMILIES) - {"hue", "saturation"}
    few = draw(8, 0, families=["hue", "blur"], compound=0.5)
    assert {s.family for d in few for s in d} == {"blur"}
    assert all(len(d) == 1 for d in few)  # of one family there are no two different ones
    assert len(draw(1, 0)) == 1
    assert draw(0, 0) == []


def test_compounds_of_two_families_differ():
    three = draw(90, 1, families=["blur", "noise", "gamma"], compound=0.5)
    assert all(d[0].family != d[1].family for d in three if len(d) == 2)


def test_every_drawn_domain_can_be_made():
    x, y = shapes(2, 24)
    for domain in draw(40, 3, channels=3):
        images, labels = shift(x, y, domain, 0)
        assert images.isfinite().all()
        assert set(labels.unique().tolist()) <= {-1, 0, 1, 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_small_and_double_images(family):
    for dtype, size in ((torch.float64, (28, 20)), (torch.float32, (1, 2)), (torch.float32, (3, 3))):
        x = torch.rand(2, 3, *size, dtype=dtype, generator=seeded())
        for amount in (-1, 1):
            images, _ = one(x, torch.zeros(2, *size, dtype=torch.int64), family, amount)
            assert images.dtype == dtype
            assert images.isfinite().all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Shift(family="brightnes", amount=0.5), "did you mean 'brightness'"),
        (lambda: Shift(family="blur", amount=1.5), "less than or equal to 1"),
        (lambda: draw(3, 0, families=["blurr"]), "did you mean 'blur'"),
        (lambda: draw(3, 0, families=["hue"]), "at least one family"),
        (lambda: draw(3, 0, compound=2), "0..1"),
        (lambda: shift(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), [], 0), "float"),
        (lambda: shift(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 5, dtype=torch.int64), [], 0), "labels"),
        (lambda: shift(torch.zeros(2, 3, 4, 4), torch.zeros(2), [], 0), "labels"),
        (lambda: shift(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.uint8), [], 0), "labels"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(UsageError, match=words):
        call()
