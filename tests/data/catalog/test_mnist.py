"""MNIST from IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from acclimate.data.open import open_domain
from acclimate.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def write(root: Path, part: str, images: np.ndarray, labels: np.ndarray, packed: bool) -> None:
    root.mkdir(exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx(array)
        path = root / f"{part}-{kind}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels(place: Path, packed: bool) -> None:
    rng = np.random.default_rng(0)
    sets = {}
    for part, split, count in (("train", "train", 6), ("t10k", "test", 3)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        write(place / "mnist", part, images, labels, packed)
        sets[split] = images, labels
    for split, (images, labels) in sets.items():
        domain = open_domain(f"mnist:{split}")
        np.testing.assert_array_equal(np.stack(list(domain.images)), images[..., None])
        assert list(domain.labels) == labels.tolist()
    assert open_domain("mnist").classes == tuple("0123456789")


def test_damaged_files_are_named(place: Path) -> None:
    images, labels = np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.uint8)
    write(place / "mnist", "train", images, labels, True)
    path = place / "mnist" / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (
        whole[:-9],
        b"junk",
        gzip.compress(idx(images)[:-5]),
        gzip.compress(b""),
        gzip.compress(b"\0\0\x08\x03"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match="train-images"):
            open_domain("mnist")
    write(place / "mnist", "train", images, labels[:3], True)
    with pytest.raises(DataError, match="4 images but 3 labels"):
        open_domain("mnist")
