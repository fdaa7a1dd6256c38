"""From what a person types to a domain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import acclimate.data
from acclimate import registry
from acclimate.data.catalog.base import Card, Dataset, Remote, arrays, data_root
from acclimate.data.domain import Domain
from acclimate.data.open import open_domain, open_splits
from acclimate.errors import DataError, UsageError


def put(path: Path, array: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def two_classes(root: Path, count: int = 5, names: tuple[str, ...] = ("a", "b")) -> Path:
    for name in names:
        for number in range(count):
            put(root / name / f"{number}.png", np.full((3, 3), number, np.uint8))
    return root


SPLITS = ("train", "test", "day", "day-train", "day-test", "night")


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A bundled set called "toy", beside the real catalog's names."""
    card = Card("toy", "Toy", "classification", ("a", "b"), SPLITS, "", "", "CC0", "@misc{toy}")

    def load(folder: Path, split: str) -> Domain:
        count = 10 + SPLITS.index(split)
        return arrays(card, split, np.zeros((count, 2, 2), np.uint8), np.arange(count) % 2)

    dataset = Dataset(card, load)
    real = registry.names, registry.load
    monkeypatch.setattr(registry, "names", lambda kind: sorted([*real[0](kind), "toy"]))
    monkeypatch.setattr(registry, "load", lambda kind, name: dataset if name == "toy" else real[1](kind, name))
    return dataset


def test_catalog_names_and_splits() -> None:
    assert len(open_domain("toy")) == 10
    assert len(open_domain("toy:day")) == len(open_domain("toy", "day")) == 12
    assert open_domain("toy").images[0].shape == (2, 2, 1)
    with pytest.raises(UsageError, match="did you mean 'night'"):
        open_domain("toy:nigth")
    with pytest.raises(UsageError, match="already names a split"):
        open_domain("toy:day", "night")


def test_a_folder_wins_over_the_catalog_only_with_a_separator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path / "toy")
    monkeypatch.chdir(tmp_path)
    assert open_domain("toy").name == "toy:train"
    assert open_domain("./toy").names[0] == "a/0.png"
    assert open_domain(Path("toy")).names[0] == "a/0.png"
    assert open_domain(tmp_path / "toy").names[0] == "a/0.png"
    two_classes(tmp_path / "plain")
    assert open_domain("plain").names[0] == "a/0.png"


def test_what_is_neither_is_an_error_that_says_both(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such path.*did you mean 'mnist'"):
        open_domain("mnits")
    with pytest.raises(UsageError, match="no such path"):
        open_domain(tmp_path / "gone")


def test_splits_of_a_folder(tmp_path: Path) -> None:
    two_classes(tmp_path / "train", 5)
    two_classes(tmp_path / "test", 3)
    assert len(open_domain(tmp_path, "train")) == 10
    assert len(open_domain(f"{tmp_path}:test")) == 6
    with pytest.raises(UsageError, match="train, test"):
        open_domain(tmp_path, "val")
    with pytest.raises(DataError, match="train, test"):
        open_domain(tmp_path)


def test_the_task_is_checked_and_labels_can_be_left_aside(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not for segmentation"):
        open_domain("toy", task="segmentation")
    assert open_domain("toy", task="classification").labels is not None
    bare = open_domain("toy", task="unlabelled")
    assert (bare.task, bare.labels, bare.classes) == (None, None, ())
    with pytest.raises(UsageError, match="unknown task"):
        open_domain("toy", task="clasification")


def test_catalog_sets_keep_their_own_train_and_test() -> None:
    assert [len(part) for part in open_splits("toy")] == [10, 11]
    assert [part.name for part in open_splits("toy:day")] == ["toy:day-train", "toy:day-test"]
    train, test = open_splits("toy:night", holdout=0.4)
    assert [len(train), len(test)] == [9, 6]
    assert not set(train.names) & set(test.names)


def test_folders_are_split_at_random_the_same_way_each_time(tmp_path: Path) -> None:
    two_classes(tmp_path)
    train, test = open_splits(tmp_path, 0.3)
    assert (len(train), len(test)) == (7, 3)
    assert sorted([*train.names, *test.names]) == open_domain(tmp_path).names
    assert open_splits(tmp_path, 0.3)[1].names == test.names
    with pytest.raises(DataError, match="too few"):
        open_splits(tmp_path, 0.01)


def test_folders_with_train_and_test_keep_them_and_count_classes_alike(tmp_path: Path) -> None:
    two_classes(tmp_path / "train", 2, ("a", "b", "c"))
    two_classes(tmp_path / "test", 1, ("b", "c"))
    train, test = open_splits(tmp_path)
    assert test.classes == train.classes == ("a", "b", "c")
    assert list(test.labels) == [1, 2]
    two_classes(tmp_path / "test", 1, ("d",))
    with pytest.raises(DataError, match="--map d="):
        open_splits(tmp_path)


def test_both_splits_of_a_folder_are_scaled_alike(tmp_path: Path) -> None:
    put(tmp_path / "train" / "x.png", np.full((2, 2), 4000, np.uint16))
    put(tmp_path / "test" / "y.png", np.full((2, 2), 1000, np.uint16))
    train, test = open_splits(tmp_path)
    assert train.facts["scale16"] == test.facts["scale16"] == 4096
    assert int(test.images[0].max()) == 62


def test_classes_json_above_serves_both_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        put(tmp_path / split / "images" / "a.png", np.zeros((1, 2), np.uint8))
        put(tmp_path / split / "masks" / "a.png", np.array([[0, 255]], np.uint8))
    (tmp_path / "classes.json").write_text('{"classes": ["out", "in"], "values": {"255": 1}}')
    for part in open_splits(tmp_path):
        assert part.classes == ("out", "in")
        assert part.labels[0].tolist() == [[0, 1]]


def test_the_folder_of_the_catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: Dataset) -> None:
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("ACCLIMATE_DATA")
    assert data_root() == Path.home() / ".cache" / "acclimate" / "data"
    assert toy.card.bundled
    assert toy.present


def test_a_file_needs_a_checksum_to_be_fetchable() -> None:
    def card(*sums: str | None) -> Card:
        files = tuple(Remote("https://example.org", "a", checksum) for checksum in sums)
        return Card("x", "", "classification", (), ("train",), "", "", "", "", files)

    assert not card().fetchable
    assert card("0" * 64).fetchable
    assert not card("0" * 64, None).fetchable


def test_the_package_offers_its_names_without_torch() -> None:
    for name in acclimate.data.__all__:
        assert getattr(acclimate.data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = acclimate.data.nothing
    code = "import sys, acclimate, acclimate.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
