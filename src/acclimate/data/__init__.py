"""Domains: opening, decoding, checking, downloading."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acclimate.data.archives import extract
    from acclimate.data.catalog.base import Card, Dataset, Remote
    from acclimate.data.check import Finding, usable
    from acclimate.data.domain import IGNORE, Domain
    from acclimate.data.folder import match_classes, open_folder
    from acclimate.data.open import open_domain, open_splits

_HOME = {
    "IGNORE": "domain",
    "Card": "catalog.base",
    "Dataset": "catalog.base",
    "Domain": "domain",
    "Finding": "check",
    "Remote": "catalog.base",
    "extract": "archives",
    "match_classes": "folder",
    "open_domain": "open",
    "open_folder": "folder",
    "open_splits": "open",
    "usable": "check",
}

__all__ = [
    "IGNORE",
    "Card",
    "Dataset",
    "Domain",
    "Finding",
    "Remote",
    "extract",
    "match_classes",
    "open_domain",
    "open_folder",
    "open_splits",
    "usable",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: the command line must start without torch.

    ``check`` and ``download`` are missing here because modules bear these names: import them from there.
    """
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
