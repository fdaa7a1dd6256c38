"""SVHN: house numbers in street views, cropped to 32 x 32, colour."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, arrays, need
from acclimate.data.catalog.digits import DIGITS, read_mat
from acclimate.data.domain import Domain

_SITE = "https://ufldl.stanford.edu/housenumbers/"

CARD = Card(
    name="svhn",
    title="Street View House Numbers, cropped digits",
    task="classification",
    classes=DIGITS,
    splits=("train", "test", "extra"),
    layout="""\
train_32x32.mat    73,257 images: X (32, 32, 3, N), y (N, 1) with 10 for the digit 0
test_32x32.mat     26,032 images
extra_32x32.mat    531,131 images (only for the split "extra")""",
    homepage="http://ufldl.stanford.edu/housenumbers/",
    licence="non-commercial use only",
    citation="""\
@inproceedings{netzer2011reading,
  title = {Reading Digits in Natural Images with Unsupervised Feature Learning},
  author = {Netzer, Yuval and Wang, Tao and Coates, Adam and Bissacco, Alessandro and Wu, Bo and Ng, Andrew Y.},
  booktitle = {NIPS Workshop on Deep Learning and Unsupervised Feature Learning}, year = {2011}
}""",
    files=(
        Remote(
            _SITE + "train_32x32.mat",
            "train_32x32.mat",
            "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            182_040_794,
        ),
        Remote(
            _SITE + "test_32x32.mat",
            "test_32x32.mat",
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            64_275_384,
        ),
    ),
    notes="The checksums are those that TensorFlow Datasets publishes. The split extra is not downloaded (1.3 GB).",
)


def load(folder: Path, split: str) -> Domain:
    return arrays(CARD, split, *read_mat(need(folder / f"{split}_32x32.mat", CARD, folder)))


SVHN = Dataset(CARD, load)
