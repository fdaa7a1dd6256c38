"""Finished runs of one target, for tests of pages over several."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest

from acclimate.experiment import Experiment, carry_out
from acclimate.files import read_json, write_json
from acclimate.report import evidence
from acclimate.report.merge import write_merged
from acclimate.report.schema import Report, load

COMMAND = "acclimate report one two --out both"
SCORES = {  # of nine test images real ones would be too alike to tell which was taken from which
    "one": {
        ("source-only", "0"): 0.2,
        ("source-only", "1"): 0.3,
        ("adabn", "0"): 0.25,
        ("adabn", "1"): 0.5,
        ("trained-on-target", "0"): 0.8,
        ("trained-on-target", "1"): 0.9,
    },
    "two": {("source-only", "0"): 0.4, ("adabn", "0"): 0.35, ("dann", "0"): 0.7},
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Finished runs: ``one`` (two seeds, scored, with an oracle), ``two`` (one seed, scored), ``blind`` (not scored), and a
    benchmark's task ``cells/toy`` with a row that has one seed and one that failed."""

    root: Path

    def merged(self, out: Path, *names: str) -> tuple[Report, str]:
        """One page over some of them; its embeddings are not fitted, which would take most of the time."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evidence, "in_two_dimensions", placed)
            patch.setattr(evidence, "separability", lambda x, domain: 0.5)
            write_merged([self.root / name for name in names], out, COMMAND)
        return load(out / "report.json"), (out / "report.html").read_text()


def placed(x: np.ndarray) -> np.ndarray:
    """The first two components, in [0, 1] x [0, 1]."""
    low = x[:, :2].min(0)
    return ((x[:, :2] - low) / (np.ptp(x[:, :2], axis=0) + 1e-9)).astype(np.float32)


def asked(root: Path, target: str = "target", source: str = "source", **more: Any) -> Experiment:
    """A few steps of a small network."""
    kind = {"network": "dann-mnist", "network_settings": {"norm": "batch"}, "preprocess": {"size": 28}}
    plan = {"steps": 4, "batch": 8, "log_every": 2, "precision": "float32"}
    return Experiment(source=str(root / source), target=str(root / target), **{**kind, "plan": plan, **more})


def finish(root: Path) -> Place:
    """Train for a moment."""
    folders.classes(root / "source", 45)
    folders.classes(root / "target", 45, shifted=True)
    of_one = asked(root, methods=("adabn",), oracle=True)
    carry_out(of_one, root / "one", seeds=(0, 1), score=True, device="cpu")
    carry_out(asked(root, methods=("adabn", "dann")), root / "two", score=True, device="cpu")
    for run, values in SCORES.items():
        results = read_json(root / run / "results.json")
        for (name, seed), value in values.items():
            results["players"][name]["seeds"][seed]["target_test"]["value"] = value
        write_json(root / run / "results.json", results)
    carry_out(asked(root, methods=("dann",)), root / "blind", device="cpu")
    results = read_json(root / "two" / "results.json")
    for row in ("source-only", "dann-wide"):
        method = row.removesuffix("-wide")
        cell = root / "cells" / "toy" / row / "quick-cpu-seed-0"
        shutil.copytree(root / "two" / "seed-0" / method, cell)
        facts = dict(results["players"][method]["seeds"]["0"])
        facts.pop("changed", None)
        more = {"table": "toys", "task": "toy", "row": row, "preset": "quick", "device": "cpu", "seed": 0}
        kind = {"method": method, "oracle": False, "reads": None, "experiment": results["experiment"]}
        write_json(cell / "result.json", {**facts, **more, **kind})
    failed = {"task": "toy", "row": "mcd", "seed": 0, "message": "no GPU <b>here</b>"}
    write_json(root / "cells" / "toy" / "mcd" / "quick-cpu-seed-0" / "failure.json", failed)
    return Place(root)
