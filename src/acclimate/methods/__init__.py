"""Published methods, one file each; ``acclimate.methods.base`` holds the words they are told in."""

from __future__ import annotations

from acclimate import registry
from acclimate.methods.base import Average, Card, Method, Need, Progress, Sweep, Train

__all__ = ["Average", "Card", "Method", "Need", "Progress", "Sweep", "Train", "find"]


def find(name: str) -> type[Method]:
    """The class of a method by its registered name."""
    return registry.load("methods", name)
