"""The README's table of methods says what the cells in results/ say."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from acclimate.benchmark.table import load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "bench-offline"
SEEDS = 3


def words(row: str, task: str) -> str:
    """Mean and sample deviation of a cell's scores, worked out from its results; blank where the table has no such cell."""
    places = sorted((FOLDER / "cells" / task / row).glob("quick-cpu-seed-*/result.json"))
    scores = [100 * json.loads(place.read_text())["target_test"]["value"] for place in places]
    if not scores:
        return ""
    assert len(scores) == SEEDS
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}"


@pytest.fixture(scope="module")
def readme() -> list[list[str]]:
    """Its table, without the two lines of the head."""
    section = (ROOT / "README.md").read_text().split("## Methods side by side\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[text.strip() for text in line] for line in lines[2:]]


def test_the_readme_has_the_numbers_of_the_table(readme: list[list[str]]) -> None:
    found = json.loads((FOLDER / "table.json").read_text())
    (part,) = found["parts"]
    assert (part["preset"], part["device"], part["seeds"]) == ("quick", "cpu", list(range(SEEDS)))
    wanted: dict[str, list[str]] = {}
    for entry in part["rows"]:
        mark = "oracle" if entry["oracle"] else entry["reads"]
        line = wanted.setdefault(entry["row"], [entry["title"] + (f" ({mark})" if mark else ""), "", "", ""])
        score = entry["score"]
        assert score["n"] == SEEDS
        line[1 + ["digits", "perlin"].index(entry["task"])] = f"{score['mean']:.1f} ± {score['deviation']:.1f}"
    for row, line in wanted.items():
        line[3] = f"{sum(entry['minutes'] for entry in part['rows'] if entry['row'] == row):.1f}"
        assert line[1:3] == [words(row, task) for task in ("digits", "perlin")]
    assert readme == [wanted[row] for row in load("offline").rows]


def test_the_table_in_results_is_the_one_that_is_packaged() -> None:
    table, found = load("offline"), json.loads((FOLDER / "table.json").read_text())
    assert found["description"] == table.description
    cells = {(cell.task, cell.row) for cell in table.cells("quick", [0])}
    assert {(entry["task"], entry["row"]) for entry in found["parts"][0]["rows"]} == cells
