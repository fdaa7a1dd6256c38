"""Losses and metrics as curves of TensorBoard."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Any

from acclimate.engine.run import Report
from acclimate.engine.world import World
from acclimate.errors import missing_extra

ILLEGAL = re.compile(r"[^-/\w.]+")  # what TensorBoard does not take in the name of a curve


class TensorBoard:
    """Writes the means of every log interval into ``folder/METHOD/seed-N``; steps count over all stages of a run.

    An instance is an :data:`acclimate.experiment.Listener`: it is called with the method's name, the seed and the
    :class:`~acclimate.engine.run.Report`. A resumed run goes on in a file of its own, which withdraws the points from its
    first step on, so that curves have no point twice.

    Raises :class:`UsageError` where the package ``tensorboard`` is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise missing_extra("tensorboard", "--tensorboard") from None
        self.folder = folder
        self._make = SummaryWriter
        self._writers: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def __call__(self, method: str, seed: int, report: Report) -> None:
        """One report of the engine; those without means add no point."""
        if report.means is None or not World.current().first:
            return
        if (method, seed) not in self._writers:
            place = self.folder / method / f"seed-{seed}"
            self._writers[method, seed] = self._make(str(place), purge_step=report.done)
        writer = self._writers[method, seed]
        for name, value in report.means.items():
            writer.add_scalar(ILLEGAL.sub("-", name), value, report.done)
        writer.flush()
