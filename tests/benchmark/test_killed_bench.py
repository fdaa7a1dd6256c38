"""`acclimate bench`, killed at random moments and run again until it is done, ends with the table of an undisturbed run."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from runs import on_tick
from small_table import TABLE

from acclimate.benchmark import schedule
from acclimate.cli import main
from acclimate.files import read_json, sha256

ROWS = ("source-only", "adabn", "dann")
# what a sitting, not a table, decides
ONCE = {"seconds", "minutes", "memory", "date", "commit", "machine", "machines", "versions"}
LONGEST = 300.0  # seconds that a test waits for what takes a few, on a machine that is busy with other things


def begin(table: Path, out: Path, rows: Sequence[str], *words: str, kill: tuple[int, float] | None = None) -> int:
    """`acclimate bench` in a child, which ends wherever it is so many seconds of a processor after an update of weights."""
    command = ["bench", str(table), "--tasks", "shapes", "--methods", ",".join(rows), "--seeds", "1", "--out", str(out)]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log = Path(f"{out}.txt").open("a", buffering=1)  # noqa: SIM115 - open as long as the child is there
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = log  # pytest's own would keep what is written
            if kill is not None:
                at, seconds = kill
                signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends it as SIGKILL does: no Python is run
                on_tick(pytest.MonkeyPatch(), lambda tick: tick == at and signal.setitimer(signal.ITIMER_PROF, seconds))
            code = main([*command, "--device", "cpu", *words])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def end(child: int) -> int:
    """How it ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said(out: Path) -> str:
    """What the children wrote, and why cells failed."""
    places = [Path(f"{out}.txt"), *sorted(out.glob("cells/*/*/*/failure.json"))]
    return "\n".join(f"{place}:\n{place.read_text()}" for place in places if place.exists())


def without(found: Any) -> Any:
    """A document without what differs between two sittings."""
    if isinstance(found, dict):
        return {name: without(value) for name, value in found.items() if name not in ONCE}
    return [without(value) for value in found] if isinstance(found, list) else found


def left(out: Path) -> dict[str, Any]:
    """What a reader of the folder finds."""
    lines = [
        [text for name, text in line.items() if name not in ONCE]
        for line in csv.DictReader(io.StringIO((out / "table.csv").read_text()))
    ]
    facts: dict[str, Any] = {"table.csv": lines, "table.json": without(read_json(out / "table.json"))}
    for path in sorted(
        path for path in (out / "cells").rglob("*") if path.is_file() and path.suffix not in (".lock", ".tmp")
    ):
        name = str(path.relative_to(out))
        if path.name == "result.json":
            facts[name] = without(read_json(path))
        elif path.name != "seconds.json":
            facts[name] = sha256(path)
    return facts


def checkpoints(out: Path) -> set[Path]:
    """Those of cells that are not done."""
    return set(out.glob("cells/*/*/*/run/checkpoints/0*"))


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def table(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small table with more steps, and checkpoints in plenty."""
    path = tmp_path_factory.mktemp("killed") / "shapes.toml"
    path.write_text(
        TABLE.format(root=pictures).replace("steps = 6", "steps = 40").replace("save_every = 2", "save_every = 5")
    )
    return path


@pytest.fixture(scope="module")
def whole(table: Path) -> dict[str, Any]:
    """What an undisturbed run leaves."""
    out = table.parent / "whole"
    assert end(begin(table, out, ROWS)) == 0, said(out)
    found = left(out)
    assert sum(name.endswith("model.safetensors") for name in found) == len(ROWS)
    return found


def test_a_child_that_fails_says_why(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert end(begin(table, out, ["no-such-row"])) == 2
    assert "unknown method of this table 'no-such-row'" in said(out)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_it_ends_with_the_same_table(
    table: Path, whole: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    rng, out, cut_off = random.Random(seed), tmp_path / "out", set()
    for _ in range(3):
        code = end(begin(table, out, ROWS, kill=(rng.randrange(5, 40), rng.uniform(0.001, 0.1))))
        assert code in (0, -signal.SIGPROF), said(out)  # what was left may have been less
        cut_off |= checkpoints(out)
    assert cut_off  # something was gone on with
    assert end(begin(table, out, ROWS)) == 0, said(out)
    assert left(out) == whole


@pytest.mark.slow
def test_killed_with_two_cells_at_once_it_ends_with_the_same_table(
    table: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        schedule, "cores", lambda: 2
    )  # one thread for each of two, as for the one that was not disturbed
    rng, out = random.Random(0), tmp_path / "out"
    for alone in (False, True):  # all processes; then the first alone, whose others find out, save and end meanwhile
        before = checkpoints(out)
        parent, deadline = begin(table, out, ("source-only", "dann"), "--jobs", "2"), time.monotonic() + LONGEST
        while not checkpoints(out) - before:
            assert os.waitpid(parent, os.WNOHANG) == (0, 0), said(out)
            assert time.monotonic() < deadline, said(out)
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        workers = children(parent)
        assert workers
        for process in [parent] if alone else [parent, *workers]:
            os.kill(process, signal.SIGKILL)
        assert end(parent) == -signal.SIGKILL
    assert end(begin(table, out, ROWS)) == 0, said(out)
    assert left(out) == whole
