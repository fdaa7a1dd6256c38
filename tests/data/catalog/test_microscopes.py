"""VNC and Lucchi: sections and stacks of electron micrographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.data.open import open_domain
from acclimate.errors import DataError


@pytest.mark.parametrize("inner", ["", "groundtruth-drosophila-vnc-master"])
def test_vnc(place: Path, save: Callable[..., Path], inner: str) -> None:
    stack = place / "vnc" / inner / "stack1"
    for number in range(20):
        save(stack / "raw" / f"{number:02d}.tif", np.full((4, 6), number))
        save(stack / "mitochondria" / f"{number:02d}.png", np.eye(4, 6) * 255)
    train, test = open_domain("vnc"), open_domain("vnc:test")
    assert [int(image.max()) for image in train.images] == list(range(14))
    assert [int(image.max()) for image in test.images] == list(range(14, 20))
    assert len(open_domain("vnc:all")) == 20
    assert train.images[0].shape == (4, 6, 1)
    assert train.labels[0].tolist() == np.eye(4, 6).tolist()


def write(path: Path, pages: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(page.astype(np.uint8)) for page in pages]
    first.save(path, save_all=True, append_images=rest)


def test_lucchi(place: Path) -> None:
    root = place / "lucchi"
    for split, count in (("training", 3), ("testing", 2)):
        write(root / f"{split}.tif", [np.full((4, 6), 10 + n) for n in range(count)])
        write(root / f"{split}_groundtruth.tif", [np.eye(4, 6, n) * 255 for n in range(count)])
    train, test = open_domain("lucchi"), open_domain("lucchi:test")
    assert [int(image.max()) for image in train.images] == [10, 11, 12]
    assert train.images[0].shape == (4, 6, 1)
    assert [label.tolist() for label in train.labels] == [np.eye(4, 6, n).tolist() for n in range(3)]
    assert test.names == ["testing.tif#0", "testing.tif#1"]
    write(root / "testing_groundtruth.tif", [np.zeros((4, 6))])
    with pytest.raises(DataError, match="1 pages"):
        open_domain("lucchi:test")
