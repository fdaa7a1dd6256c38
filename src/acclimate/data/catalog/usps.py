"""USPS: digits from envelopes, 16 x 16, grey, as split for *The Elements of Statistical Learning*."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acclimate.data.catalog.base import Card, Dataset, Remote, arrays, inside
from acclimate.data.catalog.digits import DIGITS
from acclimate.data.domain import Domain
from acclimate.errors import DataError

_SITE = "https://hastie.su.domains/ElemStatLearn/datasets/"

CARD = Card(
    name="usps",
    title="USPS handwritten digits (zip codes)",
    task="classification",
    classes=DIGITS,
    splits=("train", "test"),
    layout="""\
zip.train.gz    7,291 lines: the digit, then 256 grey values from -1 to 1 (with or without .gz)
zip.test.gz     2,007 lines""",
    homepage=_SITE + "zip.info.txt",
    licence="not stated",
    citation="""\
@article{hull1994database,
  title = {A database for handwritten text recognition research},
  author = {Hull, Jonathan J.},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {16}, number = {5}, pages = {550--554}, year = {1994}
}""",
    files=(Remote(_SITE + "zip.train.gz", "zip.train.gz"), Remote(_SITE + "zip.test.gz", "zip.test.gz")),
    notes="Papers also use a version of 7,438 and 1,860 images of 28 x 28 pixels; the numbers do not compare.",
)


def load(folder: Path, split: str) -> Domain:
    path = inside(CARD, folder, f"zip.{split}.gz", f"zip.{split}")
    try:
        table = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from error
    if table.shape[1] != 257:
        raise DataError(f"{path} has {table.shape[1]} columns, not the digit and 256 grey values; get it again")
    images = np.rint((table[:, 1:] + 1) * 127.5).clip(0, 255).astype(np.uint8).reshape(-1, 16, 16)
    return arrays(CARD, split, images, table[:, 0].astype(np.int64) % 10)


USPS = Dataset(CARD, load)
