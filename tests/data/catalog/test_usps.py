"""USPS from its text files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from acclimate.data.open import open_domain
from acclimate.errors import DataError


@pytest.mark.parametrize("packed", [True, False])
def test_values_from_minus_one_to_one_become_bytes(place: Path, packed: bool) -> None:
    (place / "usps").mkdir()
    rows = {"train": [(6, 0), (5, 128), (10, 255)], "test": [(3, 64)]}
    for split, content in rows.items():
        lines = "".join(f"{label}.0000 " + f"{value / 127.5 - 1:.3f} " * 256 + "\n" for label, value in content)
        path = place / "usps" / f"zip.{split}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(lines.encode()) if packed else lines.encode())
    train, test = open_domain("usps"), open_domain("usps:test")
    assert [int(image.max()) for image in train.images] == [0, 128, 255]
    assert list(train.labels) == [6, 5, 0]
    assert test.images[0].shape == (16, 16, 1)
    assert np.unique(test.images[0]).tolist() == [64]


@pytest.mark.parametrize("content", [b"1 2 3\n", b"1 two\n", b"\x1f\x8bjunk"])
def test_damaged_files_are_named(place: Path, content: bytes) -> None:
    (place / "usps").mkdir()
    (place / "usps" / "zip.train.gz").write_bytes(content if content[:1] == b"\x1f" else gzip.compress(content))
    with pytest.raises(DataError, match=r"zip\.train"):
        open_domain("usps")
