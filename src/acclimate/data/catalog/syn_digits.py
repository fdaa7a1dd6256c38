"""SynDigits (also SynNumbers): digits rendered to look like SVHN, 32 x 32, colour."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, arrays, need
from acclimate.data.catalog.digits import DIGITS, read_mat
from acclimate.data.catalog.mnist_m import CARD as MNIST_M_CARD
from acclimate.data.domain import Domain

CARD = Card(
    name="syn-digits",
    title="Synthetic Digits",
    task="classification",
    classes=DIGITS,
    splits=("train", "test"),
    layout="""\
synth_train_32x32.mat    about 480,000 images: X (32, 32, 3, N), y (N, 1)
synth_test_32x32.mat     about 9,500 images""",
    homepage="http://yaroslav.ganin.net/",
    licence="not stated",
    citation=MNIST_M_CARD.citation,
    files=(Remote("http://yaroslav.ganin.net/", "SynthDigits.zip"),),
)


def load(folder: Path, split: str) -> Domain:
    return arrays(CARD, split, *read_mat(need(folder / f"synth_{split}_32x32.mat", CARD, folder)))


SYN_DIGITS = Dataset(CARD, load)
