"""VNC: mitochondria in electron micrographs of a fruit fly larva, 20 sections of 1024 x 1024, grey."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, image_files, inside, masked, need
from acclimate.data.domain import Domain
from acclimate.data.folder import MaskReader

CARD = Card(
    name="vnc",
    title="Drosophila ventral nerve cord, ssTEM, stack 1",
    task="segmentation",
    classes=("background", "mitochondria"),
    splits=("train", "test", "all"),
    layout="""\
stack1/raw/00.tif ...             20 sections (these may be in a folder groundtruth-drosophila-vnc-master/)
stack1/mitochondria/00.png ...    0, and 255 for mitochondria""",
    homepage="https://github.com/unidesigner/groundtruth-drosophila-vnc",
    licence="CC BY-NC-SA 3.0",
    citation="""\
@misc{gerhard2013segmented,
  title = {Segmented anisotropic ssTEM dataset of neural tissue},
  author = {Gerhard, Stephan and Funke, Jan and Martel, Julien and Cardona, Albert and Fetter, Richard},
  howpublished = {figshare}, doi = {10.6084/m9.figshare.856713}, year = {2013}
}""",
    files=(
        Remote(
            "https://github.com/unidesigner/groundtruth-drosophila-vnc/archive/refs/heads/master.zip",
            "groundtruth-drosophila-vnc.zip",
            "f7bd0db03c86b64440a16b60360ad60c0a4411f89e2c021c7ee2c8d6af3d7e86",
        ),
    ),
    notes="train is sections 00 to 13, test 14 to 19: one volume, cut, so scores on it are optimistic. The checksum is "
    "the one that torch_em publishes. 4.6 nm per pixel.",
)


def load(folder: Path, split: str) -> Domain:
    stack = inside(CARD, folder, "stack1", "groundtruth-drosophila-vnc-master/stack1")
    pairs = []
    for image in image_files(need(stack / "raw", CARD, folder)):
        if split == "all" or (int(image.stem) < 14) == (split == "train"):
            pairs.append((image, need(stack / "mitochondria" / f"{image.stem}.png", CARD, folder)))
    return masked(CARD, split, folder, pairs, MaskReader({0: 0, 1: 1, 255: 1}), channels=1)


VNC = Dataset(CARD, load)
