"""Office-Caltech-10 as its authors published it: histograms of 800 SURF words in place of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acclimate.data.catalog.base import Card, Dataset, Remote, arrays, inside
from acclimate.data.catalog.office_caltech_10 import CARD as IMAGES
from acclimate.data.domain import Domain
from acclimate.errors import DataError

WORDS = 800

CARD = Card(
    name="office-caltech-10-surf",
    title="Office-Caltech-10, histograms of SURF words",
    task="classification",
    classes=IMAGES.classes,
    splits=IMAGES.splits,
    layout="""\
amazon_SURF_L10.mat       958 images: fts (N, 800) counts of words, labels (N, 1) from 1 to 10
Caltech10_SURF_L10.mat    1,123 images
dslr_SURF_L10.mat         157 images
webcam_SURF_L10.mat       295 images
(or amazon.mat, caltech10.mat, dslr.mat and webcam.mat, as below, also in folders features/surf/)""",
    homepage="https://github.com/redhat12345/OfficeCaltechDomainAdaptation",
    licence="not stated",
    citation=IMAGES.citation,
    files=(Remote("https://github.com/redhat12345/OfficeCaltechDomainAdaptation", "features/surf"),),
    notes="No pictures: a histogram is an image of 1 x 800 pixels whose values are the counts themselves, so that nothing is "
    "lost. Dividing by their sum and standardising, as every paper does, is left to the network "
    "(mlp with counts=True). The words were made from images of Amazon.",
)


def load(folder: Path, split: str) -> Domain:
    domain = "Caltech10" if split == "caltech" else split
    path = inside(
        CARD, folder, f"{domain}_SURF_L10.mat", f"{domain.lower()}.mat", f"features/surf/{domain.lower()}.mat"
    )
    counts, labels = read_histograms(path)
    return arrays(CARD, split, counts[:, None, :], labels)


def read_histograms(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Counts ``(N, 800)`` ``uint8`` and labels ``(N,)`` 0..9 of a MATLAB file with ``fts`` and ``labels``.

    Raises :class:`DataError` for a damaged file, and for features that are no counts from 0 to 255: scaled ones would be
    rounded to nothing.
    """
    from scipy.io import loadmat  # a second that only these sets have to pay

    try:
        content = loadmat(path)
        counts, labels = np.asarray(content["fts"]), np.asarray(content["labels"]).reshape(-1)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise DataError(
            f"{path} cannot be read as a MATLAB file with fts and labels ({error}); get it again"
        ) from error
    if counts.ndim != 2 or counts.shape[1] != WORDS:
        raise DataError(f"{path}: fts has the shape {counts.shape}, not (N, {WORDS}); get it again")
    if not np.array_equal(counts, counts.round().clip(0, 255)):
        raise DataError(f"{path}: fts holds no counts from 0 to 255; get the features as published, before any scaling")
    if not np.isin(labels, np.arange(1, len(CARD.classes) + 1)).all():
        raise DataError(f"{path}: labels are not numbers from 1 to {len(CARD.classes)}; get it again")
    return counts.astype(np.uint8), labels.astype(np.int64) - 1


OFFICE_CALTECH_10_SURF = Dataset(CARD, load)
