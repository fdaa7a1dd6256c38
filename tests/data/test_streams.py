"""Batch k, augmentation included, is a function of (seed, stream, k) and of nothing else."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import TASKS, small
from toys import PREPROCESS

from acclimate.data.domain import IGNORE, Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Batch, Column, Stream
from acclimate.engine.checkpoint import write_tensors
from acclimate.errors import DataError, UsageError
from acclimate.transforms.augment import Geometry, Photometry

STRONG = Photometry(brightness=0.2, contrast=0.4, gamma=0.3, saturation=0.4, hue=0.1, noise=0.1)
ALL = Geometry(flips="dihedral", rotate=30, scale=(0.7, 1.3), shift=0.2)


def stream(domain: Domain, task: str, **more: Any) -> Stream:
    preprocess = more.pop(
        "preprocess", PREPROCESS[task].replace(geometry=ALL, views={"weak": Photometry(), "strong": STRONG})
    )
    return Stream(domain, more.pop("name", "target"), task, preprocess, **{"batch": 6, "seed": 3, **more})


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.index, b.index)
        and torch.equal(a.y, b.y)
        and a.views.keys() == b.views.keys()
        and all(torch.equal(a.views[v], b.views[v]) for v in a.views)
        and a.columns.keys() == b.columns.keys()
        and all(torch.equal(a.columns[c], b.columns[c]) for c in a.columns)
    )


VIEWS = ("weak", "strong")


@pytest.mark.parametrize("task", TASKS)
def test_batch_is_a_pure_function_of_its_number(task: str) -> None:
    domain = small(task)[1]
    one, two = stream(domain, task), stream(domain, task)
    torch.manual_seed(5)
    forwards = [one.batch(k, VIEWS) for k in range(9)]
    torch.manual_seed(6)
    backwards = [two.batch(k, VIEWS) for k in reversed(range(9))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards))
    assert not same(forwards[0], stream(domain, task, seed=4).batch(0, VIEWS))
    other = stream(domain, task, name="source")
    assert not same(forwards[0], other.batch(0, VIEWS))
    assert one.indices(0).tolist() != other.indices(0).tolist()
    assert all(not same(a, b) for a, b in itertools.pairwise(forwards))


@pytest.mark.parametrize("task", TASKS)
def test_views_share_geometry_and_do_not_disturb_each_other(task: str) -> None:
    one = stream(small(task)[1], task)
    both, weak = one.batch(2, VIEWS), one.batch(2, ("weak",))
    assert torch.equal(both.views["weak"], weak.x)
    assert torch.equal(both.x, both.views["weak"])
    plain = stream(
        small(task)[1], task, preprocess=one.preprocess.replace(views={"weak": Photometry(), "strong": Photometry()})
    )
    again = plain.batch(2, VIEWS)
    assert torch.equal(again.views["weak"], again.views["strong"])
    assert not torch.equal(both.views["weak"], both.views["strong"])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_decoding_ahead_changes_nothing(task: str, workers: int) -> None:
    domain = small(task)[1]
    resident, lazy = stream(domain, task), stream(domain, task, memory_budget=1e-12, workers=workers)
    assert (resident.resident, lazy.resident) == (True, False)
    for k in (0, 1, 2, 7, 3, 4):
        assert same(resident.batch(k, VIEWS), lazy.batch(k, VIEWS))
    for a, b in zip(resident.sweep(), lazy.sweep(), strict=True):
        assert same(a, b)


def test_longer_source_does_not_reorder_the_target() -> None:
    source, target, _ = small("classification")
    longer = source.subset([*range(len(source)), *range(7)])
    both = [stream(d, "classification", name="source") for d in (source, longer)]
    assert both[0].indices(0).tolist() != both[1].indices(0).tolist()
    first = stream(target, "classification")
    before = [first.batch(k) for k in range(5)]
    for k in range(5):
        both[1].batch(k)
        assert same(before[k], stream(target, "classification").batch(k))


@given(count=st.integers(1, 40), batch=st.integers(1, 17))
@settings(max_examples=40, deadline=None)
def test_each_epoch_is_a_permutation(count: int, batch: int) -> None:
    domain = small("classification")[0].subset(range(count))
    one = stream(domain, "classification", batch=batch)
    drawn = np.concatenate([one.indices(k) for k in range(-(-3 * count // batch))])
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert count < 8 or not np.array_equal(drawn[:count], drawn[count : 2 * count])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_rows_make_up_the_global_batch(task: str, world: int) -> None:
    domain = small(task)[1]
    whole = stream(domain, task).batch(4, VIEWS)
    parts = [stream(domain, task, rank=rank, world=world).batch(4, VIEWS) for rank in range(world)]
    assert torch.equal(torch.cat([p.index for p in parts]), whole.index)
    assert torch.equal(torch.cat([p.y for p in parts]), whole.y)
    for view in VIEWS:
        torch.testing.assert_close(torch.cat([p.views[view] for p in parts]), whole.views[view], rtol=0, atol=1e-5)


def test_batch_that_the_processes_do_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        stream(small("classification")[0], "classification", world=4)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("task", TASKS)
def test_sweep_covers_every_image_exactly_once(task: str, world: int) -> None:
    domain = small(task)[1]
    seen = [
        i for r in range(world) for b in stream(domain, task, rank=r, world=world).sweep() for i in b.index.tolist()
    ]
    assert sorted(seen) == list(range(len(domain)))


def test_sweep_shows_whole_images_as_they_are() -> None:
    domain = small("segmentation")[1]
    for batch in stream(domain, "segmentation").sweep():
        expected = torch.stack([torch.from_numpy(domain.images[i]) for i in batch.index.tolist()]).permute(0, 3, 1, 2)
        torch.testing.assert_close(batch.x, expected / 255 * 2 - 1)
        truth = torch.stack([torch.from_numpy(domain.labels[i].astype(int)) for i in batch.index.tolist()])
        assert torch.equal(batch.y, truth)
    assert not next(stream(domain.unlabelled(), "segmentation").sweep()).y.numel()


# -- values -----------------------------------------------------------------------------------------------------------


def plain(images: list[np.ndarray], labels: list[Any] | None, task: str = "segmentation", classes: int = 3) -> Domain:
    names = [f"image-{i}.png" for i in range(len(images))]
    return Domain("plain", task, tuple("abcdefghijklmnopqrstuvwxyz"[:classes]), images, labels, names)


def test_normalisation_is_that_of_its_formula() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    for mean, std in ((0.5, 0.5), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))):
        preprocess = Preprocess(size=(5, 4), mean=mean, std=std)
        x = Stream(plain([image], [0], "classification"), "s", "classification", preprocess, batch=1).batch(0).x
        expected = (image / 255 - np.array(mean)) / np.array(std)
        np.testing.assert_allclose(x[0].permute(1, 2, 0), expected, atol=1e-6)
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_mixed_channels_and_sizes_share_a_batch() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, c), np.uint8) for size, c in (((20, 9), 1), ((12, 30), 3), ((8, 8), 1))]
    labels = [rng.integers(-1, 3, i.shape[:2]) for i in images]
    for channels in (1, 3):
        preprocess = Preprocess(crop=(8, 8), channels=channels)
        made = [
            Stream(plain(images, labels), "s", "segmentation", preprocess, batch=6, memory_budget=budget).batch(0)
            for budget in (1.0, 1e-12)
        ]
        assert made[0].x.shape == (6, channels, 8, 8)
        assert same(*made)
    with pytest.raises(UsageError, match="crop"):
        Stream(plain(images, labels), "s", "segmentation", Preprocess(), batch=6).batch(0)


def test_crop_larger_than_the_image_is_ignored_outside() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    label = np.ones((3, 4), np.int64)
    batch = Stream(
        plain([image], [label]), "s", "segmentation", Preprocess(crop=(5, 6), channels=1, mean=0.0, std=1.0), batch=1
    ).batch(0)
    assert torch.equal(batch.y[0, :3, :4], torch.ones(3, 4, dtype=torch.long))
    assert (batch.y[0, 3:] == IGNORE).all()
    assert (batch.y[0, :, 4:] == IGNORE).all()
    expected = np.pad(image[..., 0], ((0, 2), (0, 2)), mode="edge")
    np.testing.assert_allclose(batch.x[0, 0] * 255, expected, atol=1e-4)


def test_small_target_fills_a_large_batch() -> None:
    batch = stream(small("classification")[1].subset(range(3)), "classification", batch=8).batch(0)
    assert sorted(batch.index.tolist()[:6]) == [0, 0, 1, 1, 2, 2]


def test_labels_of_an_unlabelled_domain_are_never_asked_for() -> None:
    for task in TASKS:
        batch = stream(small(task)[1].unlabelled(), task).batch(0)
        assert batch.y.numel() == 0


def test_scaled_labels_stay_on_their_pixels() -> None:
    """At a third of the size each label is that of the middle pixel, where the image's own cell has its centre."""
    label = np.arange(81).reshape(9, 9) % 26
    image = np.zeros((9, 9, 1), np.uint8)
    preprocess = Preprocess(scale=1 / 3, channels=1)
    y = Stream(plain([image], [label], classes=26), "s", "segmentation", preprocess, batch=1).batch(0).y
    assert torch.equal(y[0], torch.from_numpy(label[1::3, 1::3]))


# -- geometry keeps everything aligned --------------------------------------------------------------------------------


@given(
    flips=st.sampled_from(["none", "horizontal", "dihedral"]),
    rotate=st.floats(0, 180),
    low=st.floats(0.5, 1.0),
    high=st.floats(1.0, 2.0),
    shift=st.floats(0, 0.5),
    size=st.sampled_from([(24, 24), (20, 32)]),
    k=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_labels_and_columns_move_with_their_image(
    flips: Any,
    rotate: float,
    low: float,
    high: float,
    shift: float,
    size: tuple[int, int],
    k: int,
    tmp_path_factory: Any,
) -> None:
    """The image paints each pixel's own position, smoothly; where a label is known it must name that position."""
    geometry = Geometry(flips=flips, rotate=rotate, scale=(low, high), shift=shift)
    height, width = size
    y, x = np.mgrid[:height, :width]
    image = np.stack([4 * y, 4 * x, np.full_like(x, 128)], -1).astype(np.uint8)
    one = Stream(
        plain([image] * 2, None),
        "s", "segmentation", Preprocess(mean=0.0, std=1.0, geometry=geometry), batch=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("column") / "c.safetensors"
    maps = {"row": torch.from_numpy(y).short(), "column": torch.from_numpy(x).short()}
    write_tensors(path, {f"{name}/{i}": value.clone() for name, value in maps.items() for i in range(2)})
    one.join({name: Column([path], name) for name in maps})
    batch = one.batch(k)
    known = batch.columns["row"] >= 0
    assert torch.equal(known, batch.columns["column"] >= 0)
    for channel, name in enumerate(maps):
        painted = batch.x[:, channel] * 255 / 4
        error = (painted - batch.columns[name])[known].abs()
        assert error.numel() == 0 or error.max() <= 0.51, name
    if not geometry.moves:
        assert known.all()


def test_borders_become_ignore() -> None:
    image, label = np.full((16, 16, 1), 200, np.uint8), np.zeros((16, 16), np.int64)
    preprocess = Preprocess(channels=1, mean=0.0, std=1.0, geometry=Geometry(rotate=45, scale=(0.5, 0.5)))
    batch = Stream(plain([image], [label]), "s", "segmentation", preprocess, batch=1).batch(0)
    assert set(batch.y.unique().tolist()) == {-1, 0}
    assert (batch.y == 0).float().mean() < 0.4  # half the side: a quarter of the area
    assert (batch.x > 0.7).all()  # the image itself is reflected, not black


# -- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1.0, 1e-12])
def test_columns_are_joined_by_index(budget: float, tmp_path: Path) -> None:
    domain = small("classification")[1]
    values = torch.arange(len(domain)) * 10
    write_tensors(tmp_path / "c.safetensors", {"tenfold": values})
    one = stream(domain, "classification", memory_budget=budget)
    one.join({"tenfold": Column([tmp_path / "c.safetensors"], "tenfold")})
    batch = one.batch(3)
    assert torch.equal(batch.columns["tenfold"], batch.index * 10)


def test_new_columns_replace_those_that_were_decoded_ahead(tmp_path: Path) -> None:
    """The batches that threads had prepared with the labels of the round before must not be used."""
    domain = small("classification")[1]
    one = stream(domain, "classification", memory_budget=1e-12, workers=2)
    for factor in (10, 20):
        path = tmp_path / f"{factor}.safetensors"
        write_tensors(path, {"multiple": torch.arange(len(domain)) * factor})
        one.join({"multiple": Column([path], "multiple")})
        for k in range(factor, factor + 3):
            batch = one.batch(k if factor == 10 else k - 7)
            assert torch.equal(batch.columns["multiple"], batch.index * factor)


# -- what is wrong names its file -------------------------------------------------------------------------------------


class Broken:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> np.ndarray:
        if i == 2:
            raise OSError("truncated")
        return np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize("budget", [1.0, 1e-12])
def test_unreadable_image_is_named(budget: float) -> None:
    domain = Domain("d", "classification", ("a", "b"), Broken(), [0, 1, 0, 1], [f"f{i}.png" for i in range(4)])  # type: ignore
    with pytest.raises(DataError, match=r"f2\.png cannot be read \(truncated\).*acclimate check"):
        Stream(domain, "s", "classification", Preprocess(size=(4, 4)), batch=4, memory_budget=budget).batch(0)


@pytest.mark.parametrize(
    ("image", "label", "text"),
    [
        (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), int), "uint8"),
        (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), int), "uint8"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), int), "mask has"),
        (np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 3), r"-1\.\.2, not 3"),
        (np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 255, np.uint8), "not 255"),
        (np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 65535, np.uint16), "65535"),
        (np.zeros((4, 4, 3), np.uint8), np.full((4, 4), -2), "not -2"),
    ],
)
@pytest.mark.parametrize("budget", [1.0, 1e-12])
def test_wrong_image_or_mask_is_named(image: Any, label: Any, text: str, budget: float) -> None:
    domain = plain([image], [label])
    with pytest.raises(DataError, match=rf"image-0\.png.*{text}"):
        Stream(domain, "s", "segmentation", Preprocess(), batch=1, memory_budget=budget, workers=0).batch(0)


def test_unknown_view_is_named() -> None:
    with pytest.raises(UsageError, match=r"'loud'.*weak, strong"):
        stream(small("classification")[0], "classification").batch(0, ("loud",))


@pytest.mark.parametrize("task", TASKS)
def test_fingerprint_sees_pixels_labels_and_names(task: str) -> None:
    domain = small(task)[0]
    images = np.array([np.array(domain.images[i]) for i in range(len(domain))])
    images[5].flat[7] ^= 1
    labels = np.array([np.array(domain.labels[i]) for i in range(len(domain))])  # type: ignore[index]
    labels[5] = 1 - labels[5].clip(0, 1)
    others = [
        dataclasses.replace(domain, images=images),
        dataclasses.replace(domain, labels=labels),
        domain.unlabelled(),
        dataclasses.replace(domain, names=[*domain.names[:-1], "other"]),
    ]
    prints = {stream(d, task).fingerprint() for d in [domain, *others]}
    assert len(prints) == 5
    assert stream(domain, task).fingerprint() in prints


# -- rare classes ------------------------------------------------------------------------------------------------------


def rare(count: int = 8, side: int = 32) -> Domain:
    """Grey images of which only the last holds class 1, in a corner of 8 x 8 pixels."""
    labels = np.zeros((count, side, side), np.int16)
    labels[-1, :8, :8] = 1
    images = np.full((count, side, side, 1), 90, np.uint8)
    return Domain("rare", "segmentation", ("ground", "spot"), images, labels, [f"rare-{i}" for i in range(count)])


def test_rare_classes_are_drawn_as_often_as_their_odds_say() -> None:
    one = Stream(rare(), "source", "segmentation", Preprocess(crop=(32, 32), channels=1), batch=50)
    share = 64 / (8 * 32 * 32)
    odds = np.exp((1 - np.array([1 - share, share])) / 0.5)
    expected = odds[1] / odds.sum()  # of class 1; only the last image holds it
    drawn = np.concatenate([one.batch(k, rare_classes=0.5).index.numpy() for k in range(40)])
    with_it = (drawn == 7).mean()  # and every image holds class 0
    assert with_it == pytest.approx(expected + (1 - expected) / 8, abs=0.04)


def test_crops_drawn_for_a_rare_class_hold_it() -> None:
    one = Stream(rare(), "source", "segmentation", Preprocess(crop=(16, 16), channels=1), batch=20)
    found = torch.cat([(one.batch(k, rare_classes=0.01).y == 1).flatten(1).any(1) for k in range(10)])
    in_turn = torch.cat([(one.batch(k).y == 1).flatten(1).any(1) for k in range(10)])
    assert found.float().mean() > 0.85 > 0.2 > in_turn.float().mean()


def test_rare_class_batches_are_the_same_for_any_number_of_threads_and_processes() -> None:
    def made(**how: Any) -> Stream:
        return Stream(rare(), "source", "segmentation", Preprocess(crop=(16, 16), channels=1), batch=4, **how)

    whole, threaded = made(), made(memory_budget=0, workers=2)
    halves = [made(rank=rank, world=2) for rank in range(2)]
    for k in range(3):
        expected = whole.batch(k, rare_classes=0.1)
        parts = [half.batch(k, rare_classes=0.1) for half in halves]
        assert torch.equal(expected.y, threaded.batch(k, rare_classes=0.1).y)
        assert torch.equal(expected.y, torch.cat([part.y for part in parts]))
        assert torch.equal(expected.index, torch.cat([part.index for part in parts]))
    assert whole.names(0, 0.1) == [f"rare-{i}" for i in whole.batch(0, rare_classes=0.1).index.tolist()]


def test_an_absent_class_and_a_low_temperature_do_no_harm() -> None:
    domain = dataclasses.replace(rare(), classes=("ground", "spot", "never seen"))
    one = Stream(domain, "source", "segmentation", Preprocess(crop=(16, 16), channels=1), batch=4)
    assert set(one.batch(0, rare_classes=0.0002).index.tolist()) == {7}


def test_masks_without_a_labelled_pixel_are_named() -> None:
    blank = dataclasses.replace(rare(), labels=np.full((8, 32, 32), -1, np.int16))
    one = Stream(blank, "source", "segmentation", Preprocess(crop=(16, 16), channels=1), batch=4)
    with pytest.raises(DataError, match="no pixel of its masks has a class"):
        one.batch(0, rare_classes=0.1)


def test_a_sweep_names_a_mask_of_another_size() -> None:
    wrong = dataclasses.replace(rare(), labels=np.zeros((8, 32, 31), np.int16))
    one = Stream(wrong, "source", "segmentation", Preprocess(channels=1), batch=4, memory_budget=0, workers=0)
    with pytest.raises(DataError, match=r"rare-\d: the mask has \(32, 31\) pixels"):
        next(one.sweep())


def test_rare_classes_need_label_maps() -> None:
    one = Stream(rare().unlabelled(), "target", "segmentation", Preprocess(crop=(16, 16), channels=1), batch=4)
    with pytest.raises(UsageError, match="rare-class sampling counts label maps"):
        one.batch(0, rare_classes=0.01)


# -- floating maps -----------------------------------------------------------------------------------------------------


def soft(tmp_path: Path, maps: torch.Tensor) -> list[Path]:
    path = tmp_path / "soft.safetensors"
    write_tensors(path, {f"soft/{i}": value.contiguous() for i, value in enumerate(maps)})
    return [path]


def test_soft_maps_are_cut_and_turned_with_their_image(tmp_path: Path) -> None:
    """A map that says of each pixel how bright it is still does so after any crop and flip."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 24, 20, 1), dtype=np.uint8)
    domain = Domain("noise", None, (), images, None, [str(i) for i in range(5)])
    preprocess = Preprocess(crop=(12, 12), channels=1, geometry=Geometry(flips="dihedral"))
    one = Stream(domain, "target", "segmentation", preprocess, batch=5)
    grey = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    one.join({"soft": Column(soft(tmp_path, torch.cat([grey, 1 - grey], 1)), "soft")})
    for k in range(3):
        batch = one.batch(k)
        torch.testing.assert_close(batch.columns["soft"][:, :1], (batch.x + 1) / 2, atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.columns["soft"].sum(1), torch.ones(5, 12, 12))


def test_smaller_soft_maps_are_brought_to_the_image(tmp_path: Path) -> None:
    """A ramp at half the resolution is the same ramp, but for its ends; and nothing is known outside a small image."""
    images = np.zeros((1, 16, 16, 1), np.uint8)
    domain = Domain("one", None, (), images, None, ["0"])
    one = Stream(domain, "target", "segmentation", Preprocess(crop=(16, 24), channels=1), batch=1)
    ramp = ((torch.arange(8) + 0.5) / 8).expand(1, 1, 8, 8).half()
    one.join({"soft": Column(soft(tmp_path, ramp), "soft")})
    found = one.batch(0).columns["soft"][0, 0]
    expected = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(found[:, 1:15], expected[1:15].expand(16, -1), atol=1e-3, rtol=0)
    assert found.shape == (16, 24)
    assert not found[:, 16:].any()


def test_each_domain_has_its_own_scale() -> None:
    preprocess = Preprocess(scale=(0.5, 0.25), channels=1)
    domain = rare(2)
    sizes = {
        name: Stream(domain, name, "segmentation", preprocess, batch=1).batch(0).x.shape[-1]
        for name in ("source", "target")
    }
    assert sizes == {"source": 16, "target": 8}
    assert Preprocess(scale=0.3).of("source").scale == 0.3
