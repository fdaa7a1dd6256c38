"""Cells on a Ray cluster: one remote task each, results in a folder that all machines see."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acclimate.benchmark.cell import Bench, State, no_start
from acclimate.benchmark.schedule import POLL, Tally, Teller, interrupted, line, with_starts
from acclimate.benchmark.table import Cell, load
from acclimate.benchmark.worker import carry_out, job
from acclimate.data.catalog.base import VARIABLE
from acclimate.errors import AcclimateError, Interrupted, missing_extra

LOCAL = "local"
PATIENCE = 60.0  # seconds in which tasks may save after Ctrl-C


def on_ray(bench: Bench, cells: Sequence[Cell], address: str, per_device: int, tell: Teller) -> Tally:
    """Every cell as a task of the cluster at ``address`` (``"local"``: one on this machine), after the one it starts from.

    Args:
        per_device: how many cells share a GPU; on the CPU a task takes one core.

    Raises :class:`UsageError` where Ray is not installed, :class:`Interrupted` after Ctrl-C.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray", "--ray") from error
    variables = {"OMP_NUM_THREADS": "1"}
    if VARIABLE in os.environ:
        variables[VARIABLE] = os.path.abspath(os.environ[VARIABLE])
    ray.init(
        address=None if address == LOCAL else address, runtime_env={"env_vars": variables}, include_dashboard=False,
        log_to_driver=False,
    )  # fmt: skip
    share = {"num_gpus": 1 / per_device} if bench.device.type == "cuda" else {"num_cpus": 1}
    remote = ray.remote(**share)(_task)
    ordered, tally = with_starts(bench, cells), Tally()
    tasks: dict[Cell, Any] = {}
    try:
        for cell in ordered:
            if bench.found(cell)[0] == "done":
                tally.add("done")
                continue
            start = bench.start(cell)
            tasks[cell] = remote.remote(job(bench, cell), tasks.get(start) if start else None)
        waiting = {task: cell for cell, task in tasks.items()}
        while waiting:
            ended, _ = ray.wait(list(waiting), num_returns=1)
            for task in ended:
                cell = waiting.pop(task)
                try:
                    state: State = ray.get(task)
                except ray.exceptions.RayError as error:  # its process died; so do those that start from it
                    bench.fail(cell, AcclimateError(f"its task ended without a result: {error}"))
                    state = "failed"
                if state == "missing":  # a process of another command is at it
                    time.sleep(POLL)
                    tasks[cell] = remote.remote(job(bench, cell), None)
                    waiting[tasks[cell]] = cell
                    continue
                tally.add(state)
                tell(line(bench, cell, tally.done + tally.failed, len(ordered)))
    except (KeyboardInterrupt, Interrupted) as error:
        for task in tasks.values():
            ray.cancel(task)  # raises KeyboardInterrupt there: a run saves and ends
        ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=PATIENCE)
        raise interrupted(tally, len(ordered)) from error
    finally:
        ray.shutdown()
    return tally


def _task(wanted: dict[str, Any], start: State | None) -> State:
    """On the cluster. ``start`` is how the cell that this one starts from has ended, where that was not done before."""
    if start == "failed":
        cell = Cell(**wanted["cell"])
        Bench(load(wanted["table"]), Path(wanted["folder"]), wanted["device"]).fail(cell, no_start())
        return "failed"
    return carry_out(wanted)
