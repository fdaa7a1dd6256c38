"""Tables from cells: blanks, footnotes, oracles, failures, and no two devices in one column."""

from __future__ import annotations

import csv
import io
import json

import pytest
from scipy import stats
from small_table import cell

from acclimate.benchmark.cell import Bench
from acclimate.benchmark.page import as_csv, as_json, gather, markdown, write_tables
from acclimate.files import write_json
from acclimate.methods import Need, find

VALUES = {  # per cent by row and seed, on the target
    ("source-only", 0): 60.0,
    ("source-only", 1): 64.0,
    ("source-only", 2): 62.0,
    ("dann", 0): 70.0,
    ("dann", 1): 75.0,
    ("dann", 2): 71.0,
    ("adabn", 0): 66.0,
    ("trained-on-target", 0): 97.5,
}


def put(bench: Bench, which, value: float) -> None:
    """A finished cell that nobody trained."""
    score = {"primary": "accuracy", "value": value / 100}
    write_json(
        bench.place(which) / "result.json",
        {
            "key": bench.key(which), "identity": bench.identity(which), "primary": "accuracy", "steps": 6,
            "target_test": score, "source_test": {**score, "value": 0.99}, "seconds": 90.0, "machine": "a machine",
            "method": bench.table.row(which.row, which.preset).kind, "classes": ["bar", "cross", "ring"],
        },
    )  # fmt: skip


@pytest.fixture
def filled(shapes):
    bench = shapes.bench()
    for (row, seed), value in VALUES.items():
        put(bench, cell(row, seed), value)
    return shapes


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The table under a heading, by the first column."""
    block = text.split(f"### {title}")[1].split("###")[0]
    lines = [line[2:-2].split(" | ") for line in block.splitlines() if line.startswith("|")]
    found = [[part.strip() for part in line] for line in lines]
    return {line[0]: dict(zip(found[0], line)) for line in found[2:]}


def test_the_page_by_hand(filled):
    bench = filled.bench()
    parts = gather(bench.table, filled.out, {("quick", "cpu"): range(3)})
    text = markdown(bench.table, parts)
    found = rows(text, "Plain → tinted (accuracy, %)")
    assert list(found) == ["source-only", "adabn", "dann", "DANN, wide critic [2]", "trained-on-target (oracle)"]
    assert found["source-only"]["target"] == "62.0 ± 2.0"
    assert found["adabn"]["target"] == "66.0 (n = 1)"
    assert found["adabn"]["gain over source-only [95 %]"] == "+6.0"
    assert found["adabn"]["published"] == "71.5 ± 0.5 [1]"
    assert found["dann"]["target"] == "72.0 ± 2.6"
    low, high = stats.ttest_rel([70, 75, 71], [60, 64, 62]).confidence_interval(0.95)
    assert found["dann"]["gain over source-only [95 %]"] == f"+10.0 [{low:+.1f}, {high:+.1f}]"
    assert found["dann"]["minutes"] == "1.5"
    assert found["dann"]["source"] == "99.0 ± 0.0"
    assert found["DANN, wide critic [2]"]["target"] == ""  # never run: blank
    assert "[1] Somebody 2020" in text
    assert "[2] a critic twice as wide" in text
    assert "## quick on cpu, seeds 0, 1, 2" in text
    assert "Machine: a machine." in text


def test_a_row_that_reads_a_few_target_labels_says_so(filled, monkeypatch):
    monkeypatch.setattr(find("adabn"), "needs", find("adabn").needs | Need.FEW_TARGET_LABELS)
    bench = filled.bench()
    parts = gather(bench.table, filled.out, {("quick", "cpu"): range(3)})
    found = rows(markdown(bench.table, parts), "Plain → tinted (accuracy, %)")
    assert "adabn (few target labels)" in found
    assert "dann" in found
    lines = {(r["task"], r["method"]): r["reads"] for r in csv.DictReader(io.StringIO(as_csv(parts)))}
    assert (lines["shapes", "adabn"], lines["shapes", "dann"]) == ("few target labels", "")
    entries = {r["row"]: r["reads"] for r in as_json(bench.table, parts)["parts"][0]["rows"]}
    assert (entries["adabn"], entries["trained-on-target"]) == ("few target labels", None)


def test_csv_and_json_hold_every_number(filled):
    bench = filled.bench()
    parts = gather(bench.table, filled.out, {("quick", "cpu"): range(3)})
    lines = {(r["task"], r["method"]): r for r in csv.DictReader(io.StringIO(as_csv(parts)))}
    dann = lines["shapes", "dann"]
    assert float(dann["target_mean"]) == pytest.approx(72.0)
    assert float(dann["gain_mean"]) == pytest.approx(10.0)
    assert lines["shapes", "adabn"]["gain_low"] == ""
    assert lines["shapes", "adabn"]["published_source"] == "Somebody 2020"
    assert lines["shapes", "trained-on-target"]["oracle"] == "1"
    assert lines["back", "adabn"]["target_mean"] == ""
    found = json.loads(json.dumps(as_json(bench.table, parts)))
    entry = next(r for r in found["parts"][0]["rows"] if (r["task"], r["row"]) == ("shapes", "dann"))
    assert entry["scores"] == {"0": 70.0, "1": 75.0, "2": pytest.approx(71.0)}


def test_stale_and_failed_cells_are_no_numbers(filled):
    bench = filled.bench()
    bench.fail(cell("dann-wide"), ValueError("a very | long message " * 10))
    filled.edit("hidden = [10]", "hidden = [11]")
    bench = filled.bench()
    found = rows(markdown(bench.table, gather(bench.table, filled.out, {})), "Plain → tinted (accuracy, %)")
    assert found["dann"]["target"] == "(stale)"
    assert found["dann"]["gain over source-only [95 %]"] == ""
    assert found["DANN, wide critic [2]"]["target"].startswith("failed: ValueError: a very \\| long")
    assert found["source-only"]["target"] == "62.0 ± 2.0"


def test_devices_and_presets_never_meet(filled):
    table = filled.bench().table
    put(Bench(table, filled.out, "cuda"), cell("dann"), 10.0)
    put(Bench(table, filled.out, "cuda"), cell("source-only"), 20.0)
    put(filled.bench(), cell("dann", preset="paper"), 30.0)
    parts = gather(table, filled.out, {("quick", "cpu"): range(3)})
    assert [(part.preset, part.device, part.seeds) for part in parts] == [
        ("quick", "cpu", (0, 1, 2)),
        ("paper", "cpu", (0,)),
        ("quick", "cuda", (0,)),
    ]
    scores = {(p.preset, p.device): p.entries["shapes", "dann"].scores for p in parts}
    assert scores == {
        ("quick", "cpu"): {0: 70.0, 1: 75.0, 2: pytest.approx(71.0)},
        ("paper", "cpu"): {0: 30.0},
        ("quick", "cuda"): {0: 10.0},
    }
    assert parts[2].entries["shapes", "dann"].difference.mean == -10.0
    assert parts[1].entries["shapes", "dann"].difference is None  # no source-only of this preset


def test_the_files(filled):
    bench = filled.bench()
    parts = gather(bench.table, filled.out, {("quick", "cpu"): range(3)})
    paths = write_tables(bench.table, parts, filled.out, "acclimate bench '<shapes>'")
    assert [path.name for path in paths] == ["table.md", "table.html", "table.csv", "table.json"]
    page = (filled.out / "table.html").read_text()
    assert "72.0 ± 2.6" in page
    assert "acclimate bench &#39;&lt;shapes&gt;&#39;" in page
    assert "8 of 24 cells are finished." in page  # five rows and three rows, three seeds each
    assert "http" not in page.replace("http-equiv", "")
