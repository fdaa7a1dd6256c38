"""The BatchNorm study: cells that survive a kill, settings that do not mix, and a page whose sentences are computed."""

from __future__ import annotations

import base64
import dataclasses
import math
import re
import shutil

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from acclimate import networks
from acclimate.distances import source_null
from acclimate.engine.evaluate import Evaluation
from acclimate.errors import Interrupted, UsageError
from acclimate.files import read_json
from acclimate.networks.activations import Activations
from acclimate.report.document import load_document
from acclimate.studies import bn, bn_numbers
from acclimate.studies.bn import (
    SIZES,
    BNStudy,
    Irregular,
    block_layers,
    clipped,
    distance_named,
    latent_facts,
    measure,
    packed,
    pictures,
    scores,
    standardised,
    unpacked,
)
from acclimate.studies.bn_page import distance_text, removed, repeat_command, write_page

DARK, BRIGHT = (0.4, 0.3), (0.7, 0.5)
TINY = BNStudy(
    sources=(DARK, BRIGHT),
    targets=(DARK, BRIGHT),
    dark_bright=(DARK, BRIGHT),
    regular=DARK,
    moved=(0.5, 0.4),
    side=16,
    width=2,
    depth=1,
    images=16,
    target_images=8,
    steps=20,
    batch=4,
    lr=0.02,
    distances=("frechet-diagonal", "bhattacharyya", "bhattacharyya-histogram", "classifier"),
    at_bottleneck=("classifier",),
    null_repeats=2,
    irregular_seeds=1,
    irregular={"regular": Irregular(), "interrupted": Irregular(steps=2)},
)
FIGURES = ["examples", "matrices", "all-white", "asymmetry", "histograms", "scatter", "irregular"]


def contents(folder):
    """All cells without the seconds they took."""
    cells = {path.relative_to(folder): read_json(path) for path in sorted(folder.rglob("*.json"))}
    for found in cells.values():
        found.pop("seconds", None)
    return cells


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    heard = []
    cells = measure(TINY, folder, device="cpu", listener=lambda name, seed, report: heard.append(report))
    assert [report.done for report in heard] == list(range(1, heard[-1].total + 1))
    kept = contents(folder)
    path, document = write_page(cells, folder, "acclimate study bn --seeds '<1>'")
    return folder, kept, cells, path, document


def test_a_killed_study_goes_on_with_the_same_numbers(done, tmp_path):
    _, whole, *_ = done

    def kill(name, seed, report):
        if report.done == 4:  # between two targets of the first source
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"4 of \d+ cells are kept"):
        measure(TINY, tmp_path, device="cpu", listener=kill)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("to-*.json")}
    assert len(before) == 2
    cells = measure(TINY, tmp_path, device="cpu", seeds=2)  # another seed adds cells and changes none
    found = contents(tmp_path)
    assert {name: found[name] for name in whole} == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(tmp_path.rglob("training*"))
    assert cells.seeds == [0, 1]
    first, second = (cells.pairs[seed, DARK, BRIGHT]["distances"] for seed in (0, 1))
    assert first != second


def test_other_settings_do_not_mix(done, tmp_path):
    folder, whole, *_ = done
    shutil.copytree(folder, tmp_path / "other")
    changed = TINY.replace(steps=3)
    with pytest.raises(UsageError, match=r"other settings \(steps\).*another --out.*--force"):
        measure(changed, tmp_path / "other", device="cpu")
    assert {name: found for name, found in contents(tmp_path / "other").items() if name in whole} == whole
    (tmp_path / "other" / "settings.json").unlink()  # every cell knows its settings too
    with pytest.raises(UsageError, match="other settings"):
        measure(changed, tmp_path / "other", device="cpu")
    with pytest.raises(UsageError, match="must be one of the sources"):
        TINY.replace(regular=(0.7, 0.4))
    with pytest.raises(UsageError, match="at least one seed"):
        measure(TINY, tmp_path, seeds=0)


def test_other_code_does_not_mix(done, tmp_path, monkeypatch):
    folder, *_ = done
    assert len(bn.code()) == 16
    shutil.copytree(folder, tmp_path / "other")
    monkeypatch.setattr(bn, "code", lambda: "another")
    assert TINY.identity() != read_json(folder / "seed-0" / "theory.json")["settings"]
    with pytest.raises(UsageError, match=r"by other code \(code\).*another --out.*--force"):
        measure(TINY, tmp_path / "other", device="cpu")


def test_every_figure_has_words_and_its_numbers(done):
    folder, _, cells, path, document = done
    assert path == folder / "report.html"
    assert load_document(folder / "report.json").title == document.title
    figures = {figure.name: figure for figure in document.figures()}
    assert list(figures) == FIGURES
    assert all(len(figure.alt) > 30 and figure.data for figure in figures.values())
    assert path.stat().st_size < 3_000_000
    html = path.read_text()
    assert html.count("<img ") == len(FIGURES)
    assert "&lt;1&gt;" in html
    shown = figures["matrices"].data
    assert shown["without"][0][1] == pytest.approx(cells.pairs[0, DARK, BRIGHT]["without"]["iou"])
    assert shown["gain"][1][0] == pytest.approx(shown["with"][1][0] - shown["without"][1][0])
    first = pictures(TINY, 0, DARK, 1)
    stored = figures["examples"].data["(0.4, 0.3)"]
    assert np.array_equal(unpacked(stored["image"]), first.images[0][..., 0])
    assert len(base64.b64decode(stored["mask"]["base64"])) == 16 * 16


def test_every_sentence_has_numbers_and_no_nan(done):
    *_, document = done
    text = [document.verdict, *(line for section in document.sections for line in section.text)]
    assert not [line for line in text if re.search(r"\bnan\b|None|inf\b", line)]
    assert "rank correlation" in document.verdict
    titles = [section.title for section in document.sections]
    assert titles[-1] == "Can it correct irregular training?"
    tables = [table for section in document.sections for table in section.tables]
    assert len(tables) == 9
    assert not [value for table in tables for row in table.rows for value in row if value != value]
    ranks = document.sections[titles.index("Does a distance predict the gain?")].tables[1]
    assert ranks.header == ["distance", "down 1", "bottleneck", "up 1"]
    assert [row[0] for row in ranks.rows] == list(TINY.distances)
    assert [value is None for value in ranks.rows[3]] == [False, True, False, True]  # taken at the bottleneck only


def test_the_training_set_of_a_source_is_seen_by_no_test(done):
    *_, cells, _, _ = done
    roles = [pictures(TINY, 0, DARK, 2, role).images[0] for role in ("train", "home", "adapt", "score")]
    assert len({image.tobytes() for image in roles}) == 4
    assert cells.sources[0, DARK]["layers"] == ["down 1", "bottleneck", "up 1"]


def test_scores_by_hand():
    found = scores(Evaluation({"foreground IoU": 0.5}, "foreground IoU", None, [[30, 10], [20, 40]], 1))
    assert found == {"iou": 0.5, "complement": 10 / 80, "share": 0.5, "truth": 0.6}


def test_latent_facts_by_hand():
    values = torch.tensor([[-1.0, 0.0, 5.0, 1.0], [1.0, 0.0, -5.0, 2.0]])
    facts = latent_facts({"source": values, "target": values.relu()}, shown=2)
    assert facts["channels"] == 4
    assert facts["dead"] == 0.25
    assert facts["at zero"] == {"source": 0.25, "target": 0.5}
    assert [shown["channel"] for shown in facts["shown"]] == [2, 0]
    assert all(sum(counts) == 2 for shown in facts["shown"] for counts in shown["counts"].values())
    nothing = latent_facts({"source": torch.zeros(3, 2)})
    assert nothing["dead"] == 1.0


def test_centres_are_those_of_normalised_noise():
    seen = bn_numbers.centres(BNStudy(), (0.6, 0.4))
    noise = np.random.default_rng(0).normal(0, 0.075, 400_000)
    inside = np.arange(400_000) < 160_000
    x = np.where(inside, 0.6, 0.4) + noise
    z = (x - x.mean()) / x.std()
    assert seen["object"] == pytest.approx(z[inside].mean(), abs=0.01)
    assert seen["background"] == pytest.approx(z[~inside].mean(), abs=0.01)
    assert seen["noise"] == pytest.approx(z[inside].std(), abs=0.01)
    assert seen["contrast"] == pytest.approx(0.2 / 0.075)
    moved = bn_numbers.centres(BNStudy(), (0.7, 0.5))
    assert all(math.isclose(moved[name], seen[name]) for name in seen)


@pytest.mark.parametrize("size", SIZES)
def test_the_noise_of_no_cell_is_cut_off(size):
    """Theory speaks of Gaussian noise: the darkest and brightest means, and the strongest noise."""
    study = SIZES[size]
    pairs = {*study.sources, *study.tested(), study.moved}
    assert {min(min(pair) for pair in pairs), 1 - max(max(pair) for pair in pairs)} == {0.3, 1 - 0.7}
    worst = clipped(pictures(study.replace(side=64), 0, (0.4, 0.3), 8))
    assert worst < 0.0005
    strong = pictures(study.replace(side=64), 0, study.regular, 8, sigma=2 * study.sigma)
    assert 0.002 < clipped(strong) < 0.005  # 2.67 deviations: 0.38 %
    first = pictures(study.replace(side=64), 0, study.regular, 1)
    inside = first.images[0][..., 0][first.labels[0] == 1] / 255
    assert inside.mean() == pytest.approx(study.regular[0], abs=0.01)
    assert inside.std() == pytest.approx(study.sigma, rel=0.05)


def test_distances_are_in_units_of_the_source():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, 4, generator=draw) * torch.tensor([1.0, 100.0, 0.01, 0.0])
    images = torch.arange(40) // 4
    home = {"layer": Activations(x, images)}
    found = standardised({"layer": Activations(y, images)}, home)["layer"]
    assert torch.allclose(found.values, y[:, :3] / x[:, :3].std(0))
    assert torch.allclose(standardised(home, home)["layer"].values.std(0), torch.ones(found.values.shape[1]))
    assert found.values.shape[1] == 3  # the last does not vary on the source


def test_the_classifier_is_told_the_images():
    """Rows of one image that resemble each other would else be recognised, where nothing has changed."""
    draw = torch.Generator().manual_seed(0)
    images = torch.arange(20).repeat_interleave(5)
    rows = torch.randn(20, 30, generator=draw)[images] + 0.01 * torch.randn(100, 30, generator=draw)
    distance, grouped = distance_named("classifier")
    assert grouped
    assert not distance_named("frechet")[1]
    known = source_null(distance, rows, images, repeats=4, grouped=True).mean
    unknown = source_null(distance, rows, images, repeats=4).mean
    assert unknown > 0.9
    assert known < 0.75


def test_rank_correlation_within_the_same_sign(done):
    _, _, cells, *_ = done
    turned = dataclasses.replace(cells, study=TINY.replace(distances=("bhattacharyya",)))
    pairs, sources = {}, {}
    rng = np.random.default_rng(0)
    for number in range(12):
        source, target = (0.4, 0.3), (0.5 + number / 100, 0.4) if number < 8 else (0.3, 0.5 + number / 100)
        score = {"without": {"iou": 0.0}, "with": {"iou": float(rng.random())}}
        far = {"bhattacharyya": {"bottleneck": {"before": float(rng.random()), "after": 1.0}}}
        pairs[0, source, target] = {**score, "distances": far}
    sources[0, (0.4, 0.3)] = {"layers": ["bottleneck"], "null": {"bhattacharyya": {"bottleneck": {"mean": 0.1}}}}
    found = bn_numbers.correlations(dataclasses.replace(turned, pairs=pairs, sources=sources))
    x = [cell["distances"]["bhattacharyya"]["bottleneck"]["before"] for cell in pairs.values()]
    y = [cell["with"]["iou"] for cell in pairs.values()]
    before, after = found
    assert (before.cells, before.same_cells) == (12, 8)
    assert before.rank == pytest.approx(spearmanr(x, y).statistic)
    assert before.same == pytest.approx(spearmanr(x[:8], y[:8]).statistic)
    assert (after.rank, after.same) == (None, None)
    text = " ".join(distance_text(found))
    assert "strongest of 1 correlations" in text  # the other could not be taken
    assert f"explains {100 * before.same**2:.1f} % of the variance of the gain's ranks" in text


def test_which_remedy_removes_what():
    assert (
        removed(0.5, 0.54, 0.0)
        == "What removes them is reading before the ReLU; training without weight decay alone does not."
    )
    assert removed(0.15, 0.0, 0.15).startswith("What removes them is training without weight decay;")
    assert removed(0.15, 0.0, 0.0).startswith("Either remedy alone")
    assert removed(0.15, 0.1, 0.1).startswith("Neither")
    assert removed(0.0, 0.0, 0.0) == "There is nothing to remove."


def test_rank_correlation_is_scipys():
    x, y = [3.0, 1.0, 2.0, 2.0, 9.0], [1.0, 0.0, 5.0, 2.0, 2.0]
    assert bn_numbers.rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert bn_numbers.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert bn_numbers.rank_correlation([1.0], [2.0]) is None


def test_kinds_and_names():
    assert bn_numbers.kind((0.7, 0.3), (0.3, 0.7)) == "inverted contrast"
    assert bn_numbers.kind((0.7, 0.3), (0.9, 0.7)) == "same sign of contrast"
    assert bn_numbers.kind((0.7, 0.3), (0.7, 0.3)) == "no shift"
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(unpacked(packed(array)), array)
    net = networks.build("unet", classes=2, channels=1, size=64, width=2, depth=3)
    assert list(block_layers(net)) == ["down 1", "down 2", "down 3", "bottleneck", "up 1", "up 2", "up 3"]
    assert all(layer.endswith(".4") for layer in block_layers(net).values())


def test_targets_are_ordered_by_sign_and_contrast():
    ordered = bn_numbers.in_order([(0.3, 0.5), (0.7, 0.3), (0.6, 0.5), (0.5, 0.6), (0.4, 0.3)])
    assert ordered == [(0.4, 0.3), (0.6, 0.5), (0.7, 0.3), (0.5, 0.6), (0.3, 0.5)]


def test_what_an_irregular_training_changes_is_said():
    study = BNStudy()
    said = [bn_numbers.changes(study, name) for name in study.irregular]
    assert said == [
        "nothing changed",
        "5 steps, not 300",
        "12 steps, not 300",
        "rate 0.1, not 0.002",
        "batches of 2, not 16",
    ]


def test_the_sizes_are_as_described():
    small, paper = SIZES["small"], SIZES["paper"]
    assert len(small.sources) == 6
    assert len(small.tested()) == 21
    assert len(paper.tested()) == len(paper.sources) == 20
    assert paper.width * 2**paper.depth == 1024
    assert repeat_command(small, 2, "a b") == "acclimate study bn --size small --seeds 2 --out 'a b'"
    compile(repeat_command(TINY, 1, "x"), "command", "exec")
