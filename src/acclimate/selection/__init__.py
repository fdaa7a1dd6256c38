"""Scores that need no target label: how a result is chosen where it will be used; one score, one file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from acclimate import registry
from acclimate.selection.base import Score, Seen

__all__ = ["DEFAULT", "DEFAULT_ALONE", "Score", "Seen", "find"]

DEFAULT: Mapping[str, str] = MappingProxyType({"classification": "agreement", "segmentation": "agreement"})
"""By task the score with the least mean regret in the study of docs/studies/selection.md."""

DEFAULT_ALONE: Mapping[str, str] = MappingProxyType(
    {"classification": "information-maximisation", "segmentation": "morphology"}
)
"""The same among the scores that look at one model alone, for sweeps."""


def find(name: str) -> Score:
    """A score by its registered name (entry point ``acclimate.scores``)."""
    return registry.load("scores", name)
