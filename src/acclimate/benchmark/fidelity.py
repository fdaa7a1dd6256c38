"""Whether a drawn image shows the class that was asked for, as an oracle of the same task and seed sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from acclimate.benchmark.cell import Bench
from acclimate.benchmark.table import Cell
from acclimate.engine.generated import class_fidelity
from acclimate.engine.model import Model
from acclimate.files import read_json, write_json
from acclimate.methods import Need, find

IMAGES = 1000  # of all classes alike
FILE = "fidelity.json"


def judge_generated(bench: Bench, cells: Sequence[Cell]) -> None:
    """Write ``fidelity.json`` beside each finished generative cell whose oracle is finished too."""
    for cell in cells:
        if not (bench.place(cell) / "generated.png").exists() or fidelity(bench, cell) is not None:
            continue
        oracle, facts = _oracle(bench, cell)
        mine = bench.found(cell)[1]
        if oracle is None or facts is None or mine is None or "key" not in mine:
            continue
        drawing, seeing = (Model.load(bench.place(which), bench.device) for which in (cell, oracle))
        found = class_fidelity(drawing, seeing, max(1, IMAGES // len(mine["classes"])))
        if found is not None:
            write_json(
                bench.place(cell) / FILE, {"key": mine["key"], "oracle": facts["key"], **dataclasses.asdict(found)}
            )


def fidelity(bench: Bench, cell: Cell) -> float | None:
    """The share, where it was taken from this very cell and this very oracle."""
    path = bench.place(cell) / FILE
    if not path.exists():
        return None
    found, mine, theirs = read_json(path), bench.found(cell)[1], _oracle(bench, cell)[1]
    same = mine and theirs and (found["key"], found["oracle"]) == (mine["key"], theirs["key"])
    return float(found["share"]) if same else None


def _oracle(bench: Bench, cell: Cell) -> tuple[Cell | None, dict[str, Any] | None]:
    """The finished cell of the first row that was trained on target labels."""
    for name in bench.table.rows:
        other = dataclasses.replace(cell, row=name)
        if bench.table.runs(name, cell.task):
            state, facts = bench.found(other)
            if state == "done" and facts is not None and Need.TARGET_LABELS in find(facts["method"]).needs:
                return other, facts
    return None, None
