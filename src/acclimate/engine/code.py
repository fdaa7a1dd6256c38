"""The files that a method's numbers depend on beyond its settings: its own, those of its bases, and their losses."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType

import acclimate.losses
from acclimate.losses import cross_entropy
from acclimate.methods.base import Method


def code_files(method: type[Method]) -> list[Path]:
    """The method's file, the files of the methods it extends, and of every loss that these use, in order of name.

    Other methods, other losses and the rest of the library do not count, so that a commit elsewhere voids no finished run.
    """
    kinds = [kind for kind in method.__mro__ if issubclass(kind, Method) and kind is not Method]
    found: dict[str, ModuleType] = {}
    waiting = [sys.modules[kind.__module__] for kind in kinds]
    waiting.append(sys.modules[cross_entropy.__module__])  # reached through the task, not through the method's file
    while waiting:
        module = waiting.pop()
        if module.__name__ in found:
            continue
        found[module.__name__] = module
        waiting += [sys.modules[name] for name in _used(module) if name.startswith(f"{acclimate.losses.__name__}.")]
    return sorted({Path(inspect.getfile(module)) for module in found.values()})


def _used(module: ModuleType) -> set[str]:
    """The modules in which the names of a module were defined."""
    values = vars(module).values()
    return {str(getattr(value, "__module__", "")) for value in values if callable(value)}
