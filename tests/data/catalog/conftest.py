"""What the tests of the catalog share: a place for a small set, and a way to write images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that ``ACCLIMATE_DATA`` names."""
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def save() -> Save:
    """``save(path, array)`` writes an image, folders included."""

    def write(path: Path, array: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(array, np.uint8)).save(path)
        return path

    return write
