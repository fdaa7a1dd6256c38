"""Cells of a study: one file each, renamed into place, that names the settings and the code it was made with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from acclimate.engine.run import Report
from acclimate.errors import UsageError
from acclimate.experiment import Listener
from acclimate.files import read_json, write_json


class CellFolder:
    """A folder of cells of one study.

    Args:
        settings: of the study; kept in ``settings.json`` beside the hash of the ``code`` that measures.
        identity: a short name of both, which every cell carries.
        force: make again what was made with other settings or by other code.

    Raises :class:`UsageError` where the folder holds another study.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        code: str,
        identity: str,
        listener: Listener | None = None,
        force: bool = False,
    ) -> None:
        self.folder, self.identity, self.listener, self.force = folder, identity, listener, force
        self.done = self.total = 0
        path, wanted = folder / "settings.json", {**settings, "code": code}
        if path.exists() and not force:
            found = read_json(path)
            other = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            if other:
                raise UsageError(
                    f"{folder} holds a study {'by other code' if other == ['code'] else 'with other settings'} "
                    f"({', '.join(other)}); choose another --out, or measure again with --force"
                )
        write_json(path, wanted)

    def cell(self, name: str, stage: str, make: Callable[[], dict[str, Any]], seed: int = 0) -> dict[str, Any]:
        """The cell ``name``: read where it was finished with these settings, else made and kept."""
        path = self.folder / f"{name}.json"
        found = read_json(path) if path.exists() else None
        if found is None or found.get("settings") != self.identity:
            if found is not None and not self.force:
                raise UsageError(f"{path} was measured with other settings or code; choose another --out, or --force")
            begun = time.perf_counter()
            write_json(path, {"settings": self.identity, **make(), "seconds": time.perf_counter() - begun})
            found = read_json(path)
        self.done += 1
        if self.listener:
            self.listener("study", seed, Report(stage, self.done, self.total, self.done, self.total))
        return found
