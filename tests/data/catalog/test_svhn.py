"""SVHN and SynDigits from MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.data.open import open_domain
from acclimate.errors import DataError

scipy_io = pytest.importorskip("scipy.io")


@pytest.mark.parametrize(
    ("name", "pattern", "splits"),
    [("svhn", "{}_32x32.mat", ("train", "test", "extra")), ("syn-digits", "synth_{}_32x32.mat", ("train", "test"))],
)
def test_images_and_labels(place: Path, name: str, pattern: str, splits: tuple[str, ...]) -> None:
    (place / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for count, split in enumerate(splits, 3):
        labels = np.array([10, 1, 9, 0, 5], np.uint8)[:count, None]
        scipy_io.savemat(place / name / pattern.format(split), {"X": pixels[:count].transpose(1, 2, 3, 0), "y": labels})
        domain = open_domain(name, split)
        np.testing.assert_array_equal(np.stack(list(domain.images)), pixels[:count])
        assert list(domain.labels) == [0, 1, 9, 0, 5][:count]


def test_a_damaged_file_is_named(place: Path) -> None:
    (place / "svhn").mkdir()
    path = place / "svhn" / "train_32x32.mat"
    for content in (b"", b"junk" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match="train_32x32"):
            open_domain("svhn")
    scipy_io.savemat(path, {"Z": np.zeros(3)})
    with pytest.raises(DataError, match="train_32x32"):
        open_domain("svhn")
