"""Masks carry their images' names, and nothing is ever overwritten by accident."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate import networks, tasks
from acclimate.data import open_domain
from acclimate.data.catalog import lucchi
from acclimate.data.catalog.base import Dataset
from acclimate.data.decode import read_mask
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.exchange.predictions import drawn_over, mask_files, write_predictions
from acclimate.methods import find
from acclimate.plan import Plan


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = networks.build("unet", classes=3, channels=1, size=16, width=2, depth=1)
    method = find("source-only")(net, tasks.build("segmentation", ["a", "b", "c"]), Plan())
    return Model(method.eval(), Preprocess(crop=(16, 16), channels=1), torch.device("cpu"))


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)

    def picture(*size: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, size, np.uint8))

    picture(16, 20).save(folder / "one.png")
    picture(18, 16, 3).save(folder / "deep" / "two.jpg")
    first, *others = (picture(16, 16) for _ in range(3))
    first.save(folder / "stack.tif", save_all=True, append_images=others)
    return folder


def test_masks_have_the_images_names_and_sizes(model, images, tmp_path):
    domain = open_domain(images, task="unlabelled")
    told = []
    written = write_predictions(
        model, domain, tmp_path / "out", overlay=True, progress=lambda done, total: told.append((done, total))
    )
    out = tmp_path / "out"
    expected = {Path("one.png"), Path("deep/two.png"), Path("stack.tif")}
    expected |= {Path("overlay") / file for file in expected} | {Path("classes.json")}
    assert {path.relative_to(out) for path in out.rglob("*") if path.is_file()} == expected
    assert told[-1] == (5, 5)
    assert sum(written.shares.values()) == pytest.approx(1)
    assert json.loads((out / "classes.json").read_text()) == {"classes": ["a", "b", "c"]}
    labels = {i: logits[row].argmax(0) for index, logits in model.logits(domain) for row, i in enumerate(index)}
    for i, name in enumerate(domain.names):
        base, _, page = name.partition("#")
        file = {"one.png": "one.png", "deep/two.jpg": "deep/two.png", "stack.tif": "stack.tif"}[base]
        np.testing.assert_array_equal(read_mask(out / file, int(page or 0)), labels[i])
    assert Image.open(out / "overlay" / "one.png").size == (20, 16)


def test_existing_files_stay(model, images, tmp_path):
    domain = open_domain(images, task="unlabelled")
    out = tmp_path / "out"
    out.mkdir()
    (out / "one.png").write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        write_predictions(model, domain, out)
    assert [path.name for path in out.iterdir()] == ["one.png"]
    assert (out / "one.png").read_text() == "precious"
    write_predictions(model, domain, out, force=True)
    assert Image.open(out / "one.png").size == (20, 16)


@pytest.mark.parametrize("place", [".", "inside", "deep/../inside"])
def test_the_folder_of_the_images_stays_as_it_is(model, images, place):
    with pytest.raises(UsageError, match="stays as it is"):
        write_predictions(model, open_domain(images, task="unlabelled"), images / place, force=True)


def test_the_root_of_images_and_masks_stays_too(model, images, tmp_path):
    domain = open_domain(tmp_path, task="unlabelled")
    with pytest.raises(UsageError, match="stays as it is"):
        write_predictions(model, domain, tmp_path / "masks")


def test_names():
    assert mask_files(["images/a.png", "images/b/c.jpg"]) == [(Path("a.png"), None), (Path("b/c.png"), None)]
    assert mask_files(["a.png", "a.jpg"]) == [(Path("a.png.png"), None), (Path("a.jpg.png"), None)]
    assert mask_files(["s.tif#0", "s.tif#1"]) == [(Path("s.tif"), 0), (Path("s.tif"), 1)]
    assert mask_files(["odd#1.png"]) == [(Path("odd#1.png"), None)]
    assert mask_files(["a.png", "images/b.png"]) == [(Path("a.png"), None), (Path("images/b.png"), None)]
    with pytest.raises(DataError, match="leads out"):
        mask_files(["../a.png"])


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["a.png", "a.jpg", "a.png.png"], r"a\.png\.png: a\.png and a\.png\.png"),
        (["a.png", "b.png", "a.png"], r"a\.png: a\.png and a\.png"),
        (["s.tif#0", "s.tif#1", "s.tif#0"], r"s\.tif, page 0: s\.tif#0 and s\.tif#0"),
    ],
)
def test_two_images_never_become_one_file(names, file):
    with pytest.raises(DataError, match=f"two images would be written as {file}; rename one"):
        mask_files(names)


def test_an_overlay_never_replaces_a_mask(model, tmp_path):
    images = [np.zeros((16, 16, 1), np.uint8)] * 2
    domain = Domain("d", None, (), images, None, ["x.png", "overlay/x.png"])
    with pytest.raises(DataError, match=r"overlay/x\.png and x\.png; rename one"):
        write_predictions(model, domain, tmp_path / "out", overlay=True)
    write_predictions(model, domain, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def test_what_would_be_written_decides_not_only_where_it_begins(model, tmp_path):
    """The source lies below --out, and a file's own folders lead into it, directly or by a link."""
    rng = np.random.default_rng(0)
    for place in ("d/images/images", "real"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / place / "x.png")
    inner = open_domain(tmp_path / "d" / "images", task="unlabelled")
    deep = dataclasses.replace(inner, names=["images/x.png", "y/x.png"], images=[inner.images[0]] * 2)
    with pytest.raises(UsageError, match="stays as it is"):
        write_predictions(model, deep, tmp_path / "d", force=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "linked").symlink_to(tmp_path / "real")
    real = dataclasses.replace(open_domain(tmp_path / "real", task="unlabelled"), names=["linked/x.png"])
    with pytest.raises(UsageError, match="stays as it is"):
        write_predictions(model, real, tmp_path / "out", force=True)
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["x.png"]


def test_a_linked_image_is_not_replaced_where_it_lies(model, tmp_path):
    for place in ("store", "source"):
        (tmp_path / place).mkdir()
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(tmp_path / "store" / "x.png")
    (tmp_path / "source" / "x.png").symlink_to(tmp_path / "store" / "x.png")
    domain = open_domain(tmp_path / "source", task="unlabelled")
    with pytest.raises(UsageError, match="is one of the images"):
        write_predictions(model, domain, tmp_path / "store", force=True)
    assert np.asarray(Image.open(tmp_path / "store" / "x.png")).max() == 7


def test_joined_domains_and_catalog_sets_stay_as_they_are_too(model, tmp_path, monkeypatch):
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / part / f"{part}.png")
    joined = open_domain(tmp_path / "one", task="unlabelled").joined(open_domain(tmp_path / "two", task="unlabelled"))
    with pytest.raises(UsageError, match="stays as it is"):
        write_predictions(model, joined, tmp_path / "two" / "new")
    card = dataclasses.replace(lucchi.CARD, name="mine", splits=("all",))
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    mine = Dataset(card, lambda folder, split: Domain("m", None, (), [np.zeros((16, 16, 1), np.uint8)], None, ["a"]))
    with pytest.raises(UsageError, match="stays as it is"):
        write_predictions(model, mine.open(), tmp_path / "mine" / "predictions")


def test_an_overlay_leaves_the_first_class_alone():
    image = np.full((1, 2, 1), 100, np.uint8)
    drawn = drawn_over(image, np.array([[0, 1]]))
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[0, 1].tolist() == [152, 124, 60]
