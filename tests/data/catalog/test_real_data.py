"""The published sets themselves, where ``benchmarks/convert.py`` has put them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.data.open import open_domain

ROOT = Path(__file__).resolve().parents[3] / ".cache" / "data"

SETS = {
    "mnist": (60_000, (28, 28, 1), 10),
    "mnist:test": (10_000, (28, 28, 1), 10),
    "usps": (7_291, (16, 16, 1), 10),
    "usps:test": (2_007, (16, 16, 1), 10),
    "mnist-m": (59_001, (32, 32, 3), 10),
    "mnist-m:test": (9_001, (32, 32, 3), 10),
    "gtsrb:test": (12_630, (32, 32, 3), 43),
    "office-31:webcam": (795, None, 31),
    "office-caltech-10:amazon": (958, None, 10),
    "office-caltech-10:caltech": (1_123, None, 10),
    "office-caltech-10-surf:caltech": (1_123, (1, 800, 1), 10),
    "camvid": (367, (360, 480, 3), 11),
    "camvid:day": (502, (360, 480, 3), 11),
    "camvid:dusk": (124, (360, 480, 3), 11),
    "vnc": (14, (1024, 1024, 1), 2),
    "vnc:test": (6, (1024, 1024, 1), 2),
    "lucchi": (14, (768, 1024, 1), 2),
    "lucchi:test": (14, (768, 1024, 1), 2),
    "drive": (20, (584, 565, 3), 2),
    "drive:test": (20, (584, 565, 3), 2),
    "chase": (20, (960, 999, 3), 2),
    "chase:test": (8, (960, 999, 3), 2),
    "stare": (10, (605, 700, 3), 2),
    "stare:test": (10, (605, 700, 3), 2),
}


@pytest.mark.parametrize("ref", SETS)
def test_numbers_and_shapes(ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ref.split(":")[0]).is_dir():
        pytest.skip(f"no real data in {ROOT}: run benchmarks/convert.py")
    monkeypatch.setenv("ACCLIMATE_DATA", str(ROOT))
    domain = open_domain(ref)
    count, shape, classes = SETS[ref]
    assert len(domain) == count
    assert shape in (None, domain.images[0].shape)
    assert len(domain.classes) == classes
    if domain.task == "classification":
        assert np.unique(np.asarray(domain.labels)).tolist() == list(range(classes))
    else:
        assert domain.labels[0].shape == domain.images[0].shape[:2]
        assert set(np.unique(domain.labels[0]).tolist()) <= set(range(-1, classes))


@pytest.mark.parametrize("ref", ["drive", "chase", "stare"])
def test_field_of_view_is_most_of_the_picture_and_holds_the_vessels(ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is published (DRIVE: 69 % of the picture) or found."""
    if not (ROOT / ref).is_dir():
        pytest.skip(f"no real data in {ROOT}: run benchmarks/convert.py")
    monkeypatch.setenv("ACCLIMATE_DATA", str(ROOT))
    for label in list(open_domain(ref).labels)[::7]:
        inside = label >= 0
        assert 0.65 < inside.mean() < 0.85
        assert 0.07 < (label == 1).sum() / inside.sum() < 0.18


def test_mnist_m_follows_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / "mnist").is_dir() or not (ROOT / "mnist-m").is_dir():
        pytest.skip(f"no real data in {ROOT}: run benchmarks/convert.py")
    monkeypatch.setenv("ACCLIMATE_DATA", str(ROOT))
    mnist, blended = open_domain("mnist:test"), open_domain("mnist-m:test")
    assert list(mnist.labels[:9_001]) == list(blended.labels)
