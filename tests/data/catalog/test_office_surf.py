"""Office-Caltech-10 as histograms of SURF words, from MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from acclimate.data.open import open_domain
from acclimate.errors import DataError

FILES = {
    "amazon": "amazon_SURF_L10.mat",
    "caltech": "Caltech10_SURF_L10.mat",
    "dslr": "dslr_SURF_L10.mat",
    "webcam": "webcam_SURF_L10.mat",
}


def write(path: Path, counts: object, labels: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"fts": np.asarray(counts), "labels": np.asarray(labels)[:, None]})


@pytest.mark.parametrize("layout", ["authors", "features/surf", "."])
def test_each_domain_is_a_row_of_pixels(place: Path, layout: str) -> None:
    rng = np.random.default_rng(0)
    expected = {}
    for number, (split, name) in enumerate(FILES.items(), 3):
        counts = rng.integers(0, 116, (number, 800)).astype(float)
        expected[split] = counts
        short = "caltech10.mat" if split == "caltech" else f"{split}.mat"
        path = name if layout == "authors" else f"{layout}/{short}"
        write(place / "office-caltech-10-surf" / path, counts, np.arange(10, 10 - number, -1.0))
    for split, counts in expected.items():
        domain = open_domain(f"office-caltech-10-surf:{split}")
        assert list(domain.labels) == list(range(9, 9 - len(counts), -1))
        assert domain.images[0].shape == (1, 800, 1)
        assert domain.images[0].dtype == np.uint8
        np.testing.assert_array_equal(np.stack(list(domain.images))[:, 0, :, 0], counts)
        assert domain.classes[0] == "back_pack"


@pytest.mark.parametrize(
    ("counts", "labels", "said"),
    [
        (np.full((2, 800), 0.25), [1, 2], "before any scaling"),
        (np.full((2, 800), 256.0), [1, 2], "no counts from 0 to 255"),
        (np.full((2, 800), -1.0), [1, 2], "no counts from 0 to 255"),
        (np.ones((2, 799)), [1, 2], "not \\(N, 800\\)"),
        (np.ones((2, 800)), [0, 2], "numbers from 1 to 10"),
        (np.ones((2, 800)), [1, 11], "numbers from 1 to 10"),
        (np.ones((2, 800)), [1, 2, 3], "2 images but 3 labels"),
    ],
)
def test_what_are_no_counts_of_words_is_refused(place: Path, counts: np.ndarray, labels: list[int], said: str) -> None:
    write(place / "office-caltech-10-surf" / FILES["webcam"], counts, labels)
    with pytest.raises(DataError, match=said):
        open_domain("office-caltech-10-surf:webcam")


@pytest.mark.parametrize("content", [b"junk", b""])
def test_damaged_files_are_named(place: Path, content: bytes) -> None:
    folder = place / "office-caltech-10-surf"
    folder.mkdir()
    (folder / FILES["dslr"]).write_bytes(content)
    with pytest.raises(DataError, match=r"dslr_SURF_L10\.mat cannot be read"):
        open_domain("office-caltech-10-surf:dslr")
