"""Losses of fifty steps are those on file.

Rewrite them with ``ACCLIMATE_GOLDEN=rewrite pytest tests/contract/test_golden.py``.

A change of these files changes every published number: it needs a line in the changelog.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from runs import GAMES, plan, start

from acclimate.methods import Train
from acclimate.plan import Optimiser

FOLDER = Path(__file__).parents[1] / "golden"
COUNTS = {"critic accuracy", "kept", "agreement", "drawn as asked", "source agrees"}
"""Shares of a batch: a value next to the border may fall on the other side of it on another processor."""
STRICT = 10
"""Steps that must agree to a thousandth; later ones to a twentieth, since games of several players let rounding grow."""


@pytest.mark.parametrize(("name", "task"), GAMES)
def test_losses_of_fifty_steps_are_those_on_file(name: str, task: str) -> None:
    how = plan(steps=50, log_every=1, optimiser=Optimiser(lr=0.01, schedule="dann"))
    run = start(name, task, how=how)
    if not any(isinstance(stage, Train) for stage in run.model.method.stages()):
        pytest.skip("no training step, so no curve")
    names = sorted({key for row in run.history for key in row} - {"stage", "step"})
    curve = {key: [row[key] for row in run.history if key in row] for key in names}  # stages have terms of their own
    path = FOLDER / f"{name}-{task}.json"
    if os.environ.get("ACCLIMATE_GOLDEN") == "rewrite":
        path.write_text(json.dumps({k: [float(f"{v:.7g}") for v in vs] for k, vs in curve.items()}, indent=1) + "\n")
    golden = json.loads(path.read_text())
    assert curve.keys() == golden.keys()
    for key, values in golden.items():
        if key in COUNTS:
            assert curve[key] == pytest.approx(values, abs=0.15), key
            continue
        assert curve[key][:STRICT] == pytest.approx(values[:STRICT], rel=1e-3, abs=1e-6), key
        assert curve[key][STRICT:] == pytest.approx(values[STRICT:], rel=5e-2, abs=1e-6), key


def test_no_curve_is_left_of_a_method_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} <= {f"{name}-{task}" for name, task in GAMES}
