"""SynSigns: traffic signs rendered for the classes of GTSRB, 40 x 40, colour."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.catalog.base import Card, Dataset, Remote, inside, pictures
from acclimate.data.catalog.gtsrb import SIGNS
from acclimate.data.domain import Domain
from acclimate.errors import DataError

CARD = Card(
    name="syn-signs",
    title="Synthetic traffic signs",
    task="classification",
    classes=SIGNS,
    splits=("train",),
    layout="""\
synthetic_data/train/*.png            100,000 images
synthetic_data/train_labelling.txt    lines "train/NAME.png CLASS ..." with the 43 ids of GTSRB""",
    homepage="http://graphics.cs.msu.ru/en/node/1337",
    licence="not stated",
    citation="""\
@inproceedings{moiseev2013evaluation,
  title = {Evaluation of Traffic Sign Recognition Methods Trained on Synthetically Generated Data},
  author = {Moiseev, Boris and Konev, Artem and Chigorin, Alexander and Konushin, Anton},
  booktitle = {Advanced Concepts for Intelligent Vision Systems}, pages = {576--583}, year = {2013}
}""",
    files=(Remote("http://graphics.cs.msu.ru/en/node/1337", "synthetic_data.zip"),),
    notes="There is no test split; papers hold out between 2,000 and 10,000 images.",
)


def load(folder: Path, split: str) -> Domain:
    listing = inside(CARD, folder, "synthetic_data/train_labelling.txt", "train_labelling.txt")
    rows = [line.split() for line in listing.read_text().splitlines() if line.strip()]
    if any(len(row) < 2 or not row[1].isdigit() or int(row[1]) >= len(SIGNS) for row in rows):
        raise DataError(f'{listing}: expected lines like "train/NAME.png 12" with ids from 0 to 42; get it again')
    return pictures(CARD, split, folder, [listing.parent / row[0] for row in rows], [int(row[1]) for row in rows])


SYN_SIGNS = Dataset(CARD, load)
