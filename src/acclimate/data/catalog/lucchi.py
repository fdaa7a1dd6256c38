"""Lucchi (EPFL): mitochondria in electron micrographs of a mouse's hippocampus, twice 165 slices of 1024 x 768."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, masked, need
from acclimate.data.decode import pages
from acclimate.data.domain import Domain
from acclimate.data.folder import MaskReader
from acclimate.errors import DataError

_SITE = "https://documents.epfl.ch/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus/"
_FILES = ("training.tif", "training_groundtruth.tif", "testing.tif", "testing_groundtruth.tif")

CARD = Card(
    name="lucchi",
    title="EPFL hippocampus CA1, FIB-SEM (Lucchi)",
    task="segmentation",
    classes=("background", "mitochondria"),
    splits=("train", "test"),
    layout="""\
training.tif                165 pages of 768 x 1024
training_groundtruth.tif    0, and 255 for mitochondria
testing.tif                 165 pages
testing_groundtruth.tif""",
    homepage="https://www.epfl.ch/labs/cvlab/data/data-em/",
    licence="not stated",
    citation="""\
@article{lucchi2012supervoxel,
  title = {Supervoxel-Based Segmentation of Mitochondria in {EM} Image Stacks With Learned Shape Features},
  author = {Lucchi, Aur{\\'e}lien and Smith, Kevin and Achanta, Radhakrishna and Knott, Graham and Fua, Pascal},
  journal = {IEEE Transactions on Medical Imaging}, volume = {31}, number = {2}, pages = {474--486}, year = {2012}
}""",
    files=tuple(Remote(_SITE + name, name) for name in _FILES),
    notes="5 nm per voxel.",
)


def load(folder: Path, split: str) -> Domain:
    image, mask = (need(folder / f"{split}ing{suffix}.tif", CARD, folder) for suffix in ("", "_groundtruth"))
    count = pages(image)
    if pages(mask) != count:
        raise DataError(f"{mask} has {pages(mask)} pages, {image} has {count}; get them again")
    reader = MaskReader({0: 0, 1: 1, 255: 1})
    return masked(CARD, split, folder, [(image, mask)] * count, reader, pages=range(count), channels=1)


LUCCHI = Dataset(CARD, load)
