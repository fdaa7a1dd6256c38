"""DRIVE: vessels in 40 photographs of the retina, 565 x 584, from a screening for diabetes in the Netherlands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acclimate.data.catalog.base import Card, Dataset, Remote, image_files, inside, masked, need
from acclimate.data.catalog.fundus import VESSEL_CLASSES, VesselReader, white
from acclimate.data.domain import Domain

CARD = Card(
    name="drive",
    title="DRIVE retinal vessels",
    task="segmentation",
    classes=VESSEL_CLASSES,
    splits=("train", "test", "all"),
    layout="""\
training/images/21_training.tif ...           20 photographs (test/images/01_test.tif: 20)
training/1st_manual/21_manual1.gif ...        white vessels, first observer
training/mask/21_training_mask.gif ...        white field of view (test/mask/01_test_mask.gif)
(these may be in a folder DRIVE/)""",
    homepage="https://drive.grand-challenge.org/",
    licence="research; see the homepage",
    citation="""\
@article{staal2004ridge,
  title = {Ridge-Based Vessel Segmentation in Color Images of the Retina},
  author = {Staal, Joes and Abr{\\`a}moff, Michael D. and Niemeijer, Meindert and Viergever, Max A. and
            van Ginneken, Bram},
  journal = {IEEE Transactions on Medical Imaging}, volume = {23}, number = {4}, pages = {501--509}, year = {2004}
}""",
    files=(Remote("https://drive.grand-challenge.org/", "datasets.zip"),),
    terms="join the challenge on the homepage, which leads to the files",
    notes="What lies outside of the published field of view is ignored. The set once came with the labels of its test "
    "images (test/1st_manual), which later downloads leave out; train needs none of them.",
)


def field(path: str) -> np.ndarray:
    """The published field of view of a photograph."""
    image = Path(path)
    return white(str(image.parent.parent / "mask" / f"{image.stem}_mask.gif"))


def load(folder: Path, split: str) -> Domain:
    pairs = []
    for part, name in (("training", "train"), ("test", "test")):
        if split in (name, "all"):
            root = inside(CARD, folder, part, f"DRIVE/{part}")
            for image in image_files(need(root / "images", CARD, folder)):
                number = image.stem.partition("_")[0]
                need(root / "mask" / f"{image.stem}_mask.gif", CARD, folder)
                pairs.append((image, need(root / "1st_manual" / f"{number}_manual1.gif", CARD, folder)))
    return masked(CARD, split, folder, pairs, VesselReader(field))


DRIVE = Dataset(CARD, load)
