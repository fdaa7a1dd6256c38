"""MNIST-M from its folders and lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acclimate.data.open import open_domain
from acclimate.errors import DataError


@pytest.mark.parametrize("inner", ["", "mnist_m"])
def test_images_follow_the_list(place: Path, save: Callable[..., Path], inner: str) -> None:
    root = place / "mnist-m" / inner
    for split, labels in (("train", [5, 0, 4]), ("test", [7])):
        for index, label in enumerate(labels):
            save(root / f"mnist_m_{split}" / f"{index:08d}.png", np.full((32, 32, 3), 10 * label))
        lines = [f"{index:08d}.png {label}\n" for index, label in enumerate(labels)]
        (root / f"mnist_m_{split}_labels.txt").write_text("".join(reversed(lines)))
    train = open_domain("mnist-m")
    assert list(train.labels) == [4, 0, 5]
    assert [int(image.max()) for image in train.images] == [40, 0, 50]
    assert train.images[0].shape == (32, 32, 3)
    assert list(open_domain("mnist-m:test").labels) == [7]


def test_a_damaged_list_is_named(place: Path, save: Callable[..., Path]) -> None:
    save(place / "mnist-m" / "mnist_m_train" / "0.png", np.zeros((32, 32, 3)))
    (place / "mnist-m" / "mnist_m_train_labels.txt").write_text("0.png\n")
    with pytest.raises(DataError, match="mnist_m_train_labels"):
        open_domain("mnist-m")
