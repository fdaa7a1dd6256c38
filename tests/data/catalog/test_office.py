"""Office-31 and Office-Caltech-10 from class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acclimate.data.catalog.office_31 import CARD as OFFICE_31
from acclimate.data.catalog.office_caltech_10 import CARD as OFFICE_CALTECH_10
from acclimate.data.open import open_domain
from acclimate.errors import DataError


@pytest.mark.parametrize(
    ("card", "inner"),
    [
        (OFFICE_31, "{}/images"),
        (OFFICE_31, "{}"),
        (OFFICE_CALTECH_10, "{}"),
        (OFFICE_CALTECH_10, "office_caltech_10/{}"),
    ],
)
def test_each_split_is_a_domain_with_the_same_classes(place: Path, save: Callable[..., Path], card, inner: str) -> None:  # type: ignore[no-untyped-def]
    for number, split in enumerate(card.splits, 1):
        root = place / card.name / inner.format(split)
        for label, name in enumerate(card.classes):
            (root / name).mkdir(parents=True)
            if label % 2:
                save(root / name / "frame_0001.jpg", np.full((10, 8, 3), number * 40))
    for number, split in enumerate(card.splits, 1):
        domain = open_domain(f"{card.name}:{split}")
        assert list(domain.labels) == list(range(1, len(card.classes), 2))
        assert domain.classes == card.classes
        assert domain.images[0].shape == (10, 8, 3)
        assert abs(int(domain.images[0].mean()) - number * 40) <= 1


def test_a_missing_class_is_named(place: Path, save: Callable[..., Path]) -> None:
    for name in OFFICE_31.classes[:-1]:
        save(place / "office-31" / "webcam" / "images" / name / "a.jpg", np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match=OFFICE_31.classes[-1]):
        open_domain("office-31:webcam")
