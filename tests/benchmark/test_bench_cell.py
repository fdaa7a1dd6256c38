"""A cell: what decides its key, what it leaves, and how it goes on after an interruption."""

from __future__ import annotations

import dataclasses
import fcntl
import shutil

import pytest
import torch
from small_table import BREAKS, cell

from acclimate.benchmark import cell as cells
from acclimate.benchmark.cell import Clock, Kept, commit, sections
from acclimate.benchmark.page import gather
from acclimate.engine.code import code_files
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.errors import DataError, Interrupted, StorageError
from acclimate.experiment import Listener, open_domains
from acclimate.files import read_json
from acclimate.methods import find
from acclimate.methods.adabn import AdaBN
from acclimate.methods.dann import DANN


def stop_at(step: int) -> Listener:
    """A signal, as the engine raises it, at a log interval."""

    def listen(name, seed, report):
        if report.done >= step and report.stage != "statistics":
            raise Interrupted("stop")

    return listen


def scores(facts):
    """What must not depend on how often a cell was interrupted."""
    return {name: facts[name] for name in ("key", "target_test", "source_test", "history", "predicted shares")}


def test_a_cell_leaves_a_result_and_its_start(shapes):
    bench = shapes.bench()
    assert bench.run(cell("adabn")) == "done"
    state, facts = bench.found(cell("adabn"))
    assert state == "done"
    start = bench.found(cell("source-only"))[1]
    assert start is not None  # it was trained first
    assert facts["identity"]["start"] == start["key"]
    assert start["identity"]["start"] is None
    assert (facts["steps"], start["steps"]) == (0, 6)
    assert [row["step"] for row in start["history"]] == [2, 4, 6]
    assert start["experiment"]["plan"]["steps"] == 6
    assert start["seconds"] > 0
    assert start["memory"]["bytes"] > 50e6
    assert start["versions"]["torch"] == torch.__version__
    assert (start["device"], start["oracle"], start["primary"]) == ("cpu", False, "accuracy")
    assert start["identity"]["preprocess"]["size"] == [16, 16]
    assert start["identity"]["network"]["settings"]["norm"] == "batch"
    assert not (bench.place(cell("source-only")) / "run").exists()  # checkpoints are not kept
    assert sections(shapes.out) == {("quick", "cpu"): {0}}
    both = [Model.load(bench.place(cell(row))).method.net for row in ("adabn", "source-only")]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*(net.parameters() for net in both)))
    # the score is that of the saved model on the target's test images, at the last step
    experiment = bench.table.experiment(cell("adabn"))
    domains = open_domains(experiment, None, score=True)
    again = evaluate(Model.load(bench.place(cell("adabn"))), domains.target_test)
    assert facts["target_test"]["confusion"] == again.confusion
    assert facts["target_test"]["value"] == again.value


def test_without_a_holdout_the_target_adapted_to_is_scored(shapes):
    shapes.edit('title = "Plain → tinted"', 'title = "Plain → tinted"\nholdout = 0')
    bench = shapes.bench()
    assert bench.run(cell("source-only")) == "done"
    facts = bench.found(cell("source-only"))[1]
    assert facts["source_test"] is None  # nothing was kept that training has not seen
    assert facts["target_test"]["images"] == 60
    assert facts["identity"]["data"]["source"]["images"] == 60
    part = gather(bench.table, shapes.out, {})[0]
    assert part.entries["shapes", "source-only"].source_score is None


def test_target_labels_are_open_only_to_score(shapes, monkeypatch):
    seen = []
    real = cells.adapt

    def spying(net, source, target, method, **rest):
        made = real(net, source, target, method, **rest)
        seen.append(method)
        return made

    def counted(self, index):
        raise AssertionError("a label of the target was read")

    bench = shapes.bench()
    domains = cells.opened(bench.table.experiment(cell("dann")))
    labels = type("Closed", (list,), {"__getitem__": counted})([0] * len(domains.target))
    closed = dataclasses.replace(domains, target=dataclasses.replace(domains.target, labels=labels))
    monkeypatch.setattr(cells, "opened", lambda experiment: closed)
    monkeypatch.setattr(cells, "adapt", spying)
    assert bench.run(cell("dann")) == "done"
    assert seen == ["dann"]
    assert bench.run(cell("trained-on-target")) == "failed"  # the oracle asks for them


@pytest.mark.parametrize("at", [2, 4])
def test_an_interrupted_cell_goes_on_to_the_same_numbers(shapes, tmp_path, at):
    whole = shapes.bench()
    whole.run(cell("dann"))
    shapes.out = tmp_path / "other"
    with pytest.raises(Interrupted):
        shapes.bench().run(cell("dann"), stop_at(at))
    assert shapes.bench().found(cell("dann"))[0] == "missing"
    reports = []
    bench = shapes.bench()
    assert bench.run(cell("dann"), lambda name, seed, report: reports.append(report.step)) == "done"
    assert min(reports) > (2 if at == 4 else 0)
    assert scores(bench.found(cell("dann"))[1]) == scores(whole.found(cell("dann"))[1])


def test_what_decides_the_key(shapes, pictures, monkeypatch, tmp_path):
    first = shapes.bench()
    keys = {row: first.key(cell(row)) for row in ("source-only", "adabn", "dann", "dann-wide")}
    assert len(set(keys.values())) == 4
    assert first.key(cell("dann", seed=1)) != keys["dann"]
    assert cells.Bench(first.table, shapes.out, "cuda").key(cell("dann")) != keys["dann"]

    def changed(old, new):
        text = shapes.path.read_text()
        shapes.edit(old, new)
        found = shapes.bench()
        rows = {row for row, key in keys.items() if found.key(cell(row)) != key}
        shapes.path.write_text(text)
        return rows

    everything = set(keys)
    assert changed('title = "Shapes"', 'title = "Forms"') == set()
    assert changed("a critic twice", "a critic 2 times") == set()
    assert changed("hidden = [20]", "hidden = [30]") == {"dann-wide"}
    assert changed("hidden = [10]", "hidden = [10], weight = 1.0") == set()  # the default
    assert changed("save_every = 2", "save_every = 2\nworkers = 7\nkeep = 9") == set()  # they change no result
    assert changed("steps = 6", "steps = 7") == everything  # adabn: through its start
    assert changed("size = 16", "size = 18") == everything
    assert changed('norm = "batch"', 'norm = "none"') == everything
    assert changed(f'target = "{pictures}/tinted"', f'target = "{pictures}/plain"') == everything
    assert changed('name = "dann"\nsettings', 'name = "dann"\nplan = { steps = 7 }\nsettings') == {"dann"}
    assert changed('name = "adabn"', 'name = "adabn"\nplan = { batch = 9 }') == {"adabn"}


def with_other_code(monkeypatch, tmp_path, kind):
    """As if a commit had changed the file of a method."""
    other = tmp_path / "changed.py"
    other.write_text("# another line")
    monkeypatch.setattr(cells, "code_files", lambda found: [*code_files(found), *([other] if found is kind else [])])


def test_a_commit_elsewhere_voids_no_cell(shapes, monkeypatch, tmp_path):
    keys = {row: shapes.bench().key(cell(row)) for row in ("source-only", "adabn", "dann")}

    def changed():
        return {row for row, key in keys.items() if shapes.bench().key(cell(row)) != key}

    assert {path.name for path in code_files(AdaBN)} & {"dann.py", "experiment.py", "cell.py", "run.py"} == set()
    monkeypatch.setattr(cells, "__version__", "99.0")
    monkeypatch.setattr(cells, "commit", lambda: "another")
    assert changed() == set()
    with_other_code(monkeypatch, tmp_path, DANN)
    assert changed() == {"dann"}
    with_other_code(monkeypatch, tmp_path, AdaBN)
    assert changed() == {"adabn"}
    with_other_code(monkeypatch, tmp_path, find("source-only"))
    assert changed() == {"source-only", "adabn"}  # adabn starts from it


def test_a_stale_cell_is_moved_aside_and_run_anew(shapes):
    bench = shapes.bench()
    bench.run(cell("dann"))
    old = bench.found(cell("dann"))[1]
    shapes.edit("hidden = [10]", "hidden = [12]")
    bench = shapes.bench()
    assert bench.found(cell("dann")) == ("stale", None)
    assert bench.run(cell("dann")) == "done"
    new = bench.found(cell("dann"))[1]
    assert new["key"] != old["key"]
    aside = bench.place(cell("dann")).parent / "stale" / f"quick-cpu-seed-0-{old['key']}"
    assert read_json(aside / "result.json") == old
    assert sections(shapes.out) == {("quick", "cpu"): {0}}


def test_what_was_begun_with_other_settings_is_not_gone_on_with(shapes):
    with pytest.raises(Interrupted):
        shapes.bench().run(cell("dann"), stop_at(4))
    shapes.edit("hidden = [10]", "hidden = [12]")
    reports = []
    assert shapes.bench().run(cell("dann"), lambda name, seed, report: reports.append(report.step)) == "done"
    assert reports == [2, 4, 6]


def test_what_the_engine_cannot_go_on_with_is_begun_anew(shapes):
    with pytest.raises(Interrupted):
        shapes.bench().run(cell("dann"), stop_at(4))
    identity = shapes.bench().place(cell("dann")) / "run" / "identity.json"
    identity.write_text(identity.read_text().replace('"initial weights": "', '"initial weights": "0'))
    reports = []
    assert shapes.bench().run(cell("dann"), lambda name, seed, report: reports.append(report.step)) == "done"
    assert reports == [2, 4, 6]


def test_a_failure_is_recorded_and_tried_again(shapes):
    text = shapes.path.read_text()
    shapes.edit(*BREAKS)
    bench = shapes.bench()
    assert bench.run(cell("dann-wide")) == "failed"
    state, facts = bench.found(cell("dann-wide"))
    assert state == "failed"
    assert "non-finite" in facts["message"]
    assert shapes.bench().run(cell("dann-wide")) == "failed"  # again, with the same end
    shapes.path.write_text(text)
    bench = shapes.bench()
    assert bench.found(cell("dann-wide")) == ("stale", None)  # the failure of other settings says nothing
    assert bench.run(cell("dann-wide")) == "done"
    assert not (bench.place(cell("dann-wide")) / "failure.json").exists()


def test_what_starts_from_a_failure_fails_without_trying_it_again(shapes, monkeypatch):
    tried = []
    bench = shapes.bench()

    def broken(*arguments, **rest):
        tried.append(arguments[3])
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(cells, "adapt", broken)
    assert bench.run(cell("source-only")) == "failed"
    assert bench.run(cell("adabn")) == "failed"
    assert tried == ["source-only"]
    facts = bench.found(cell("source-only"))[1]
    assert facts["message"] == "ZeroDivisionError: surprise"
    assert any("surprise" in line for line in facts["traceback"])
    assert bench.found(cell("adabn"))[1]["message"] == "it starts from source-only, which failed"


def test_a_full_disk_is_no_failure_of_a_cell(shapes, monkeypatch):
    def full(*arguments, **rest):
        raise StorageError("the disk is full")

    monkeypatch.setattr(cells, "adapt", full)
    with pytest.raises(StorageError):
        shapes.bench().run(cell("dann"))


def test_a_cell_that_another_process_is_at_is_left_alone(shapes):
    bench = shapes.bench()
    place = bench.place(cell("source-only"))
    place.parent.mkdir(parents=True)
    with (place.parent / f".{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert bench.busy(cell("source-only"))
        assert bench.run(cell("source-only")) == "missing"
        assert bench.run(cell("adabn")) == "missing"  # its start is in other hands
        assert not place.exists()
    assert not bench.busy(cell("source-only"))
    assert bench.run(cell("adabn")) == "done"


def test_without_the_data_results_still_count(shapes, monkeypatch):
    bench = shapes.bench()
    bench.run(cell("adabn"))

    def gone(fields):
        raise DataError("not here")

    monkeypatch.setattr(cells, "_inputs", gone)
    assert [shapes.bench().found(cell(row))[0] for row in ("source-only", "adabn")] == ["done", "done"]
    shapes.edit("size = 16", "size = 18")
    assert [shapes.bench().found(cell(row))[0] for row in ("source-only", "adabn")] == ["stale", "stale"]


def test_each_image_is_decoded_once():
    made = []
    kept = Kept(type("Counting", (list,), {"__getitem__": lambda self, i: made.append(i) or i})([0, 1, 2]))
    assert [kept[i] for i in (2, 0, 2, 0)] == [2, 0, 2, 0]
    assert made == [2, 0]
    assert len(kept) == 3


def test_seconds_of_all_sittings(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(cells.time, "perf_counter", lambda: now[0])
    first = Clock(tmp_path / "seconds.json")
    for now[0] in (103.0, 106.0, 108.0):
        first.tick()  # the process is killed after this
    assert read_json(tmp_path / "seconds.json") == {"seconds": 6.0}
    now[0] = 200.0
    second = Clock(tmp_path / "seconds.json")
    now[0] = 210.0
    second.stop()
    now[0] = 250.0
    assert second.seconds == 16.0


def test_the_commit_is_ours_or_none(monkeypatch, tmp_path):
    commit.cache_clear()
    found = commit()
    assert found is None or len(found.rstrip("+")) == 40
    shutil.copy(cells.__file__, tmp_path / "cell.py")
    monkeypatch.setattr(cells, "__file__", str(tmp_path / "cell.py"))
    commit.cache_clear()
    assert commit() is None
    commit.cache_clear()
