"""One cell in a process of its own: ``python -m acclimate.benchmark.worker JOB``, with the job as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from acclimate.benchmark.cell import Bench, State
from acclimate.benchmark.table import Cell, load
from acclimate.engine.run import Report
from acclimate.errors import Interrupted
from acclimate.experiment import Listener


def job(bench: Bench, cell: Cell) -> dict[str, Any]:
    """All that another process needs to run a cell."""
    ref = bench.table.ref
    return {
        "table": os.path.abspath(ref) if ref.endswith(".toml") else ref,
        "folder": str(bench.folder.absolute()),
        "device": str(bench.device),
        "cell": dataclasses.asdict(cell),
    }


def carry_out(wanted: dict[str, Any], listener: Listener | None = None) -> State:
    """Run the cell of a job."""
    bench = Bench(load(wanted["table"]), Path(wanted["folder"]), wanted["device"])
    return bench.run(Cell(**wanted["cell"]), listener)


class _Child:
    """Tells on stderr how far the cell is, and saves and ends when the process that started this one is gone."""

    def __init__(self) -> None:
        self._parent = os.getppid()

    def __call__(self, label: str, seed: int, report: Report) -> None:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in (report.means or {}).items())
        print(
            f"{label}, seed {seed}: {report.stage} {report.done}/{report.total} {losses}", file=sys.stderr, flush=True
        )
        if os.getppid() != self._parent:
            os.kill(os.getpid(), signal.SIGTERM)  # the engine's own way to stop


CODES: dict[State, int] = {"done": 0, "failed": 1, "missing": 75}


def main(words: list[str]) -> int:
    """The exit code says how it went: 0 done, 1 failed and recorded, 75 another process is at it, 130 interrupted."""
    try:
        return CODES[carry_out(json.loads(words[0]), _Child())]
    except (Interrupted, KeyboardInterrupt):
        return Interrupted.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
