"""The small table in a folder of its own, and its images."""

from __future__ import annotations

from pathlib import Path

import folders
import pytest
from small_table import TABLE, Shapes


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two folders of images."""
    root = tmp_path_factory.mktemp("pictures")
    folders.classes(root / "plain", 60)
    folders.classes(root / "tinted", 60, shifted=True)
    return root


@pytest.fixture
def shapes(pictures: Path, tmp_path: Path) -> Shapes:
    """The table, and no cell yet."""
    path = tmp_path / "shapes.toml"
    path.write_text(TABLE.format(root=pictures))
    return Shapes(path, tmp_path / "out")
