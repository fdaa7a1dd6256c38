"""DRIVE, CHASE_DB1 and STARE: vessels inside of a field of view, published or found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.data.catalog.fundus import LitField
from acclimate.data.decode import UnusableFile
from acclimate.data.folder import origin
from acclimate.data.open import open_domain, open_splits
from acclimate.errors import DataError

SHAPE = (120, 150)
ROWS, COLUMNS = np.indices(SHAPE)
ROUND = (ROWS - 60) ** 2 + (COLUMNS - 75) ** 2 < 55**2  # the field of view
VESSELS = (COLUMNS % 12 == 0) & (ROWS % 10 > 2)


def eye(seed: int) -> np.ndarray:
    """A reddish disc with dark vessels and a dark spot, and noise around it."""
    noise = np.random.default_rng(seed).integers(0, 9, (*SHAPE, 3))
    lit = ROUND & ~VESSELS & ~((abs(ROWS - 70) < 9) & (abs(COLUMNS - 50) < 9))
    return noise + np.where(lit[..., None], (150, 60, 30), 0)


def gif(path: Path, where: np.ndarray, swapped: bool = False) -> None:
    """White on black in a palette, whose index of white may be either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.where(where, 0 if swapped else 1, 1 if swapped else 0).astype(np.uint8))
    image.putpalette([255] * 3 + [0] * 3 if swapped else [0] * 3 + [255] * 3)
    image.save(path)


def expected(vessels: np.ndarray, field: np.ndarray) -> list[list[int]]:
    return np.where(field, vessels.astype(int), -1).tolist()


@pytest.mark.parametrize("inner", ["", "DRIVE"])
def test_drive(place: Path, save: Callable[..., Path], inner: str) -> None:
    root = place / "drive" / inner
    for part, numbers in (("training", (21, 22)), ("test", (1, 2))):
        for number in numbers:
            save(root / part / "images" / f"{number:02d}_{part}.tif", eye(number))
            gif(root / part / "1st_manual" / f"{number:02d}_manual1.gif", VESSELS, swapped=number == 22)
            gif(root / part / "mask" / f"{number:02d}_{part}_mask.gif", ROUND)
    train, test = open_splits("drive")
    assert [Path(name).name for name in train.names] == ["21_training.tif", "22_training.tif"]
    assert [Path(name).name for name in test.names] == ["01_test.tif", "02_test.tif"]
    assert len(open_domain("drive:all")) == 4
    assert str(origin(test.images, 0)).endswith("01_test.tif")
    assert str(origin(test.labels, 0)).endswith("01_manual1.gif")
    assert open_domain("drive:all").facts["folder"] == test.facts["folder"] == str(place / "drive")
    assert train.classes == ("background", "vessel")
    np.testing.assert_array_equal(test.images[1], eye(2))
    for domain in (train, test):
        assert [label.tolist() for label in domain.labels] == [expected(VESSELS, ROUND)] * 2
        assert domain.labels[0].dtype == np.int16
    gif(root / "test" / "1st_manual" / "01_manual1.gif", VESSELS[:-1])
    with pytest.raises(UnusableFile, match=r"01_manual1\.gif: the labels and their image differ in size"):
        test.labels[0]
    for gone in ("1st_manual/02_manual1.gif", "mask/02_test_mask.gif"):
        kept = (root / "test" / gone).read_bytes()
        (root / "test" / gone).unlink()
        with pytest.raises(DataError, match=f"{gone} is missing"):
            open_domain("drive:test")
        (root / "test" / gone).write_bytes(kept)
    assert len(open_domain("drive")) == 2  # training needs no labels of the test images


@pytest.mark.parametrize("inner", ["", "CHASEDB1"])
def test_chase(place: Path, inner: str) -> None:
    root = place / "chase" / inner
    root.mkdir(parents=True)
    for child in range(1, 15):
        for side in "LR":
            Image.fromarray(eye(child).astype(np.uint8)).save(root / f"Image_{child:02d}{side}.jpg", quality=95)
            for observer in ("1st", "2nd"):
                seen = VESSELS if observer == "1st" else ~VESSELS
                Image.fromarray(seen).save(root / f"Image_{child:02d}{side}_{observer}HO.png")
    train, test = open_splits("chase")
    names = [Path(name).stem for name in (*train.names, *test.names)]
    assert names == [f"Image_{child:02d}{side}" for child in range(1, 15) for side in "LR"]
    assert (len(train), len(test), len(open_domain("chase:all"))) == (20, 8, 28)
    found = train.labels[0]
    assert ((found >= 0) != ROUND).mean() < 0.08  # the disc is small here, and its edge is found to three pixels
    assert (found[found >= 0] == VESSELS[found >= 0]).all()


def test_stare(place: Path, save: Callable[..., Path]) -> None:
    root = place / "stare"
    for number in range(20):
        save(root / "stare-images" / f"im{number * 7:04d}.ppm", eye(number) + 20)
        save(root / "labels-ah" / f"im{number * 7:04d}.ah.ppm", VESSELS * 255)
    train, test = open_splits("stare")
    assert [Path(name).stem for name in train.names] == [f"im{number * 7:04d}" for number in range(10)]
    assert [Path(name).stem for name in test.names] == [f"im{number * 7:04d}" for number in range(10, 20)]
    found = test.labels[0]
    assert ((found >= 0) != ROUND).mean() < 0.08
    assert (found[found >= 0] == VESSELS[found >= 0]).all()
    (root / "labels-ah" / "im0000.ah.ppm").rename(root / "labels-ah" / "im0000.ah.ppm.gz")
    with pytest.raises(DataError, match="gunzip"):
        open_domain("stare")


def test_field_of_view_is_found_by_hand(tmp_path: Path) -> None:
    """A lit square of 21 pixels with a hole, a bright speck far off: the mean of 7 x 7 pixels passes 50 where two
    rows of them are lit with 200, so two pixels beyond an edge; a single speck never does."""
    red = np.zeros((40, 60), np.uint8)
    red[10:31, 20:41] = 200
    red[15:26, 25:36] = 0
    red[2, 55] = 255
    path = tmp_path / "eye.png"
    Image.fromarray(np.stack([red, red * 0 + 255, red * 0], -1)).save(path)
    field = LitField(50)(str(path))
    rows, columns = np.nonzero(field)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 32, 18, 42)
    assert field[10:31, 20:41].all()
    assert not LitField(255)(str(path)).any()
