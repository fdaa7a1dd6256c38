"""What a few labels are worth: which images are drawn, cells that survive a kill, and sentences that follow from numbers."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import torch
import toys

from acclimate import networks
from acclimate.data import open_domain
from acclimate.data.domain import Domain
from acclimate.engine.adapt import adapt
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.errors import DataError, Interrupted, NumericError, UsageError
from acclimate.files import read_json
from acclimate.methods.mcd import MCD
from acclimate.plan import Optimiser, Plan
from acclimate.report.document import load_document
from acclimate.studies import few_labels
from acclimate.studies.few_labels import (
    Cells,
    FewLabels,
    Images,
    beats_from,
    images,
    measure,
    order,
    write_result,
)
from acclimate.studies.few_labels_page import curve_rows, notes, verdict, warnings, write_page

SMALL = FewLabels(counts=(2, 5), draws=2, steps=3, batch=4)


@pytest.fixture(scope="module")
def players(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """source-only and AdaBN as files."""
    root = tmp_path_factory.mktemp("players")
    source, target, _ = toys.classification(40)
    torch.manual_seed(0)
    net = networks.build("dann-mnist", classes=3, channels=3, size=16, norm="batch")
    preprocess = toys.PREPROCESS["classification"]
    how = Plan(steps=15, batch=8, precision="float32", optimiser=Optimiser(lr=0.02))
    for name in ("source-only", "adabn"):
        done = adapt(net, source, target, name, plan=how, preprocess=preprocess, device="cpu")
        done.model.save(root / name)
        net = done.model.method.net
    return {name: root / name for name in ("source-only", "adabn")}


@pytest.fixture(scope="module")
def labelled() -> Images:
    return images(toys.classification(40)[1], None)


@pytest.fixture(scope="module")
def finished(
    players: dict[str, Path], labelled: Images, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Cells, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return measure(SMALL, folder, players, labelled, device="cpu"), folder


# -- which images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 40])
def test_at_least_half_is_held_out_and_never_drawn(count: int) -> None:
    domain = toys.classification(40)[1].subset(range(count))
    first, again = images(domain, None), images(domain, None)
    pool, test = set(first.pool.names), set(first.test.names)
    assert len(test) >= count / 2
    assert pool
    assert not pool & test
    assert pool | test == set(domain.names) == set(first.everything.names)
    assert (list(again.pool.names), list(again.test.names)) == (list(first.pool.names), list(first.test.names))


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match="too few to hold out"):
        images(toys.classification(40)[1].subset([0]), None)


def test_what_is_trained_on_is_not_scored(tmp_path: Path) -> None:
    place = folders.classes(tmp_path / "labelled", 9)
    with pytest.raises(UsageError, match=r"9 images of .* are among the labelled ones too"):
        images(open_domain(place), open_domain(place))
    other = folders.classes(tmp_path / "other", 9)
    assert images(open_domain(place), open_domain(other)).given


def test_draws_are_nested_and_as_alike_per_class_as_can_be() -> None:
    domain = toys.classification(40)[1]
    shares = Counter(np.asarray(domain.labels).tolist())
    for draw in range(3):
        drawn = order(domain, draw)
        assert sorted(drawn) == list(range(40))
        for k in range(1, 3 * min(shares.values()) + 1):
            counts = Counter(int(domain.labels[i]) for i in drawn[:k])  # type: ignore[index]
            assert max(counts.values()) - min(counts[label] for label in range(3)) <= 1
    assert order(domain, 0) == order(domain, 0) != order(domain, 1)


def test_of_a_rare_class_all_are_drawn_and_images_without_a_class_never() -> None:
    domain = toys.classification(12)[1]
    few = dataclasses.replace(domain, labels=np.array([0] + [1] * 10 + [-1]))
    given = images(few, toys.classification(12)[2])
    assert len(given.pool) == 11
    assert 0 in [int(given.pool.labels[i]) for i in order(given.pool, 0)[:2]]  # type: ignore[index]
    with pytest.raises(UsageError, match="no image has one of the model's classes"):
        images(dataclasses.replace(domain, labels=np.full(12, -1)), None)


def test_masks_are_drawn_at_random() -> None:
    domain = toys.segmentation(12)[1]
    assert sorted(order(domain, 0)) == list(range(12))
    assert order(domain, 0) != order(domain, 1)


# -- cells ------------------------------------------------------------------------------------------------------------


def test_a_score_is_that_of_fine_tuning_on_the_drawn_images_alone(
    finished: tuple[Cells, Path], players: dict[str, Path], labelled: Images
) -> None:
    cells, _ = finished
    start = Model.load(players["adabn"])
    drawn = labelled.pool.subset(order(labelled.pool, 1)[:5])
    how = Plan(steps=3, batch=4, seed=1)
    task = start.method.task
    tuned = adapt(
        start.method.net, None, None, "fine-tune", labelled=drawn, plan=how, preprocess=start.preprocess, task=task,
        device="cpu",
    )  # fmt: skip
    found = cells.runs["adabn", 5, 1]
    assert found["images"] == list(drawn.names)
    assert found["score"]["confusion"] == evaluate(tuned.model, labelled.test).confusion
    assert found["score"]["images"] == len(labelled.test)
    assert (
        cells.lines["source-only"]["score"]["value"]
        == evaluate(Model.load(players["source-only"]), labelled.test).value
    )
    assert set(cells.runs) == {(s, k, d) for s in ("source-only", "adabn") for k in (2, 5) for d in (0, 1)}


def test_a_rerun_trains_only_what_is_missing(
    finished: tuple[Cells, Path], players: dict[str, Path], labelled: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, folder = finished
    trained: list[int] = []

    def watched(*arguments: Any, **more: Any) -> Any:
        trained.append(len(more["labelled"]))
        return adapt(*arguments, **more)

    monkeypatch.setattr(few_labels, "adapt", watched)
    again = measure(SMALL, folder, players, labelled, device="cpu")
    assert again.runs == cells.runs
    assert not trained
    measure(SMALL.replace(counts=(2, 3, 5)), folder, players, labelled, device="cpu")
    assert trained == [3] * 4
    with pytest.raises(UsageError, match=r"other settings \(steps\).*--force"):
        measure(SMALL.replace(steps=4), folder, players, labelled, device="cpu")
    fewer = dataclasses.replace(labelled, test=labelled.test.subset(range(4)))
    with pytest.raises(UsageError, match=r"other settings \(test\)"):
        measure(SMALL, folder, players, fewer, device="cpu")
    with pytest.raises(UsageError, match=r"other settings \(device\)"):
        measure(SMALL, folder, players, labelled, device="cuda")


def changed(domain: Domain, what: str) -> Domain:
    """One pixel of the last image, or of its mask, is another; for classification its class."""
    made = [np.array(each) for each in getattr(domain, what)]
    made[-1].flat[-1] = (int(made[-1].flat[-1]) + 1) % 2
    return dataclasses.replace(domain, **{what: made})


@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_corrected_label_or_image_is_another_study(task: str, what: str) -> None:
    domain = toys.PAIRS[task](40)[1]
    assert changed(domain, what).fingerprint() != domain.fingerprint() == toys.PAIRS[task](40)[1].fingerprint()


def test_cells_of_an_image_that_was_replaced_are_not_kept(
    finished: tuple[Cells, Path], players: dict[str, Path], labelled: Images
) -> None:
    other = dataclasses.replace(labelled, everything=changed(labelled.everything, "images"))
    with pytest.raises(UsageError, match=r"other settings \(labelled\)"):
        measure(SMALL, finished[1], players, other, device="cpu")


def test_the_curve_of_a_method_that_predicts_with_more_begins_at_its_network(
    players: dict[str, Path], labelled: Images, tmp_path: Path
) -> None:
    one, more = Model.load(players["source-only"]), tmp_path / "more"
    both = MCD(one.method.net, one.method.task, Plan())
    with torch.no_grad():
        list(both.second.parameters())[-1][1] += 100  # the second head is sure of the second class
    dataclasses.replace(one, method=both).save(more)
    start = {"mcd": more}
    cells = measure(
        SMALL.replace(counts=(2,), draws=1), tmp_path / "out", start, labelled, starts=["mcd"], device="cpu"
    )
    alone = evaluate(Model.load(players["source-only"]), labelled.test).value
    assert cells.lines["mcd"]["score"]["value"] == evaluate(Model.load(more), labelled.test).value != alone
    assert curve_rows(cells)[0] == ["0", f"{100 * alone:.1f}"]
    said = f"mcd predicts with more than the network that is fine-tuned, which alone reaches {100 * alone:.1f} %"
    assert any(said in text for text in warnings(cells))


def test_a_training_that_diverges_leaves_a_blank_and_the_others_go_on(
    players: dict[str, Path], labelled: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = measure(SMALL.replace(lr=1e30), tmp_path / "fast", players, labelled, device="cpu")
    assert not (tmp_path / "fast" / "model").exists()
    assert curve_rows(every)[1:] == [["2", "", ""], ["5", "", ""]]
    assert len(every.failed) == 9
    assert every.failed[1].startswith(
        "source-only, 5 labels, draw 1: 'labelled' became non-finite in stage 'fine-tune'"
    )
    assert all(why.endswith("updating net; choose a lower --lr, with another --out.") for why in every.failed)
    assert "Fine-tuning source-only on labelled images diverged with every number that was tried." in verdict(every)
    page = write_page(every, tmp_path / "fast", "acclimate fine-tune run --labelled some")[0].read_text()
    assert "9 of 9 trainings diverged and are left blank, such as source-only, 2 labels, draw 1" in page
    assert "There is none, because its training diverged." in page
    assert all(f"{start}, {k} labels, draw {d}" in page for start in players for k in (2, 5) for d in (1, 2))
    assert write_result(every, tmp_path / "fast", "", "")["failed"] == every.failed

    def once(*arguments: Any, **more: Any) -> Any:
        if len(more["labelled"]) == 5 and more["plan"].seed == 1:
            raise NumericError("'labelled' became non-finite. Its images were some")
        return adapt(*arguments, **more)

    monkeypatch.setattr(few_labels, "adapt", once)
    some = measure(SMALL, tmp_path / "some", players, labelled, device="cpu")
    assert [why.partition(":")[0] for why in some.failed] == [
        "source-only, 5 labels, draw 2", "adabn, 5 labels, draw 2",
    ]  # fmt: skip
    assert [len(few_labels.values(some, "adabn", k)) for k in (2, 5)] == [2, 1]
    assert Model.load(tmp_path / "some" / "model").method.name == "fine-tune"


def test_an_interrupted_study_goes_on_to_the_same_numbers(
    finished: tuple[Cells, Path],
    players: dict[str, Path],
    labelled: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = iter(range(100))

    def interrupted(*arguments: Any, **more: Any) -> Any:
        if next(trained) == 2:
            raise Interrupted("interrupted; nothing was being saved (no folder)")
        return adapt(*arguments, **more)

    monkeypatch.setattr(few_labels, "adapt", interrupted)
    with pytest.raises(Interrupted, match="4 of 11 cells are kept: run the same command to continue"):
        measure(SMALL, tmp_path, players, labelled, device="cpu")
    after = measure(SMALL, tmp_path, players, labelled, device="cpu")
    assert {place: run["score"] for place, run in after.runs.items()} == {
        place: run["score"] for place, run in finished[0].runs.items()
    }
    assert next(trained) == 10  # two, the one that was interrupted, and the seven that were missing


def test_the_kept_model_is_trained_on_everything_and_follows_its_start(
    finished: tuple[Cells, Path], players: dict[str, Path], labelled: Images, tmp_path: Path
) -> None:
    cells, folder = finished
    assert cells.kept["of"]["start"] == "adabn"
    assert (cells.kept["images"], cells.kept["score"]) == (40, None)
    model = Model.load(folder / "model")
    assert model.method.name == "fine-tune"
    apart = Images(labelled.everything, toys.classification(40)[2], labelled.everything, given=True)
    first = measure(SMALL, tmp_path, players, apart, device="cpu", starts=["adabn"])
    assert first.kept["score"]["value"] == evaluate(Model.load(tmp_path / "model"), apart.test).value
    other = measure(SMALL, tmp_path, players, apart, device="cpu", starts=["adabn"], keep_from="source-only")
    assert other.kept["of"]["start"] == "source-only"
    assert read_json(tmp_path / "kept.json")["of"] == other.kept["of"]


def test_a_folder_that_was_moved_says_where_it_is(players: dict[str, Path], labelled: Images, tmp_path: Path) -> None:
    small = SMALL.replace(counts=(2,), draws=1)
    measure(small, tmp_path / "here", players, labelled, device="cpu")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert str(tmp_path) not in (tmp_path / "there" / "kept.json").read_text()
    again = measure(small, tmp_path / "there", players, labelled, device="cpu")
    assert again.kept["folder"] == str(tmp_path / "there" / "model")


def test_mistakes(players: dict[str, Path], labelled: Images, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be 1 labelled image or more"):
        FewLabels(counts=(0, 5))
    with pytest.raises(UsageError, match=r"only 20 labelled images can be drawn.*--k 1,2,5,10,20"):
        measure(SMALL.replace(counts=(21, 30)), tmp_path, players, labelled, device="cpu")
    with pytest.raises(UsageError, match="did you mean 'adabn'"):
        measure(SMALL, tmp_path, players, labelled, starts=["adapn"], device="cpu")
    assert not list(tmp_path.iterdir())


# -- words ------------------------------------------------------------------------------------------------------------


def made(base: dict[int, list[Any]], adapted: dict[int, list[Any]], line: float = 0.65, **changes: Any) -> Cells:
    """Cells with chosen scores, None where training diverged; source-only has 60 % without labels, the adapted model
    ``line`` ± 2 points."""

    def cell(value: float | None) -> dict[str, Any]:
        if value is None:
            return {"score": None, "why": "it diverged.", "seconds": 6.0}
        score = {"value": value, "interval": [value - 0.02, value + 0.02]}
        return {"score": score, "net": score, "seconds": 6.0}

    runs = {
        (name, k, draw): cell(value)
        for name, curve in (("source-only", base), ("dann", adapted))
        for k, values in curve.items()
        for draw, value in enumerate(values)
    }
    domain = toys.classification(12)[1]
    kept = {"folder": "x/model", "of": {"start": "dann"}, "images": 12, "score": None, "seconds": 6.0}
    counts = list(base)
    study = FewLabels(counts=tuple(counts), draws=len(base[counts[0]]))
    lines = {"source-only": cell(0.60), "adabn": cell(0.63), "dann": cell(line)}
    facts = {"counts": counts, "dropped": [], "missing": [], "adapted": "dann", **changes}
    return Cells(
        study, "classification", "accuracy", domain.classes, Images(domain, domain, domain, False),
        lines=lines, runs=runs, kept=kept, seconds=60.0, **facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("means", "since"), [([0.1, 0.2, 0.3], None), ([0.6, 0.4, 0.7], 20), ([0.6, 0.7, 0.8], 5), ([0.6, 0.7, 0.5], None)]
)
def test_beating_means_from_there_on(means: list[float], since: int | None) -> None:
    assert beats_from([5, 10, 20], means, 0.5) == since


def test_the_verdict_says_when_labels_beat_adaptation_and_whether_adapting_first_helps() -> None:
    base = {1: [0.58, 0.60], 5: [0.65, 0.67], 10: [0.70, 0.72]}
    both = {1: [0.63, 0.64], 5: [0.68, 0.66], 10: [0.71, 0.73]}
    said = verdict(made(base, both))
    assert "Without a target label (accuracy): dann 65.0 %, source-only 60.0 %." in said
    assert (
        "Fine-tuning source-only on labelled images beats dann from 5 labelled images on, beyond its 95 % interval from 10 "
        "on (71.0 % with 10)."
    ) in said
    assert (
        "Adapting first helps with 1, 10 labelled images, makes no clear difference with 5 labelled images (+4.5 points "
        "with 1, +1.0 points with 10; better in 5 of 6 pairs of trainings)."
    ) in said
    assert said.endswith("Fine-tuning harms dann with 1 labelled image (−1.5 points).")  # source-only: −1 ± 1.4


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.02, 0.02, 0.02], "helps with any number that was tried"),
        ([-0.02, -0.03, -0.01], "harms with any number that was tried"),
        ([0.03, 0.02, -0.01], "makes no clear difference with any number that was tried"),  # 1.33 points, error 1.20
        ([0.004, 0.004, 0.004], "makes no clear difference with any number that was tried"),  # less than half a point
        ([0.04], "makes no clear difference with any number that was tried"),
        ([0.02, None, 0.02], "helps with any number that was tried"),
        ([0.02, None, None], "makes no clear difference with any number that was tried"),
    ],
)
def test_a_difference_is_said_only_where_it_is_clear(gains: list[float | None], said: str) -> None:
    start = [0.80, 0.85, 0.90][: len(gains)]
    cells = made({5: start}, {5: [None if g is None else s + g for s, g in zip(start, gains)]})
    assert f"Adapting first {said} (" in verdict(cells)
    assert any("One draw of labelled images" in text for text in warnings(cells)) == (len(gains) == 1)


def test_harm_is_said_of_both_starts_where_it_is_clear() -> None:
    base = {1: [0.50, 0.52], 2: [0.56, 0.57], 5: [0.58, 0.61], 10: [0.7, 0.7]}
    said = verdict(made(base, {1: [0.5, 0.64], 2: [0.646, 0.646], 5: [0.7, 0.7], 10: [0.8, 0.8]}))
    assert said.endswith("Fine-tuning harms source-only with 1, 2 labelled images (−9.0, −3.5 points).")
    said = verdict(made({1: [0.60, 0.60]}, {1: [0.5, 0.52]}))
    assert said.endswith("Fine-tuning harms dann with 1 labelled image (−14.0 points).")
    alone = made({1: [0.50, 0.52]}, {})
    alone.adapted = None
    assert "Fine-tuning harms source-only with 1 labelled image (−9.0 points)." in verdict(alone)
    assert any("clear from 2 standard errors over draws on, and from 0.5 points on" in text for text in notes(alone))


def test_what_diverged_is_left_out_of_the_verdict() -> None:
    cells = made({1: [0.5, 0.5], 5: [0.7, None], 10: [None, None]}, {1: [0.6, 0.6], 5: [None, 0.8], 10: [None, None]})
    said = verdict(cells)
    assert "beats dann from 5 labelled images on, beyond its 95 % interval (70.0 % with 5)" in said
    assert "Adapting first helps with any number that was tried (+10.0 points with 1; better in 2 of 2 pairs" in said
    assert curve_rows(cells)[2:] == [["5", "70.0", "80.0"], ["10", "", ""]]


def test_the_verdict_says_never_too() -> None:
    base = {1: [0.5, 0.5], 20: [0.64, 0.64]}
    said = verdict(made(base, {1: [0.4, 0.4], 20: [0.60, 0.62]}))
    assert "does not beat dann with up to 20 labelled images (64.0 %)" in said
    assert "Adapting first harms with any number that was tried" in said
    said = verdict(made({1: [0.5, 0.5], 5: [0.66, 0.66]}, {1: [0.6, 0.6], 5: [0.6, 0.6]}))
    assert "beats dann from 5 labelled images on; never beyond its 95 % interval (66.0 % with 5)" in said
    assert "Adapting first helps with 1 labelled image, harms with 5 labelled images" in said


def test_the_page_and_its_numbers(tmp_path: Path) -> None:
    cells = made({1: [0.5, 0.54], 5: [0.6, 0.6]}, {1: [0.6, 0.6], 5: [0.7, 0.7]}, dropped=[50], missing=["ring"])
    assert curve_rows(cells) == [
        ["0", "60.0", "65.0"],
        ["1", "52.0 ± 2.8", "60.0 ± 0.0"],
        ["5", "60.0 ± 0.0", "70.0 ± 0.0"],
    ]
    assert warnings(cells) == [
        "Left out, since only 12 labelled images can be drawn: 50.",
        "No labelled image shows ring: fine-tuning may forget what is not shown to it.",
    ]
    page, document = write_page(cells, tmp_path, "acclimate fine-tune run --labelled some", "acclimate predict x y")
    assert load_document(tmp_path / "report.json") == document
    assert "labels." in document.sections[0].figures[0].caption
    assert "<svg" in page.read_text() or "data:image" in page.read_text()
    result = write_result(cells, tmp_path, document.verdict, "acclimate fine-tune run")
    assert read_json(tmp_path / "fine-tune.json") == result
    assert result["schema_version"] == 1
    assert result["fine-tuned"]["source-only"][0] == {
        "k": 1, "mean": pytest.approx(0.52), "deviation": pytest.approx(0.0282842712), "values": [0.5, 0.54],
    }  # fmt: skip
    assert result["without labels"]["adabn"]["value"] == 0.63


def test_one_model_of_its_own_is_measured_against_itself() -> None:
    cells = made({1: [0.58, 0.60], 5: [0.65, 0.67]}, {})
    cells.adapted = None
    assert "Fine-tuning source-only beats that from 5 labelled images on" in verdict(cells)
