"""STARE: vessels in 20 photographs of the retina, 700 x 605, half of them of sick eyes, from the United States."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, inside, masked, need
from acclimate.data.catalog.fundus import VESSEL_CLASSES, LitField, VesselReader
from acclimate.data.domain import Domain

_SITE = "https://cecas.clemson.edu/~ahoover/stare/probing/"
_TRAINED_ON = 10  # images

CARD = Card(
    name="stare",
    title="STARE retinal vessels",
    task="segmentation",
    classes=VESSEL_CLASSES,
    splits=("train", "test", "all"),
    layout="""\
stare-images/im0001.ppm ...      20 photographs (after gunzip stare-images/*.gz)
labels-ah/im0001.ah.ppm ...      white vessels, observer AH (after gunzip labels-ah/*.gz)""",
    homepage=_SITE,
    licence="not stated",
    citation="""\
@article{hoover2000locating,
  title = {Locating Blood Vessels in Retinal Images by Piecewise Threshold Probing of a Matched Filter Response},
  author = {Hoover, Adam and Kouznetsova, Valentina and Goldbaum, Michael},
  journal = {IEEE Transactions on Medical Imaging}, volume = {19}, number = {3}, pages = {203--210}, year = {2000}
}""",
    files=tuple(Remote(_SITE + name, name) for name in ("stare-images.tar", "labels-ah.tar")),
    notes="No split is published: train is the first 10 images, test the last 10, as is common. No field of view is "
    "published either: what is dark in the red channel, up to the edge of the picture, is ignored.",
)


def load(folder: Path, split: str) -> Domain:
    images = sorted(inside(CARD, folder, "stare-images").glob("im*.ppm"))
    labels = inside(CARD, folder, "labels-ah")
    if not images:
        need(folder / "stare-images" / "im0001.ppm", CARD, folder)
    chosen = {"train": images[:_TRAINED_ON], "test": images[_TRAINED_ON:], "all": images}[split]
    pairs = [(image, need(labels / f"{image.stem}.ah.ppm", CARD, folder)) for image in chosen]
    return masked(CARD, split, folder, pairs, VesselReader(LitField(35)))


STARE = Dataset(CARD, load)
