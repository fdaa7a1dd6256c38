"""``bench`` as a person uses it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from acclimate.benchmark.schedule import Tally
from acclimate.benchmark.table import names
from acclimate.files import read_json

TABLE = """
title = "A small table"
description = "Two folders."

[presets.quick.plan]
steps = 4
batch = 8
log_every = 1
precision = "float32"

[[tasks]]
name = "real"
title = "Simulated → real"
source = "{place}/simulated"
target = "{place}/real"
network = "dann-mnist"
network_settings = {{ norm = "batch" }}
preprocess = {{ size = 16 }}

[[methods]]
name = "source-only"

[[methods]]
name = "adabn"

[[methods]]
name = "dann"
settings = {{ hidden = [10] }}
"""


@pytest.fixture
def table(place, tmp_path):
    """The table's file."""
    path = tmp_path / "small.toml"
    path.write_text(TABLE.format(place=place))
    return path


def test_a_table_is_filled_cell_by_cell(call, table, tmp_path):
    words = ("bench", table, "--out", tmp_path / "out", "--device", "cpu", "--seeds", "2")
    first = call(*words, "--methods", "adabn")
    assert first.code == 0, first.err
    assert "2 cells, preset quick, on cpu" in first.err
    assert "2/2 real, adabn, seed 1: accuracy" in first.err
    assert "quick on cpu, seeds 0, 1" in first.out
    lines = dict(line.split(maxsplit=1) for line in first.out.splitlines() if "±" in line)
    assert set(lines) == {"source-only", "adabn"}  # adabn starts from source-only; dann is blank
    second = call(*words)
    assert second.code == 0
    assert "real, dann, seed 1: accuracy" in second.err
    assert "real, adabn" not in second.err  # it was there
    assert len(second.out.splitlines()) + len(second.err.splitlines()) < 40
    for kind in ("md", "html", "csv", "json"):
        assert (tmp_path / "out" / f"table.{kind}").stat().st_size > 300
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*") if path.is_file()}
    (tmp_path / "out" / "table.md").unlink()
    third = call(*words, "--show")
    assert third.out == second.out
    assert third.err == ""
    assert (tmp_path / "out" / "table.md").exists()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "cells").rglob("*") if p.is_file()} == before
    found = call(*words, "--show", "--json").json
    assert found == read_json(tmp_path / "out" / "table.json")
    assert [row["row"] for row in found["parts"][0]["rows"]] == ["source-only", "adabn", "dann"]


def test_a_failed_cell_is_said_and_ends_with_1(call, table, tmp_path):
    table.write_text(table.read_text() + "plan = { optimiser = { lr = 1e30 } }\n")
    answer = call("bench", table, "--out", tmp_path / "out", "--device", "cpu", "--seeds", "1")
    assert answer.code == 1
    assert "3/3 real, dann, seed 0: failed: " in answer.err
    assert "failed: 'supervised' became non-finite" in answer.out
    assert "failed: " in (tmp_path / "out" / "table.md").read_text()
    assert call("bench", table, "--out", tmp_path / "out", "--device", "cpu", "--seeds", "1", "--show").code == 0


def test_nothing_to_show_says_what_to_run(call, table, tmp_path):
    answer = call("bench", table, "--out", tmp_path / "out", "--device", "cpu", "--show")
    assert answer.code == 0
    assert answer.out == f"no cell has been run yet in {tmp_path / 'out'}\n"
    assert answer.err == f"next: acclimate bench {table} --out {tmp_path / 'out'} --device cpu\n"
    assert not (tmp_path / "out").exists()


def test_shards_fill_one_folder(call, table, tmp_path):
    words = ("bench", table, "--out", tmp_path / "out", "--device", "cpu", "--seeds", "1", "--shard")
    assert "2 cells" in call(*words, "1/2").err
    answer = call(*words, "2/2")
    assert "1 cells" in answer.err
    assert len(list((tmp_path / "out").glob("cells/real/*/quick-cpu-seed-0/result.json"))) == 3


@pytest.mark.parametrize(
    ("words", "module", "function", "rest"),
    [
        (("--jobs", "3"), "schedule", "at_once", (3,)),
        (("--ray", "local"), "cluster", "on_ray", ("local", 1)),
        (("--ray", "host:6379", "--jobs", "2"), "cluster", "on_ray", ("host:6379", 2)),
    ],
)
def test_other_places_to_run(call, table, tmp_path, monkeypatch, words, module, function, rest):
    asked = []

    def elsewhere(bench, cells, *others):
        asked.append(([found.row for found in cells], others[:-1]))
        return Tally(done=3)

    monkeypatch.setattr(f"acclimate.benchmark.{module}.{function}", elsewhere)
    answer = call("bench", table, "--out", tmp_path / "out", "--device", "cpu", "--seeds", "1", *words)
    assert answer.code == 0, answer.err
    assert asked == [(["source-only", "adabn", "dann"], rest)]


def test_ctrl_c_saves_and_the_same_command_finishes(table, tmp_path):
    table.write_text(table.read_text().replace("steps = 4", "steps = 400"))
    words = ["bench", table, "--out", tmp_path / "out", "--device", "cpu", "--seeds", "1", "--methods", "source-only"]
    command = [sys.executable, "-m", "acclimate", *map(str, words)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if "source-only, seed 0 train" in line:
            first.send_signal(signal.SIGINT)
            break
    out, err = first.communicate()
    assert first.returncode == 130, err
    assert "0 of 1 cells are finished: run the same command to continue" in err
    assert "Traceback" not in err
    assert out == ""
    assert (tmp_path / "out" / "table.md").exists()
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    facts = read_json(next((tmp_path / "out").glob("cells/real/source-only/*/result.json")))
    assert [row["step"] for row in facts["history"]] == list(range(1, 401))


def test_the_list_of_tables(call):
    answer = call("bench", "--list")
    assert answer.code == 0
    assert all(f"\n{name} " in "\n" + answer.out for name in names())
    listed = call("bench", "--list", "--json").json
    assert [entry["name"] for entry in listed] == names()
    assert "mnist-to-usps" in listed[0]["tasks"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bench", "name a table (digits,"),
        ("bench digist", "did you mean 'digits'?"),
        ("bench smoke --preset quik", "did you mean 'quick'?"),
        ("bench smoke --methods dan", "did you mean 'dann'?"),
        ("bench smoke --tasks digit", "did you mean 'digits'?"),
        ("bench smoke --shard 3/2", "write i/n"),
        ("bench smoke --seeds 0", "'--seeds'"),
        ("bench smoke --jobs 0", "'--jobs'"),
        ("bench smoke --device gpu", "unknown device 'gpu'"),
    ],
)
def test_mistakes(call, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    answer = call(*words.split())
    assert answer.code == 2
    assert said in answer.err
    assert not list(tmp_path.iterdir())


def test_a_method_that_is_not_installed(call, table, tmp_path):
    table.write_text(table.read_text().replace('name = "dann"', 'name = "dannn"'))
    answer = call("bench", table, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 2
    assert "unknown method 'dannn'; did you mean 'dann'?" in answer.err
    assert not (tmp_path / "out").exists()
