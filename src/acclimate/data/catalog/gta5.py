"""GTA5: streets of a computer game, 1914 x 1052, labelled with the ids of Cityscapes."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, image_files, inside, masked, need
from acclimate.data.catalog.cityscapes import LABEL_IDS, STREET_CLASSES
from acclimate.data.decode import UnusableFile, image_size
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
    notes="A few masks are known to differ in size from their image. Such pairs are left out when the set is opened, by "
    "what the headers of the files say, and the facts of the domain name them.",
)


def load(folder: Path, split: str) -> Domain:
    labels = inside(CARD, folder, "labels")
    images = image_files(inside(CARD, folder, "images"))
    pairs, left_out = [], []
    for image in images:
        mask = need(labels / image.name, CARD, folder)
        if _differ(image, mask):
            left_out.append(image.relative_to(folder).as_posix())
        else:
            pairs.append((image, mask))
    domain = masked(CARD, split, folder, pairs, MaskReader(LABEL_IDS))
    facts = {"policy": "skip", "checked": len(images), "left_out": len(left_out), "files": left_out}
    return dataclasses.replace(domain, facts={**domain.facts, "unusable": facts})


def _differ(image: Path, mask: Path) -> bool:
    """Whether two files hold pictures of different sizes; one that cannot be opened is named when it is read."""
    with contextlib.suppress(UnusableFile):
        return image_size(image) != image_size(mask)
    return False


GTA5 = Dataset(CARD, load)
