"""Methods, networks, data sets and scores by name, through entry points; built-ins register exactly as plug-ins do.

Listing names imports nothing; loading one imports its module only.
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from acclimate.errors import UsageError, unknown

KINDS = {"methods": "method", "networks": "network", "datasets": "data set", "scores": "score"}


@functools.cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=f"acclimate.{kind}"):
        if entry.name in found and found[entry.name].value != entry.value:
            raise UsageError(
                f"two packages register the {KINDS[kind]} {entry.name!r} ({found[entry.name].value}, {entry.value}); "
                "uninstall one of them"
            )
        found[entry.name] = entry
    return found


def names(kind: str) -> list[str]:
    """All names of a kind (``methods``, ``networks``, ``datasets``, ``scores``) in the order of the alphabet."""
    return sorted(_entries(kind))


def load(kind: str, name: str) -> Any:
    """The object registered under ``name``.

    Raises :class:`UsageError` naming the nearest known name.
    """
    entries = _entries(kind)
    if name not in entries:
        raise unknown(KINDS[kind], name, entries)
    return entries[name].load()
