"""Office-Caltech-10: the ten classes that Office-31 and Caltech-256 have in common."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, class_folders, inside
from acclimate.data.domain import Domain

CARD = Card(
    name="office-caltech-10",
    title="Office-Caltech-10",
    task="classification",
    classes=(
        "back_pack",
        "bike",
        "calculator",
        "headphones",
        "keyboard",
        "laptop_computer",
        "monitor",
        "mouse",
        "mug",
        "projector",
    ),
    splits=("amazon", "caltech", "dslr", "webcam"),
    layout="""\
amazon/CLASS/*.jpg     958 images, 10 classes (these four may be in a folder office_caltech_10/)
caltech/CLASS/*.jpg    1,123 images
dslr/CLASS/*.jpg       157 images
webcam/CLASS/*.jpg     295 images""",
    homepage="https://faculty.cc.gatech.edu/~judy/domainadapt/",
    licence="not stated",
    citation="""\
@inproceedings{gong2012geodesic,
  title = {Geodesic flow kernel for unsupervised domain adaptation},
  author = {Gong, Boqing and Shi, Yuan and Sha, Fei and Grauman, Kristen},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition}, pages = {2066--2073}, year = {2012}
}""",
    files=(Remote("https://github.com/redhat12345/OfficeCaltechDomainAdaptation", "images"),),
    notes="The splits are the four domains. DSLR and webcam show the same objects.",
)


def load(folder: Path, split: str) -> Domain:
    return class_folders(CARD, split, folder, inside(CARD, folder, split, f"office_caltech_10/{split}"))


OFFICE_CALTECH_10 = Dataset(CARD, load)
