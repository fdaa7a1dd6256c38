"""MNIST-M: the digits of MNIST blended into patches of photographs, 32 x 32, colour."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, inside, need, pictures
from acclimate.data.catalog.digits import DIGITS
from acclimate.data.domain import Domain
from acclimate.errors import DataError

CARD = Card(
    name="mnist-m",
    title="MNIST-M",
    task="classification",
    classes=DIGITS,
    splits=("train", "test"),
    layout="""\
mnist_m_train/00000000.png ...    59,001 images (these four may be in a folder mnist_m/)
mnist_m_train_labels.txt          lines "00000000.png 5"
mnist_m_test/00000000.png ...     9,001 images
mnist_m_test_labels.txt""",
    homepage="http://yaroslav.ganin.net/",
    licence="not stated",
    citation="""\
@article{ganin2016domain,
  title = {Domain-Adversarial Training of Neural Networks},
  author = {Ganin, Yaroslav and Ustinova, Evgeniya and Ajakan, Hana and Germain, Pascal and Larochelle, Hugo and
            Laviolette, Fran{\\c{c}}ois and Marchand, Mario and Lempitsky, Victor},
  journal = {Journal of Machine Learning Research}, volume = {17}, number = {59}, pages = {1--35}, year = {2016}
}""",
    files=(Remote("http://yaroslav.ganin.net/", "mnist_m.tar.gz"),),
    notes="Image i comes from image i of MNIST, in the same split.",
)


def load(folder: Path, split: str) -> Domain:
    listing = inside(CARD, folder, f"mnist_m_{split}_labels.txt", f"mnist_m/mnist_m_{split}_labels.txt")
    images = need(listing.parent / f"mnist_m_{split}", CARD, folder)
    rows = [line.split() for line in listing.read_text().splitlines() if line.strip()]
    if any(len(row) != 2 or row[1] not in DIGITS for row in rows):
        raise DataError(f'{listing}: expected lines like "00000000.png 5"; get it again')
    return pictures(CARD, split, folder, [images / name for name, _ in rows], [int(label) for _, label in rows])


MNIST_M = Dataset(CARD, load)
