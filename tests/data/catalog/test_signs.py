"""GTSRB from PPM files and tables, SynSigns from its list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acclimate.data.catalog.gtsrb import SIGNS
from acclimate.data.open import open_domain
from acclimate.errors import DataError

HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def sign(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(place: Path, save: Callable[..., Path]) -> None:
    root = place / "gtsrb"
    images = root / "GTSRB" / "Final_Training" / "Images"
    for label in (0, 42):
        save(images / f"{label:05d}" / "00000_00000.ppm", sign(label))
        table = HEAD + f"00000_00000.ppm;10;12;2;3;6;8;{label}\n"
        (images / f"{label:05d}" / f"GT-{label:05d}.csv").write_text(table)
    for number in range(3):
        save(root / "GTSRB" / "Final_Test" / "Images" / f"{number:05d}.ppm", sign(100 + number))
    rows = "".join(f"{number:05d}.ppm;10;12;0;0;9;11;{16 - number}\n" for number in range(3))
    (root / "GT-final_test.csv").write_text(HEAD + rows)


def test_whole_frames(place: Path, save: Callable[..., Path]) -> None:
    write(place, save)
    train, test = open_domain("gtsrb"), open_domain("gtsrb:test")
    assert list(train.labels) == [0, 42]
    np.testing.assert_array_equal(train.images[1], sign(42))
    assert train.names[1].endswith("00042/00000_00000.ppm")
    assert list(test.labels) == [16, 15, 14]
    np.testing.assert_array_equal(test.images[2], sign(102))
    assert len(train.classes) == 43


def test_crops_are_the_box_with_its_last_row_and_column(place: Path, save: Callable[..., Path]) -> None:
    write(place, save)
    np.testing.assert_array_equal(open_domain("gtsrb:roi-train").images[0], sign(0)[3:9, 2:7])
    np.testing.assert_array_equal(open_domain("gtsrb:roi-test").images[0], sign(100))


@pytest.mark.parametrize("table", ["", "Filename,ClassId\n", HEAD + "0.ppm;1;1;0;0;0;0;43\n", HEAD + "0.ppm;1\n"])
def test_a_damaged_table_is_named(place: Path, save: Callable[..., Path], table: str) -> None:
    write(place, save)
    (place / "gtsrb" / "GT-final_test.csv").write_text(table)
    with pytest.raises(DataError, match=r"GT-final_test|no image"):
        open_domain("gtsrb:test")


@pytest.mark.parametrize("inner", ["synthetic_data", ""])
def test_syn_signs(place: Path, save: Callable[..., Path], inner: str) -> None:
    root = place / "syn-signs" / inner
    for number in range(3):
        save(root / "train" / f"{number}.png", sign(number, 40, 40))
    (root / "train_labelling.txt").write_text("train/2.png 42 0.1\ntrain/0.png 0 0.2\ntrain/1.png 7 -0.3\n")
    domain = open_domain("syn-signs")
    assert list(domain.labels) == [42, 0, 7]
    np.testing.assert_array_equal(domain.images[0], sign(2, 40, 40))
    assert domain.classes == SIGNS
    (root / "train_labelling.txt").write_text("train/2.png 43 0.1\n")
    with pytest.raises(DataError, match="train_labelling"):
        open_domain("syn-signs")
