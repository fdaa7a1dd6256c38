"""Cityscapes: streets of 50 cities seen from a car, 2048 x 1024, with the 19 classes that everybody scores."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, image_files, inside, masked, need
from acclimate.data.domain import IGNORE, Domain
from acclimate.data.folder import MaskReader

STREET_CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)

ABSENT_IN_SYNTHIA = ("terrain", "truck", "train")
_LEFT_OUT_OF_13 = ("wall", "fence", "pole")

STREET_SUBSETS = {"13": tuple(name for name in STREET_CLASSES if name not in ABSENT_IN_SYNTHIA + _LEFT_OUT_OF_13)}
"""The classes of papers on SYNTHIA that leave out wall, fence and pole ("mIoU*")."""

_COUNTED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

LABEL_IDS = {value: IGNORE for value in (*range(35), 255)} | {value: label for label, value in enumerate(_COUNTED)}
"""The ids of the ``labelIds`` files -> the 19 classes; the others are not counted. (255 is -1, the licence plate.)"""

CARD = Card(
    name="cityscapes",
    title="Cityscapes",
    task="segmentation",
    classes=STREET_CLASSES,
    splits=("train", "val"),
    layout="""\
leftImg8bit/train/CITY/NAME_leftImg8bit.png       2,975 images (val: 500)
gtFine/train/CITY/NAME_gtFine_labelIds.png""",
    homepage="https://www.cityscapes-dataset.com/",
    licence="non-commercial use; see the homepage",
    citation="""\
@inproceedings{cordts2016cityscapes,
  title = {The Cityscapes Dataset for Semantic Urban Scene Understanding},
  author = {Cordts, Marius and Omran, Mohamed and Ramos, Sebastian and Rehfeld, Timo and Enzweiler, Markus and
            Benenson, Rodrigo and Franke, Uwe and Roth, Stefan and Schiele, Bernt},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition}, pages = {3213--3223}, year = {2016}
}""",
    files=tuple(
        Remote("https://www.cityscapes-dataset.com/downloads/", name)
        for name in ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")
    ),
    terms="register on the homepage and accept its terms of use",
    notes="Labels of the test split are not public; papers score on val. They also pick their checkpoint on it.",
    subsets=STREET_SUBSETS,
)


def load(folder: Path, split: str) -> Domain:
    images = image_files(inside(CARD, folder, f"leftImg8bit/{split}"))
    masks = inside(CARD, folder, f"gtFine/{split}")
    pairs = []
    for image in images:
        name = image.name.replace("_leftImg8bit", "_gtFine_labelIds")
        pairs.append((image, need(masks / image.parent.name / name, CARD, folder)))
    return masked(CARD, split, folder, pairs, MaskReader(LABEL_IDS))


CITYSCAPES = Dataset(CARD, load)
