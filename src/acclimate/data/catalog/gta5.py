"""GTA5: streets of a computer game, 1914 x 1052, labelled with the ids of Cityscapes."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, image_files, inside, masked, need
from acclimate.data.catalog.cityscapes import LABEL_IDS, STREET_CLASSES
from acclimate.data.domain import Domain
from acclimate.data.folder import MaskReader

_SITE = "https://download.visinf.tu-darmstadt.de/data/from_games/"

CARD = Card(
    name="gta5",
    title="GTA5 (Playing for Data)",
    task="segmentation",
    classes=STREET_CLASSES,
    splits=("train",),
    layout="""\
images/00001.png ...    24,966 images
labels/00001.png ...    palette images whose indices are the label ids of Cityscapes""",
    homepage=_SITE,
    licence="research and education; see the homepage",
    citation="""\
@inproceedings{richter2016playing,
  title = {Playing for Data: Ground Truth from Computer Games},
  author = {Richter, Stephan R. and Vineet, Vibhav and Roth, Stefan and Koltun, Vladlen},
  booktitle = {European Conference on Computer Vision}, pages = {102--118}, year = {2016}
}""",
    files=tuple(
        Remote(f"{_SITE}data/{part:02d}_{kind}.zip", f"{part:02d}_{kind}.zip")
        for part in range(1, 11)
        for kind in ("images", "labels")
    ),
    notes="A few masks are known to differ in size from their image: skip unusable files.",
)


def load(folder: Path, split: str) -> Domain:
    labels = inside(CARD, folder, "labels")
    images = image_files(inside(CARD, folder, "images"))
    pairs = [(image, need(labels / image.name, CARD, folder)) for image in images]
    return masked(CARD, split, folder, pairs, MaskReader(LABEL_IDS))


GTA5 = Dataset(CARD, load)
