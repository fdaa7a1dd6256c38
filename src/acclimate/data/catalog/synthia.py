"""SYNTHIA-RAND-CITYSCAPES: rendered streets, 1280 x 760, with the 16 classes that Cityscapes has too."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from acclimate.data.catalog.base import Card, Dataset, Remote, image_files, inside, masked, need
from acclimate.data.catalog.cityscapes import ABSENT_IN_SYNTHIA, STREET_CLASSES, STREET_SUBSETS
from acclimate.data.decode import UnusableFile, image_size, opened
from acclimate.data.domain import IGNORE, Domain

_IDS = {
    "sky": 1,
    "building": 2,
    "road": 3,
    "sidewalk": 4,
    "fence": 5,
    "vegetation": 6,
    "pole": 7,
    "car": 8,
    "traffic sign": 9,
    "person": 10,
    "bicycle": 11,
    "motorcycle": 12,
    "traffic light": 15,
    "rider": 17,
    "bus": 19,
    "wall": 21,
}

CARD = Card(
    name="synthia",
    title="SYNTHIA-RAND-CITYSCAPES",
    task="segmentation",
    classes=tuple(name for name in STREET_CLASSES if name not in ABSENT_IN_SYNTHIA),
    splits=("train",),
    layout="""\
RGB/0000000.png ...          9,400 images (these may be in a folder RAND_CITYSCAPES/)
GT/LABELS/0000000.png ...    16 bits per channel; the first channel is the class""",
    homepage="http://synthia-dataset.net/",
    licence="not stated here; see the homepage",
    citation="""\
@inproceedings{ros2016synthia,
  title = {The {SYNTHIA} Dataset: A Large Collection of Synthetic Images for Semantic Segmentation of Urban
           Scenes},
  author = {Ros, German and Sellart, Laura and Materzynska, Joanna and Vazquez, David and Lopez, Antonio M.},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition}, pages = {3234--3243}, year = {2016}
}""",
    files=(Remote("http://synthia-dataset.cvc.uab.cat/SYNTHIA_RAND_CITYSCAPES.rar", "synthia.rar"),),
    notes="Cityscapes has three classes more: map terrain, truck and train to ignore. Some papers score 13 classes "
    "only (without wall, fence and pole): mIoU 13.",
    subsets=STREET_SUBSETS,
)


@dataclasses.dataclass(frozen=True)
class LowByteReader:
    """Decodes a (mask path, page, image path) triple to labels ``(H, W)``, ``int16``; -1 is "ignore"."""

    def __call__(self, item: tuple[str, int, str]) -> np.ndarray:
        path, _, image = item
        with opened(path) as mask:
            if mask.mode == "RGB" and mask.tile[0].args == "RGB;16B":
                # Pillow keeps the upper byte of 16-bit colour, but ids are in the lower one: swap them.
                mask.tile = [tile._replace(args="RGB;16L") for tile in mask.tile]
            ids = np.array(mask)
        if ids.shape[:2] != image_size(image):
            raise UnusableFile(path, "mask", "the mask and its image differ in size", "remove the pair")
        ids = ids[..., 0] if ids.ndim == 3 else ids
        lookup = np.full(256, IGNORE, np.int16)
        lookup[[_IDS[name] for name in CARD.classes]] = range(len(CARD.classes))
        return lookup[ids & 255]


def load(folder: Path, split: str) -> Domain:
    images = inside(CARD, folder, "RGB", "RAND_CITYSCAPES/RGB")
    masks = need(images.parent / "GT" / "LABELS", CARD, folder)
    pairs = [(image, need(masks / image.name, CARD, folder)) for image in image_files(images)]
    return masked(CARD, split, folder, pairs, LowByteReader())


SYNTHIA = Dataset(CARD, load)
