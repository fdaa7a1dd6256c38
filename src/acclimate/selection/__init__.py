"""Scores that need no target label: how a result is chosen where it will be used; one score, one file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from acclimate import registry
from acclimate.selection.base import Score, Seen

__all__ = ["DEFAULT", "Score", "Seen", "find"]

DEFAULT: Mapping[str, str] = MappingProxyType({"classification": "snd", "segmentation": "snd"})
"""By task the score that chose best in the study of docs/studies/selection.md."""


def find(name: str) -> Score:
    """A score by its registered name (entry point ``acclimate.scores``)."""
    return registry.load("scores", name)
