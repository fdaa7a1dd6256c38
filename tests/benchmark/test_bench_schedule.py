"""Order, shards, several processes at once, and interruptions between cells."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from small_table import BREAKS, cell

from acclimate.benchmark import schedule
from acclimate.benchmark.cell import Bench
from acclimate.benchmark.schedule import at_once, in_turn, shard, with_starts
from acclimate.benchmark.worker import job
from acclimate.errors import Interrupted, UsageError


def silent(text: str) -> None:
    """Say nothing."""


def test_shards_share_all_cells(shapes):
    cells = shapes.bench().table.cells("quick", range(3))
    parts = [shard(cells, f"{i}/4") for i in (1, 2, 3, 4)]
    assert sorted(str(one) for part in parts for one in part) == sorted(map(str, cells))
    assert parts[1] == cells[1::4]
    assert shard(cells, None) == cells
    for wrong in ("0/4", "5/4", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UsageError, match="write i/n"):
            shard(cells, wrong)


def test_a_failure_does_not_stop_the_others(shapes):
    shapes.edit(*BREAKS)
    bench, said = shapes.bench(), []
    wanted = bench.table.cells("quick", [0], tasks=["shapes"])
    tally = in_turn(bench, wanted, said.append)
    assert (tally.done, tally.failed) == (4, 1)
    assert [text.split(":")[0] for text in said] == [
        f"{i}/5 shapes, {row}, seed 0" for i, row in enumerate(bench.table.rows, 1)
    ]
    assert "failed: 'supervised' became non-finite" in said[3]
    before = {path: path.stat().st_mtime_ns for path in shapes.out.rglob("result.json")}
    again = in_turn(shapes.bench(), wanted, said.append)
    assert (again.done, again.failed) == (4, 1)
    assert len(said) == 6  # only the failed one is tried again
    assert {path: path.stat().st_mtime_ns for path in shapes.out.rglob("result.json")} == before


def test_an_interruption_tells_what_is_kept(shapes):
    bench = shapes.bench()
    wanted = [cell("source-only"), cell("dann"), cell("dann-wide")]

    @contextlib.contextmanager
    def watch():
        def listen(name, seed, report):
            if name == "shapes, dann" and report.step == 4:
                os.kill(os.getpid(), signal.SIGINT)

        yield listen

    with pytest.raises(Interrupted, match="1 of 3 cells are finished: run the same command to continue"):
        in_turn(bench, wanted, silent, watch)
    assert [bench.found(which)[0] for which in wanted] == ["done", "missing", "missing"]
    assert list((bench.place(cell("dann")) / "run" / "checkpoints").iterdir())
    assert in_turn(shapes.bench(), wanted, silent).done == 3


def test_a_cell_in_other_hands_comes_last_and_is_waited_for(shapes, monkeypatch):
    import fcntl

    monkeypatch.setattr(schedule, "POLL", 0.02)
    bench, said = shapes.bench(), []
    place = bench.place(cell("source-only"))
    place.parent.mkdir(parents=True)
    lock = (place.parent / f".{place.name}.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def tell(text):
        said.append(text)
        if "waiting" in text:
            threading.Timer(0.1, lock.close).start()

    tally = in_turn(bench, [cell("adabn"), cell("dann"), cell("source-only")], tell)
    assert tally.done == 3
    assert [text.partition(":")[0] for text in said] == [
        "1/3 shapes, dann, seed 0",
        "waiting for another process, which is at shapes, adabn, seed 0, or at what it starts from",
        *[text.partition(":")[0] for text in said[2:]],
    ]
    assert len(said) in (3, 4)  # source-only may be counted as the start of adabn


def test_starts_come_first_also_where_nobody_asked_for_them(shapes):
    ordered = with_starts(shapes.bench(), [cell("dann"), cell("adabn"), cell("adabn", 1), cell("source-only", 1)])
    assert ordered == [
        cell("dann"), cell("source-only"), cell("adabn"), cell("source-only", 1), cell("adabn", 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_processes_at_once_give_the_same_numbers(shapes, tmp_path):
    shapes.edit(*BREAKS)
    wanted = [cell("source-only"), cell("dann-wide")]
    one = shapes.bench()
    in_turn(one, wanted, silent)
    two, said = Bench(one.table, tmp_path / "two", "cpu"), []
    tally = at_once(two, wanted, 2, said.append)
    assert (tally.done, tally.failed, len(said)) == (1, 1, 2)
    first, second = (bench.found(wanted[0])[1] for bench in (one, two))
    assert first["target_test"] == second["target_test"]
    assert first["key"] == second["key"]
    assert two.found(cell("dann-wide"))[0] == "failed"
    log = tmp_path / "two" / "logs" / "shapes-source-only-quick-cpu-seed-0.txt"
    assert "train 6/6" in log.read_text()


def test_a_process_that_dies_is_a_failure_with_its_log(shapes, monkeypatch):
    real = subprocess.Popen
    monkeypatch.setattr(
        schedule.subprocess,
        "Popen",
        lambda command, **rest: real([sys.executable, "-c", "import sys; sys.exit(9)"], **rest),
    )
    bench, said = shapes.bench(), []
    tally = at_once(bench, [cell("adabn")], 2, said.append)
    assert (tally.done, tally.failed) == (0, 2)
    assert "ended with 9; see " in bench.found(cell("source-only"))[1]["message"]
    assert "which failed" in bench.found(cell("adabn"))[1]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_no_process_goes_on_when_the_first_one_ends(shapes, how):
    shapes.edit("steps = 6", "steps = 100000")
    code = (
        "import sys\nfrom acclimate.benchmark.schedule import at_once\n"
        "from acclimate.benchmark.cell import Bench\nfrom acclimate.benchmark.table import Cell, load\n"
        "from acclimate.errors import Interrupted\nfrom pathlib import Path\n"
        "bench = Bench(load(sys.argv[1]), Path(sys.argv[2]), 'cpu')\n"
        "try:\n    at_once(bench, [Cell('shapes', 'dann', 'quick', seed) for seed in (0, 1)], 1, print)\n"
        "except Interrupted as error:\n    print(error)\n    sys.exit(130)\n"
    )
    command = [sys.executable, "-c", code, str(shapes.path), str(shapes.out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    bench = shapes.bench()
    checkpoints = bench.place(cell("dann")) / "run" / "checkpoints"
    while not list(checkpoints.glob("0*")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(how)
    out, _ = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "0 of 2 cells are finished" in out
        assert not bench.busy(cell("dann"))  # it was waited for
    deadline = time.monotonic() + 600  # of a step and a checkpoint, on a machine that is busy with other things
    while bench.busy(cell("dann")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert list(checkpoints.glob("0*"))
    assert not bench.place(cell("dann", 1)).exists()


def test_a_job_survives_json(shapes):
    found = json.loads(json.dumps(job(shapes.bench(), cell("dann", 3))))
    assert found["table"] == str(shapes.path)
    assert found["cell"] == {"task": "shapes", "row": "dann", "preset": "quick", "seed": 3}
