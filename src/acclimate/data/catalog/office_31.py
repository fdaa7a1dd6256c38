"""Office-31: things of an office, from a shop, a webcam and an SLR camera."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, class_folders, inside
from acclimate.data.domain import Domain

CARD = Card(
    name="office-31",
    title="Office-31",
    task="classification",
    classes=(
        "back_pack",
        "bike",
        "bike_helmet",
        "bookcase",
        "bottle",
        "calculator",
        "desk_chair",
        "desk_lamp",
        "desktop_computer",
        "file_cabinet",
        "headphones",
        "keyboard",
        "laptop_computer",
        "letter_tray",
        "mobile_phone",
        "monitor",
        "mouse",
        "mug",
        "paper_notebook",
        "pen",
        "phone",
        "printer",
        "projector",
        "punchers",
        "ring_binder",
        "ruler",
        "scissors",
        "speaker",
        "stapler",
        "tape_dispenser",
        "trash_can",
    ),
    splits=("amazon", "dslr", "webcam"),
    layout="""\
amazon/images/CLASS/frame_0001.jpg ...    2,817 images, 31 classes
dslr/images/CLASS/...                     498 images
webcam/images/CLASS/...                   795 images""",
    homepage="https://faculty.cc.gatech.edu/~judy/domainadapt/",
    licence="not stated",
    citation="""\
@inproceedings{saenko2010adapting,
  title = {Adapting Visual Category Models to New Domains},
  author = {Saenko, Kate and Kulis, Brian and Fritz, Mario and Darrell, Trevor},
  booktitle = {European Conference on Computer Vision}, pages = {213--226}, year = {2010}
}""",
    files=(Remote("https://faculty.cc.gatech.edu/~judy/domainadapt/", "domain_adaptation_images.tar.gz"),),
    notes="The splits are the three domains. Most papers score on the very target images that they adapt to.",
)


def load(folder: Path, split: str) -> Domain:
    return class_folders(CARD, split, folder, inside(CARD, folder, f"{split}/images", split))


OFFICE_31 = Dataset(CARD, load)
