"""The DANN study: cells that survive a kill, settings that do not mix, divergence as a result, and computed sentences."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import re
import shutil
from typing import Any

import folders
import numpy as np
import pytest
import torch
from runs import network, plan, start
from scipy.special import expit

from acclimate.cli import main
from acclimate.engine.adapt import adapt
from acclimate.engine.update import Updater
from acclimate.errors import Interrupted, UsageError
from acclimate.files import read_json
from acclimate.methods import find
from acclimate.plan import Optimiser, Plan
from acclimate.report.document import load_document
from acclimate.studies import dann, dann_numbers
from acclimate.studies.bn import unpacked
from acclimate.studies.cells import CellFolder
from acclimate.studies.dann import CENTRAL, FOOLED, HELPED, NONE, SIZES, DANNStudy, measure, weighted, what_became
from acclimate.studies.dann_page import compared, repeat_command, write_page
from acclimate.transforms.confidence import confidence_level

FIGURES = ["examples", "curves", "maps", "paired", "weights", "schedules", "confidence", "self-training"]
HUGE = 1e30  # a weight with which any training diverges


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> DANNStudy:
    """Folders of shapes, and steps enough to see numbers."""
    root = tmp_path_factory.mktemp("pair")
    folders.classes(root / "ours", 60)
    folders.classes(root / "theirs", 45, shifted=True)
    return DANNStudy(
        pair=(str(root / "ours"), str(root / "theirs")),
        side=16,
        steps=8,
        batch=6,
        precision="float32",
        looks=4,
        looked_at=20,
        compared=20,
        weights=(0.0, 1.0, HUGE),
        pseudo_images=20,
        pseudo_steps=4,
        rounds=2,
        portions=(1.0,),
    )


def contents(folder):
    """All cells without the seconds they took."""
    cells = {path.relative_to(folder): read_json(path) for path in sorted(folder.rglob("*.json"))}
    for found in cells.values():
        found.pop("seconds", None)
    return cells


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    heard = []
    cells = measure(tiny, folder, seeds=2, device="cpu", listener=lambda name, seed, report: heard.append(report))
    assert [report.done for report in heard] == list(range(1, heard[-1].total + 1))
    kept = contents(folder)
    path, document = write_page(cells, folder, "acclimate study dann --seeds '<2>'")
    return folder, kept, cells, path, document


def test_a_killed_study_goes_on_with_the_same_numbers(tiny, done, tmp_path):
    _, whole, *_ = done

    def kill(name, seed, report):
        if report.done == 3:  # after "no reversal"
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"3 of \d+ cells are kept"):
        measure(tiny, tmp_path, seeds=2, device="cpu", listener=kill)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("seed-0/no-*.json")}
    assert len(before) == 2
    measure(tiny, tmp_path, seeds=2, device="cpu")
    found = contents(tmp_path)
    assert {name: found[name] for name in whole} == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_and_other_code_do_not_mix(tiny, done, tmp_path, monkeypatch):
    folder, whole, *_ = done
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(UsageError, match=r"other settings \(steps\).*another --out.*--force"):
        measure(tiny.replace(steps=3), tmp_path / "other", device="cpu")
    (tmp_path / "other" / "settings.json").unlink()  # every cell knows its settings too
    with pytest.raises(UsageError, match="other settings"):
        measure(tiny.replace(steps=3), tmp_path / "other", device="cpu")
    assert {
        name: found for name, found in contents(tmp_path / "other").items() if name in whole and len(name.parts) > 1
    } == {name: found for name, found in whole.items() if len(name.parts) > 1}
    with pytest.raises(UsageError, match="at least one seed"):
        measure(tiny, tmp_path, seeds=0)
    monkeypatch.setattr(dann, "code", lambda: "another")
    with pytest.raises(UsageError, match=r"by other code \(code\).*another --out.*--force"):
        measure(tiny, folder, device="cpu")


def test_a_forced_cell_is_made_again(tmp_path):
    first = CellFolder(tmp_path, {"steps": 1}, "code", "one")
    assert first.cell("seed-0/x", "x", lambda: {"value": 1})["value"] == 1
    assert CellFolder(tmp_path, {"steps": 1}, "code", "one").cell("seed-0/x", "x", lambda: {"value": 2})["value"] == 1
    second = CellFolder(tmp_path, {"steps": 2}, "code", "two", force=True)
    assert second.cell("seed-0/x", "x", lambda: {"value": 2})["value"] == 2


def test_no_adaptation_is_source_only(tiny, done, tmp_path):
    """The spectator critic must not move the features: an independent run of another method says so."""
    folder, *_ = done
    bench = dann._Bench(tiny, CellFolder(tmp_path, {}, "", ""), torch.device("cpu"))
    how = Plan(steps=8, batch=6, seed=1, precision="float32", optimiser=Optimiser(lr=0.01, schedule="dann"))
    alone = adapt(
        bench._net(1), bench.domains["source"], None, "source-only",
        plan=how, preprocess=bench.preprocess, task=bench.task, device="cpu",
    ).model.method.net  # fmt: skip
    found = dann.Model.load(folder / "seed-1" / "no-adaptation", "cpu").method.net
    for mine, theirs in zip(found.state_dict().values(), alone.state_dict().values()):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_without_the_reversal_the_features_are_pushed_the_other_way(monkeypatch):
    """The domain term's gradient: opposite for the features, the same for the critic."""
    seen: dict[bool, tuple[torch.Tensor, ...]] = {}
    update = Updater.update

    def watch(self: Updater, terms: Any, players: Any) -> None:
        wanted = [next(iter(self.optimisers[player].parameters)) for player in ("net", "critic")]
        seen[reversal] = torch.autograd.grad(terms["domain"], wanted, retain_graph=True)
        update(self, terms, players)

    monkeypatch.setattr(Updater, "update", watch)
    for reversal in (True, False):
        start("dann", net=copy.deepcopy(network("classification")), how=plan(steps=1), ramp=False, reversal=reversal)
    assert seen[True][0].norm() > 0
    torch.testing.assert_close(seen[True][0], -seen[False][0])
    torch.testing.assert_close(seen[True][1], seen[False][1])


def test_divergence_is_a_result(done):
    *_, cells, _, document = done
    found = {ramp: cells.runs[0, weighted(HUGE, ramp).name] for ramp in (True, False)}
    assert (found[False]["diverged"], found[True]["diverged"]) == (0, 1)  # the ramp is zero at its first step
    assert found[True]["final"] is None
    assert found[False]["curve"] == []
    row = dann_numbers.weights(cells, ramp=False)[-1]
    assert (row.target, row.what) == (None, "diverged at step 0")
    table = next(table for section in document.sections for table in section.tables if table.header[0] == "weight")
    assert row.what in [line[-1] for line in table.rows]
    assert all(line[2:6] == [None] * 4 for line in table.rows if line[-1] == row.what)
    assert any(row.what in line for section in document.sections for line in section.text)


def test_every_figure_has_words_and_its_numbers(done):
    folder, _, cells, path, document = done
    assert path == folder / "report.html"
    assert load_document(folder / "report.json").title == document.title
    figures = {figure.name: figure for figure in document.figures()}
    assert list(figures) == FIGURES
    assert all(len(figure.alt) > 30 and figure.data for figure in figures.values())
    html = path.read_text()
    assert html.count("<img ") == len(FIGURES)
    assert "&lt;2&gt;" in html
    assert figures["paired"].data["target"]["seed 1"] == [
        cells.runs[1, name]["final"]["target"] for name in (NONE, FOOLED)
    ]
    assert len(figures["maps"].data[HELPED]["places"]) == 12 + 9  # all that the tests hold
    assert unpacked(cells.facts["shown"]["target"]).shape == (3, 16, 16, 3)


def test_every_sentence_has_numbers_and_no_nan(done):
    *_, document = done
    text = [document.verdict, *(line for section in document.sections for line in section.text)]
    assert not [line for line in text if re.search(r"\bnan\b|None|\binf\b", line)]
    assert all(re.search(r"\d", line) for line in text[:3])
    tables = [table for section in document.sections for table in section.tables]
    assert len(tables) == 6
    assert not [value for table in tables for row in table.rows for value in row if value != value]


def test_what_became_of_wrong_labels_by_hand():
    first = torch.tensor([0, 1, 1, 2, 2])
    truth = torch.tensor([0, 0, 2, 0, 2])  # wrong: 1, 2, 3
    kept = torch.tensor([True, True, True, False, True])
    now = torch.tensor([0, 1, 2, 1, 2])  # 1 is said again, 2 corrected, 3 wrong in another way
    found = what_became(
        first,
        torch.tensor([0.9, 0.8, 0.6, 0.5, 0.9]),
        kept,
        dann._Said(now, torch.tensor([0.9, 1.0, 0.7, 0.4, 0.9]), truth),
    )
    assert found["kept"] == {
        "count": 2,
        "said again": 0.5,
        "corrected": 0.5,
        "sure before": pytest.approx(0.7),
        "sure after": pytest.approx(0.85),
    }
    assert (found["not kept"]["count"], found["not kept"]["said again"], found["not kept"]["corrected"]) == (1, 0, 0)
    nothing = what_became(truth, torch.ones(5), kept, dann._Said(truth, torch.ones(5), truth))
    assert nothing["kept"] == {
        "count": 0,
        "said again": None,
        "corrected": None,
        "sure before": None,
        "sure after": None,
    }


def test_trust_by_hand():
    right = torch.tensor([True, False, True, True] * 5)
    certain = torch.tensor([0.999, 0.98, 0.6, 0.4] * 5)
    found = dann.trusted(right, certain)
    assert found["right"] == 0.75
    shares = {place["share"]: place["right"] for place in found["shares"]}
    assert (shares[0.25], shares[0.5], shares[1.0]) == (1.0, 0.5, 0.75)
    above = {place["threshold"]: (place["kept"], place["right"]) for place in found["thresholds"]}
    assert above[0.99] == (0.25, 1.0)
    assert above[0.95] == (0.5, 0.5)
    assert dann.trusted(right, 0.5 * certain)["thresholds"][-1]["right"] is None


def test_sureness_is_the_largest_probability():
    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)) * 4
    _, level = confidence_level(logits)
    truth = logits.double().softmax(1).max(1).values
    odds = (truth / (1 - truth)).log()
    np.testing.assert_allclose(dann.sure(level), expit(odds.numpy()), atol=1 / 256)


def test_told_apart():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 60, 5, generator=draw)
    assert dann.told_apart(x, y) < 0.7
    assert dann.told_apart(x, y + 5) == 1.0


def ended(source: float, target: float) -> dict[str, Any]:
    return {"diverged": None, "final": {"source": source, "target": target}}


def test_differences_are_paired(tiny):
    runs = {(seed, FOOLED): ended(0.9, 0.7 + seed / 10) for seed in (0, 1)}
    runs |= {(seed, NONE): ended(0.95, 0.5) for seed in (0, 1)}
    cells = dann.Cells(tiny, [0, 1], {}, runs, {}, {})
    assert dann_numbers.difference(cells, FOOLED, "target").by_seed == pytest.approx([0.2, 0.3])
    assert dann_numbers.difference(cells, FOOLED, "source").by_seed == pytest.approx([-0.05, -0.05])
    cells.runs[1, FOOLED] = {"diverged": 3, "final": None}
    assert dann_numbers.difference(cells, FOOLED, "target").by_seed == pytest.approx([0.2])
    found = dann_numbers.Difference([0.1, 0.12])
    assert found.mean == pytest.approx(0.11)
    assert found.deviation == pytest.approx(0.02 / math.sqrt(2))
    assert compared(found) == "higher by 11.0 points (by seed +10.0, +12.0)"
    assert compared(dann_numbers.Difference([-0.1, 0.2])).startswith("not clearly other (+5.0 points on average")
    assert compared(dann_numbers.Difference([-0.02, -0.03])) == "lower by 2.5 points (by seed −2.0, −3.0)"
    assert compared(dann_numbers.Difference([])) == "not known, since a training diverged"


def test_the_pair_is_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))
    assert DANNStudy().resolved().pair == ("digits-handwritten", "digits-blended")
    for name in ("mnist", "mnist-m"):
        (tmp_path / name).mkdir()
    assert DANNStudy().resolved().pair == ("mnist", "mnist-m")
    assert DANNStudy(pair=("a", "b")).resolved().pair == ("a", "b")


def test_the_games_are_as_described():
    assert {name: dict(settings) for name, settings in CENTRAL.items()} == {
        "no adaptation": {"weight": 0.0},
        "no reversal": {"reversal": False},
        "DANN": {},
    }
    assert weighted(0, False).name == NONE
    assert weighted(1, True).name == FOOLED
    assert weighted(3, False).settings == {"weight": 3, "ramp": False}
    assert dann.scheduled(True, True) == weighted(1, True)
    assert dann.scheduled(False, True) == weighted(1, False)
    assert dann.scheduled(True, False).schedule == "constant"
    assert find("dann").Settings().reversal
    assert SIZES["small"].weights == SIZES["paper"].weights == (0, 0.01, 0.1, 0.3, 1, 3, 10)


def test_the_command_that_repeats_it(tiny):
    small = SIZES["small"].replace(pair=dann.PAPER)
    assert repeat_command(small, 3, "a b") == "acclimate study dann --size small --seeds 3 --out 'a b'"
    compile(repeat_command(tiny, 1, "x"), "command", "exec")


def test_the_verb_writes_a_page_and_says_what_it_found(tiny, done, monkeypatch):
    folder, *_ = done
    monkeypatch.setattr(dann, "SIZES", {"small": tiny})
    words = ["study", "dann", "--out", str(folder), "--device", "cpu", "--seeds", "2", "--json"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(words) == 0
    answer = json.loads(out.getvalue())
    assert answer["study"] == "dann"
    assert "DANN changes the target's accuracy" in answer["verdict"]
    assert "acclimate study dann --out" in (folder / "report.html").read_text()
