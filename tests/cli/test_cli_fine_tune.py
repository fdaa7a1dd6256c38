"""``fine-tune`` as a person uses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import folders
import pytest

from acclimate.cli.diagnose import next_command
from acclimate.errors import Interrupted
from acclimate.files import read_json, write_json
from acclimate.studies import few_labels

FEW = ("--k", "1,3", "--draws", "2", "--steps", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def tuned(run, place, call, tmp_path_factory):
    """The folder, and what was said while it was made."""
    folder = tmp_path_factory.mktemp("tuned") / "out"
    answer = call("fine-tune", run.folder, "--labelled", place / "real", "--out", folder, *FEW)
    assert answer.code == 0, answer.err
    return folder, answer


def test_a_table_a_verdict_a_model_and_the_next_command(tuned, run, place, call, tmp_path):
    folder, answer = tuned
    lines = answer.out.splitlines()
    assert lines[0].split()[-2:] == ["source-only", "dann"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "3"]
    assert "Also without labels: adabn" in answer.out
    assert "Fine-tuning source-only on labelled images" in " ".join(answer.out.split())
    assert "Adapting first" in answer.out
    assert f"report   {folder / 'report.html'}" in answer.out
    assert "15 images to draw from, 15 to score on" in answer.err
    assert f"next: acclimate predict {folder / 'model'} IMAGES" in answer.err
    assert len(lines) + len(answer.err.splitlines()) < 30
    result = read_json(folder / "fine-tune.json")
    assert result["schema_version"] == 1
    assert result["model"] == {"folder": str(folder / "model"), "start": "dann", "images": 30, "score": None}
    assert call("predict", folder / "model", place / "new", "--out", tmp_path / "p", "--device", "cpu").code == 0


def test_a_rerun_measures_nothing_and_gives_json(tuned, run, place, call, monkeypatch):
    folder, _ = tuned
    monkeypatch.setattr(few_labels, "adapt", None)
    again = call("fine-tune", run.folder, "--labelled", place / "real", "--out", folder, *FEW, "--json")
    assert again.code == 0, again.err
    assert again.json["fine-tuned"] == read_json(folder / "fine-tune.json")["fine-tuned"]
    assert set(again.json["without labels"]) == {"source-only", "adabn", "dann"}
    assert again.json["report"] == str(folder / "report.html")


def test_interrupted(run, place, call, tmp_path, monkeypatch):
    def stop(*arguments, **more):
        raise Interrupted("interrupted; nothing was being saved (no folder)")

    monkeypatch.setattr(few_labels, "adapt", stop)
    answer = call("fine-tune", run.folder, "--labelled", place / "real", "--out", tmp_path / "o", *FEW)
    assert answer.code == 130
    assert "3 of 12 cells are kept: run the same command to continue" in answer.err


def test_a_class_missing_too_many_images_and_test_images_apart(run, place, call, tmp_path):
    labelled = folders.classes(tmp_path / "labelled", 12, shifted=True)
    shutil.rmtree(labelled / "ring")
    words = ("--labelled", labelled, "--test", place / "real", "--out", tmp_path / "o", "--from", "adabn")
    answer = call("fine-tune", run.folder, *words, *FEW, "--k", "2,500")
    assert answer.code == 0, answer.err
    assert "warning: No labelled image shows ring" in answer.out
    assert "images can be drawn: 500" in answer.out
    assert " % accuracy)" in answer.out  # the kept model is scored, on images apart
    model = call("fine-tune", run.folder / "seed-0" / "source-only", *words[:-2], "--force", *FEW)
    assert model.code == 0, model.err
    assert model.out.splitlines()[0].split()[-1] == "source-only"
    own = call("fine-tune", tmp_path / "o" / "model", *words[:-2], *FEW)
    assert own.code == 3
    assert "has read target labels (fine-tune)" in own.err


@pytest.fixture(scope="module")
def descendant(tuned, place, call, tmp_path_factory):
    """A run that began from a run that began from a model that was fine-tuned on target labels."""
    root, model = tmp_path_factory.mktemp("descendants"), tuned[0] / "model"
    for name in ("child", "grandchild"):
        words = ("--target", place / "real", "--method", "adabn", "--out", root / name, "--device", "cpu")
        answer = call("adapt", "--model", model, *words)
        assert answer.code == 0, answer.err
        model = root / name
    return model


def test_a_run_that_began_from_a_model_that_read_labels_is_refused(descendant, place, call, tmp_path):
    sweep = tmp_path / "sweep"
    shutil.copytree(descendant / "seed-0" / "adabn", sweep / "best")
    write_json(sweep / "tune.json", {"question": {"experiment": {"model": str(descendant)}}})
    cell = tmp_path / "cells" / "task" / "row" / "quick-cpu-seed-0"
    shutil.copytree(descendant / "seed-0" / "adabn", cell)
    write_json(cell / "result.json", {"experiment": {"model": str(descendant)}})
    for begun in (descendant, descendant / "seed-0" / "adabn", sweep, sweep / "best", cell):
        answer = call("fine-tune", begun, "--labelled", place / "real", "--out", tmp_path / "o", *FEW)
        assert answer.code == 3, answer.err
        assert f"{begun}, or a model it began from, has read target labels (fine-tune)" in answer.err
    assert not (tmp_path / "o").exists()


def test_a_run_that_began_from_a_model_that_read_none_starts_from_it(run, place, call, tmp_path):
    child, words = tmp_path / "child", ("--labelled", place / "real", *FEW, "--k", "1", "--draws", "1")
    adapted = call(
        "adapt", "--model", run.folder, "--target", place / "real", "--method", "adabn", "--method", "fine-tune",
        "--labelled", place / "real", "--steps", "3", "--out", child, "--device", "cpu",
    )  # fmt: skip
    assert adapted.code == 0, adapted.err
    answer = call("fine-tune", child, "--out", tmp_path / "o", *words)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0].split()[-2:] == ["source-only", "adabn"]
    assert "left out fine-tune: target labels were read" in answer.err
    results = read_json(child / "results.json")
    write_json(child / "results.json", {**results, "experiment": {**results["experiment"], "model": "gone"}})
    gone = call("fine-tune", child, "--out", tmp_path / "p", *words)
    assert gone.code == 3
    assert "began from gone, which is not there: whether it read target labels cannot be said" in gone.err
    write_json(child / "results.json", {**results, "experiment": {**results["experiment"], "model": str(child)}})
    assert call("fine-tune", child, "--out", tmp_path / "q", *words).code == 0  # a circle ends


def test_a_kept_model_that_diverges_is_an_error_after_the_page(run, place, call, tmp_path):
    out = tmp_path / "o"
    answer = call("fine-tune", run.folder, "--labelled", place / "real", "--out", out, *FEW, "--lr", "1e30")
    assert answer.code == 4
    assert "warning: 9 of 9 trainings diverged and are left blank, such as source-only, 1 labels, draw 1" in answer.out
    assert "model    none" in answer.out
    assert f"--lr 1e+29 --out {out}-lr-1e+29" in answer.err
    assert "there is no model to take away: dann, all 30 labels: 'labelled' became non-finite" in answer.err
    assert read_json(out / "fine-tune.json")["model"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--labelled {place}/real --k 0", "--k 0: must be 1 labelled image or more"),
        ("--labelled {place}/real --k 1,x", "write numbers of images, such as 1,2,5,10,20"),
        ("--labelled {place}/real --k 400", "only 15 labelled images can be drawn"),
        ("--labelled {place}/new", "has no labels"),
        ("--labelled {place}/real --lr 0", "--lr 0.0: must be greater than 0"),
        ("--labelled {place}/real --from dan", "did you mean 'dann'?"),
        ("--labelled {place}/real --keep-from source", "has no such method"),
        ("--labelled {place}/real --set fine-tune.part=heads", "must be 'all', 'head' or 'norm+head'"),
        ("--labelled {place}/real --set plan.steps=3", "choose --steps, --batch and --lr"),
        ("--labelled {place}/real --test {place}/real", "30 images of real are among the labelled ones too"),
        ("--labeled {place}/real", "did you mean '--labelled'?"),
    ],
)
def test_mistakes(run, place, call, tmp_path, words, said):
    answer = call(
        "fine-tune", run.folder, *words.format(place=place).split(), "--out", tmp_path / "o", "--device", "cpu"
    )
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert not (tmp_path / "o").exists()


def test_a_run_in_the_making_is_no_run(place, call, tmp_path):
    (tmp_path / "seed-0" / "dann").mkdir(parents=True)
    answer = call("fine-tune", tmp_path, "--labelled", place / "real")
    assert answer.code == 3
    assert "is not finished" in answer.err


def test_an_uncertain_diagnosis_leads_here(run):
    class Uncertain:
        advised = "label"

    place: Path = run.folder / "seed-0" / "source-only"
    assert next_command(Uncertain, "s", "t", place).endswith("--labelled LABELLED")
    assert next_command(Uncertain, "s", "t", place).startswith(f"acclimate fine-tune {run.folder.resolve()}")
