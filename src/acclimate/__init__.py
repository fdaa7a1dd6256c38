"""acclimate: make a vision model work in the place where it will be used."""

from __future__ import annotations

__version__ = "0.1.0"
