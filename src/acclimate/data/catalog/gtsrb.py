"""GTSRB: German traffic signs in photographs, many sizes, colour."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np

from acclimate.data.catalog.base import Card, Dataset, Remote, as_sequence, inside
from acclimate.data.decode import UnusableFile
from acclimate.data.domain import Domain, Lazy
from acclimate.data.folder import ImageReader
from acclimate.errors import DataError

_SITE = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"

SIGNS = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by lorries",
    "priority at the next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no lorries",
    "no entry",
    "danger",
    "bend to the left",
    "bend to the right",
    "double bend",
    "uneven road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "cyclists",
    "snow or ice",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "straight ahead",
    "straight ahead or right",
    "straight ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)

CARD = Card(
    name="gtsrb",
    title="German Traffic Sign Recognition Benchmark",
    task="classification",
    classes=SIGNS,
    splits=("train", "test", "roi-train", "roi-test"),
    layout="""\
GTSRB/Final_Training/Images/00000/GT-00000.csv    Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId
GTSRB/Final_Training/Images/00000/00000_00000.ppm ... (43 folders, 39,209 images)
GTSRB/Final_Test/Images/00000.ppm ...             12,630 images
GT-final_test.csv                                 (also found in GTSRB/ and GTSRB/Final_Test/Images/)""",
    homepage="https://benchmark.ini.rub.de/gtsrb_news.html",
    licence="not stated",
    citation="""\
@article{stallkamp2012man,
  title = {Man vs. computer: Benchmarking machine learning algorithms for traffic sign recognition},
  author = {Stallkamp, Johannes and Schlipsing, Marc and Salmen, Jan and Igel, Christian},
  journal = {Neural Networks}, volume = {32}, pages = {323--332}, year = {2012}
}""",
    files=tuple(
        Remote(_SITE + name, name)
        for name in ("GTSRB_Final_Training_Images.zip", "GTSRB_Final_Test_Images.zip", "GTSRB_Final_Test_GT.zip")
    ),
    notes="train and test are whole frames; roi-train and roi-test are cropped to the box around the sign. Training "
    "images come in tracks of 30 frames of one sign: a random hold-out has near-duplicates on both sides.",
)


@dataclasses.dataclass(frozen=True)
class BoxReader:
    """Decodes a (path, (left, top, right, bottom)) pair and crops it; right and bottom belong to the box."""

    def __call__(self, item: tuple[str, tuple[int, int, int, int]]) -> np.ndarray:
        path, (left, top, right, bottom) = item
        crop = ImageReader(channels=3)((path, 0))[top : bottom + 1, left : right + 1]
        if crop.size == 0:
            raise UnusableFile(path, "box", "its box in the csv file lies outside the image", "get the csv file again")
        return crop


def load(folder: Path, split: str) -> Domain:
    part = split.removeprefix("roi-")
    images = inside(CARD, folder, f"GTSRB/Final_{part.replace('train', 'training').title()}/Images")
    if part == "train":
        tables = sorted(images.glob("*/GT-*.csv"))
    else:
        name = "GT-final_test.csv"
        tables = [inside(CARD, folder, name, f"GTSRB/{name}", f"GTSRB/Final_Test/Images/{name}")]
    rows = [(table, row) for table in tables for row in _rows(table)]
    files = [(table.parent if part == "train" else images) / row["Filename"] for table, row in rows]
    labels = np.array([int(row["ClassId"]) for _, row in rows], np.int64)
    names = [path.relative_to(folder).as_posix() for path in files]
    pictures: Lazy
    if split.startswith("roi-"):
        boxes = [tuple(int(row[f"Roi.{side}"]) for side in ("X1", "Y1", "X2", "Y2")) for _, row in rows]
        pictures = Lazy([(str(path), box) for path, box in zip(files, boxes)], BoxReader())
    else:
        pictures = Lazy([(str(path), 0) for path in files], ImageReader(channels=3))
    return Domain(f"{CARD.name}:{split}", CARD.task, CARD.classes, pictures, as_sequence(labels), names)


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    try:
        if all(0 <= int(row["ClassId"]) < len(SIGNS) and row["Filename"] for row in rows):
            return rows
    except (KeyError, TypeError, ValueError):
        pass
    raise DataError(f"{table}: expected the columns Filename, Roi.X1 ... and ClassId from 0 to 42; get it again")


GTSRB = Dataset(CARD, load)
