"""What is written is a source again: same images and labels, in a folder of its own."""

from __future__ import annotations

import json

import folders
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from acclimate import networks, tasks
from acclimate.data import open_domain
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.exchange.translations import write_translations
from acclimate.methods import Method, find
from acclimate.plan import Plan


class Negative(Method):
    """Turns light into dark."""

    name = "negative"

    def translate(self, x: Tensor) -> Tensor:
        return -x


def model(task: str = "segmentation", kind: type[Method] = Negative) -> Model:
    torch.manual_seed(0)
    net = networks.build("unet", classes=2, channels=1, size=16, width=2, depth=1)
    if task == "classification":
        net = networks.build("dann-mnist", classes=3, channels=3, size=28)
    made = kind(net, tasks.build(task, ["ground", "shape", "ring"][: net.shapes["logits"][0]]), Plan())
    size = (16, 16) if task == "classification" else None
    return Model(made.eval(), Preprocess(size=size, channels=net.input_shape[0]), torch.device("cpu"))


def test_masks_and_images_go_together(tmp_path):
    source = open_domain(folders.masks(tmp_path / "source", 5))
    told = []
    out = tmp_path / "out"
    files = write_translations(model(), source, out, progress=lambda done, total: told.append((done, total)))
    again = open_domain(out)
    assert (again.task, again.classes, again.names) == ("segmentation", source.classes, source.names)
    for i in range(5):
        np.testing.assert_array_equal(again.images[i], 255 - np.asarray(source.images[i]))
        np.testing.assert_array_equal(again.labels[i], source.labels[i])
    assert files == [out / name for name in source.names]
    assert told[-1] == (5, 5)


def test_ignored_pixels_stack_pages_and_jpegs(tmp_path):
    rng = np.random.default_rng(0)
    names = ["images/a.jpg", "images/deep/s.tif#0", "images/deep/s.tif#1"]
    images = [rng.integers(0, 256, (16, 16, 1), np.uint8) for _ in names]
    labels = [rng.integers(-1, 2, (16, 16)).astype(np.int16) for _ in names]
    domain = Domain("d", "segmentation", ("ground", "shape"), images, labels, names)
    write_translations(model(), domain, tmp_path / "out")
    again = open_domain(tmp_path / "out")
    assert again.names == ["images/a.png", *names[1:]]
    for i in range(3):
        np.testing.assert_array_equal(again.images[i], 255 - images[i])
        np.testing.assert_array_equal(again.labels[i], labels[i])
    assert np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")).max() == 255
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == {"classes": ["ground", "shape"]}


@pytest.mark.parametrize("named", [True, False], ids=["class in the name", "class in the label only"])
def test_classes_stay_sub_folders(tmp_path, named):
    source = open_domain(folders.classes(tmp_path / "source", 9))
    if not named:
        source = Domain("d", "classification", source.classes, source.images, source.labels, [f"{i}" for i in range(9)])
    write_translations(model("classification"), source, tmp_path / "out")
    again = open_domain(tmp_path / "out")
    assert (again.task, again.classes) == ("classification", source.classes)
    np.testing.assert_array_equal(np.bincount(again.labels), np.bincount(source.labels))
    first = again.names.index(f"{source.names[0]}" if named else f"{source.classes[int(source.labels[0])]}/0.png")
    np.testing.assert_array_equal(again.images[first], 255 - np.asarray(source.images[0]))


def test_plain_images_have_no_masks(tmp_path):
    source = open_domain(folders.plain(tmp_path / "source", 3))
    write_translations(model(), source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == source.names


@pytest.mark.parametrize("taken", ["images/000.png", "masks/004.png", "classes.json"])
def test_existing_files_stay(tmp_path, taken):
    source, out = open_domain(folders.masks(tmp_path / "source", 5)), tmp_path / "out"
    (out / taken).parent.mkdir(parents=True)
    (out / taken).write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        write_translations(model(), source, out)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / taken]
    write_translations(model(), source, out, force=True)
    assert len(open_domain(out)) == 5


@pytest.mark.parametrize("place", [".", "images", "new/folder"])
def test_nothing_is_written_into_the_source(tmp_path, place):
    source = open_domain(folders.masks(tmp_path / "source", 2))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="stays as it is"):
        write_translations(model(), source, tmp_path / "source" / place, force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_class_folder_may_be_the_source_itself(tmp_path):
    """The source is d/bar, a class of it is called bar, and d is where to write: d/bar/x.png would lie in the source."""
    source = open_domain(folders.classes(tmp_path / "d" / "bar", 6))
    before = sorted(tmp_path.rglob("*"))
    assert "bar" in source.classes
    with pytest.raises(UsageError, match="stays as it is"):
        write_translations(model("classification"), source, tmp_path / "d", force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_images_that_would_become_one_file_are_refused(tmp_path):
    images = [np.zeros((16, 16, 3), np.uint8)] * 2
    one = Domain("d", "classification", ("bar", "ring", "x"), images, [0, 0], ["x.png", "bar/x.png"])
    with pytest.raises(
        DataError, match=r"two images would be written as bar/x\.png: x\.png and bar/x\.png; rename one"
    ):
        write_translations(model("classification"), one, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    apart = Domain("d", "classification", ("bar", "ring", "x"), images, [0, 1], ["x.png", "x.png"])
    assert len(write_translations(model("classification"), apart, tmp_path / "out")) == 2
    source = open_domain(folders.masks(tmp_path / "source", 2))
    with pytest.raises(DataError, match="rename one"):
        write_translations(model(), source.joined(source), tmp_path / "twice")


def test_a_method_that_does_not_translate_writes_nothing(tmp_path):
    source = open_domain(folders.masks(tmp_path / "source", 2))
    with pytest.raises(UsageError, match="does not redraw"):
        write_translations(model(kind=find("source-only")), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
