"""CHASE_DB1: vessels in 28 photographs of the retina, 999 x 960, both eyes of 14 school children in England."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, inside, masked, need
from acclimate.data.catalog.fundus import VESSEL_CLASSES, LitField, VesselReader
from acclimate.data.domain import Domain

_FIRST = "Image_01L.jpg"
_TRAINED_ON = 10  # children

CARD = Card(
    name="chase",
    title="CHASE_DB1 retinal vessels",
    task="segmentation",
    classes=VESSEL_CLASSES,
    splits=("train", "test", "all"),
    layout="""\
Image_01L.jpg ...             28 photographs: children 01 to 14, left and right (these may be in a folder CHASEDB1/)
Image_01L_1stHO.png ...       white vessels, first observer""",
    homepage="https://researchdata.kingston.ac.uk/96/",
    licence="CC BY 4.0",
    citation="""\
@article{fraz2012ensemble,
  title = {An Ensemble Classification-Based Approach Applied to Retinal Blood Vessel Segmentation},
  author = {Fraz, Muhammad Moazam and Remagnino, Paolo and Hoppe, Andreas and Uyyanonvara, Bunyarit and
            Rudnicka, Alicja R. and Owen, Christopher G. and Barman, Sarah A.},
  journal = {IEEE Transactions on Biomedical Engineering}, volume = {59}, number = {9}, pages = {2538--2548},
  year = {2012}
}""",
    files=(Remote("https://researchdata.kingston.ac.uk/96/1/CHASEDB1.zip", "CHASEDB1.zip"),),
    notes="No split is published: train is children 01 to 10 (20 images), test 11 to 14 (8 images), as is common. No "
    "field of view is published either: what is dark in the red channel, up to the edge of the picture, is ignored.",
)


def load(folder: Path, split: str) -> Domain:
    root = inside(CARD, folder, _FIRST, f"CHASEDB1/{_FIRST}").parent
    pairs = []
    for image in sorted(root.glob("Image_*.jpg")):
        child = int(image.stem.removeprefix("Image_")[:2])
        if split == "all" or (child <= _TRAINED_ON) == (split == "train"):
            pairs.append((image, need(root / f"{image.stem}_1stHO.png", CARD, folder)))
    return masked(CARD, split, folder, pairs, VesselReader(LitField(12)))


CHASE = Dataset(CARD, load)
