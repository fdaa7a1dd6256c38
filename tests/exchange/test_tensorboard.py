"""Curves for TensorBoard: every log interval, once, also after an interruption."""

from __future__ import annotations

import json
import sys

import pytest
from runs import plan, start

from acclimate.engine.run import Report
from acclimate.errors import UsageError
from acclimate.exchange.tensorboard import TensorBoard


def curves(folder):
    """Name -> [(step, value)], as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_log_interval_of_a_run_is_a_point(tmp_path):
    with TensorBoard(tmp_path / "tb") as board:
        start("dann", how=plan(log_every=2), folder=tmp_path / "run", observer=lambda r: board("dann", 3, r))
    found = curves(tmp_path / "tb" / "dann" / "seed-3")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert set(found) == {"supervised", "domain", "critic-accuracy"}
    for name, tag in (("supervised", "supervised"), ("critic accuracy", "critic-accuracy")):
        assert found[tag] == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    assert [step for step, _ in found["domain"]] == [2, 4, 6, 8, 9]


def test_steps_count_over_all_stages_and_sweeps_add_no_point(tmp_path):
    with TensorBoard(tmp_path) as board:
        board("crst", 0, Report("first", 10, 10, 10, 20, {"loss": 1.0}))
        board("crst", 0, Report("label", 0, 0, 10, 20))
        board("crst", 0, Report("second", 5, 10, 15, 20, {"loss": 2.0}))
        board("dann", 0, Report("adapt", 5, 10, 5, 10, {"loss": 3.0}))
    assert curves(tmp_path / "crst" / "seed-0") == {"loss": [(10, 1.0), (15, 2.0)]}
    assert curves(tmp_path / "dann" / "seed-0") == {"loss": [(5, 3.0)]}


def test_a_resumed_run_goes_on_without_doubling_a_point(tmp_path):
    """A run that was killed at step 6 goes on from its checkpoint of step 3, at the sweep that stands there."""
    reports = [Report("adapt", k, 9, k, 9, {"loss": float(k)}) for k in range(1, 10)]
    with TensorBoard(tmp_path) as board:
        for report in reports[:6]:
            board("dann", 0, report)
    with TensorBoard(tmp_path) as board:
        board("dann", 0, Report("label", 0, 0, 3, 9))
        for report in reports[3:]:
            board("dann", 0, report)
    assert curves(tmp_path / "dann" / "seed-0") == {"loss": [(k, float(k)) for k in range(1, 10)]}


def test_points_are_there_before_the_run_ends(tmp_path):
    with TensorBoard(tmp_path) as board:
        board("dann", 0, Report("adapt", 5, 10, 5, 10, {"loss": 3.0}))
        assert curves(tmp_path / "dann" / "seed-0") == {"loss": [(5, 3.0)]}


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=r"--tensorboard needs an extra: pip install \"acclimate\[tensorboard\]\""):
        TensorBoard(tmp_path)
