"""Small folders as a user would have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import toys
from PIL import Image


def classes(root: Path, count: int = 45, shifted: bool = False) -> Path:
    """One sub-folder per class: bar, cross, ring."""
    domain = toys.classification(count)[1 if shifted else 0]
    for i in range(count):
        folder = root / domain.classes[int(domain.labels[i])]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(domain.images[i])).save(folder / f"{i:03}.png")
    return root


def plain(root: Path, count: int = 12) -> Path:
    """Images without labels."""
    root.mkdir(parents=True, exist_ok=True)
    domain = toys.classification(count)[2]
    for i in range(count):
        Image.fromarray(np.asarray(domain.images[i])).save(root / f"{i:03}.png")
    return root


def masks(root: Path, count: int = 12, shifted: bool = False) -> Path:
    """images/, masks/ and classes.json."""
    domain = toys.segmentation(count)[1 if shifted else 0]
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(count):
        Image.fromarray(np.asarray(domain.images[i])[..., 0]).save(root / "images" / f"{i:03}.png")
        Image.fromarray(np.asarray(domain.labels[i]).astype(np.uint8)).save(root / "masks" / f"{i:03}.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "shape"]}))
    return root
