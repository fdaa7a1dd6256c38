"""Which cells run where: one after another here, or several at once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from acclimate.benchmark.cell import Bench, State, no_start
from acclimate.benchmark.table import Cell
from acclimate.benchmark.worker import CODES, job
from acclimate.engine.interrupt import Interruptible
from acclimate.errors import AcclimateError, Interrupted, UsageError
from acclimate.experiment import Listener

POLL = 1.0  # seconds between two looks at a cell that another process is at
WATCH = 0.1  # seconds between two looks at the processes of this one

Teller = Callable[[str], None]
Watch = Callable[[], contextlib.AbstractContextManager[Listener | None]]


@dataclasses.dataclass
class Tally:
    """How a list of cells went."""

    done: int = 0
    failed: int = 0

    def add(self, state: State) -> None:
        """Count a cell that has ended."""
        self.done += state == "done"
        self.failed += state == "failed"


def shard(cells: Sequence[Cell], part: str | None) -> list[Cell]:
    """Every n-th cell, for ``"i/n"`` with i in 1..n. Raises :class:`UsageError` for anything else."""
    if part is None:
        return list(cells)
    number, slash, count = part.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {part!r}: write i/n with i from 1 to n, such as 2/4")
    return list(cells)[int(number) - 1 :: int(count)]


def in_turn(bench: Bench, cells: Sequence[Cell], tell: Teller, watch: Watch = contextlib.nullcontext) -> Tally:
    """One cell after another in this process; one that another process is at comes last.

    Args:
        watch: opened for each cell; what it gives hears the engine.

    Raises :class:`Interrupted` after a signal: what is finished is kept, what was begun goes on from its checkpoint.
    """
    tally, waiting = Tally(), deque(cells)
    busy = 0  # cells in a row that others are at
    try:
        while waiting:
            cell = waiting.popleft()
            before = bench.found(cell)[0]
            state = before
            if before != "done":
                with watch() as listener:
                    state = bench.run(cell, listener)
            if state == "missing":
                waiting.append(cell)
                busy += 1
                if busy >= len(waiting):
                    if busy == len(waiting):
                        tell(
                            f"waiting for another process, which is at {cell.label}, seed {cell.seed}, "
                            "or at what it starts from"
                        )
                    time.sleep(POLL)
                continue
            busy = 0
            tally.add(state)
            if before != "done":
                tell(line(bench, cell, tally.done + tally.failed, len(cells)))
    except (KeyboardInterrupt, Interrupted) as error:
        raise interrupted(tally, len(cells)) from error
    return tally


def at_once(bench: Bench, cells: Sequence[Cell], jobs: int, tell: Teller) -> Tally:
    """``jobs`` cells at a time, each in a process of its own whose output is in ``logs/``; starts come first.

    Raises what :func:`in_turn` raises.
    """
    ordered, tally = with_starts(bench, cells), Tally()
    ended: dict[Cell, State] = {cell: "done" for cell in ordered if bench.found(cell)[0] == "done"}
    tally.done = len(ended)
    waiting = [cell for cell in ordered if cell not in ended]
    running: dict[Cell, subprocess.Popen[bytes]] = {}

    def end(cell: Cell, state: State) -> None:
        ended[cell] = state
        tally.add(state)
        tell(line(bench, cell, tally.done + tally.failed, len(ordered)))

    with Interruptible() as interrupt, contextlib.ExitStack() as logs:
        while (waiting or running) and not interrupt.asked:
            for cell in list(waiting):
                start = bench.start(cell)
                before = "done" if start is None else ended.get(start)
                if before == "failed":
                    waiting.remove(cell)
                    bench.fail(cell, no_start())
                    end(cell, "failed")
                elif before == "done" and len(running) < jobs and not bench.busy(cell):
                    waiting.remove(cell)
                    running[cell] = _process(bench, cell, jobs, logs)
            time.sleep(WATCH)
            for cell, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[cell]
                state = bench.found(cell)[0]
                if code == CODES["missing"]:  # a process of another command was quicker
                    waiting.append(cell)
                elif code in (CODES["done"], CODES["failed"]) and state in ("done", "failed"):
                    end(cell, state)
                elif not interrupt.asked:
                    bench.fail(cell, AcclimateError(f"its process ended with {code}; see {_log(bench, cell)}"))
                    end(cell, "failed")
        if interrupt.asked:
            _stop(running.values())
            raise interrupted(tally, len(ordered))
    return tally


def with_starts(bench: Bench, cells: Sequence[Cell]) -> list[Cell]:
    """The cells, each after the one it starts from, also where only the other was asked for."""
    ordered: dict[Cell, None] = {}
    for cell in cells:
        start = bench.start(cell)
        if start is not None:
            ordered.setdefault(start)
        ordered.setdefault(cell)
    return list(ordered)


def _process(bench: Bench, cell: Cell, jobs: int, logs: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    threads = max(1, cores() // jobs)
    path = _log(bench, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logs.enter_context(path.open("ab"))
    command = [sys.executable, "-m", "acclimate.benchmark.worker", json.dumps(job(bench, cell))]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
    )


def cores() -> int:
    """How many cores this process may use: a container or ``taskset`` may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _log(bench: Bench, cell: Cell) -> Path:
    name = f"{cell.task}-{cell.row}-{cell.preset}-{bench.device.type}-seed-{cell.seed}.txt"
    return bench.folder / "logs" / name


def _stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask each to save and end, and wait for it."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait()


def interrupted(tally: Tally, total: int) -> Interrupted:
    """What a person reads after Ctrl-C."""
    return Interrupted(f"interrupted; {tally.done} of {total} cells are finished: run the same command to continue")


def line(bench: Bench, cell: Cell, number: int, total: int) -> str:
    """What a person reads when a cell has ended."""
    state, facts = bench.found(cell)
    text = f"{number}/{total} {cell.label}, seed {cell.seed}"
    if state == "done" and facts is not None:
        score = facts["target_test"]
        return f"{text}: {score['primary']} {100 * score['value']:.2f} %, {facts['seconds'] / 60:.1f} min"
    return f"{text}: failed: {facts['message'] if facts else 'no result'}"
