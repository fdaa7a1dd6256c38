from __future__ import annotations

import shutil

import pytest

from acclimate.engine import evaluate as evaluation
from acclimate.selection import DEFAULT, reverse


@pytest.fixture(scope="module")
def compared(run, call):
    return call("compare", run.folder, "--device", "cpu", "--json")


def test_every_player_that_read_no_label_is_ranked(compared) -> None:
    assert compared.code == 0, compared.err
    found = compared.json
    assert sorted(each["label"] for each in found["ranking"]) == ["adabn", "dann", "source-only"]
    assert found["score"] == DEFAULT["classification"]
    assert set(found["values"]["entropy"]) == {"adabn", "dann", "source-only"}
    values = [each["value"] for each in found["ranking"]]
    assert values == sorted(values, reverse=found["better"] == "high")
    assert found["without a value"] == {}


def test_no_target_label_is_opened_and_no_accuracy_is_printed(run, call, monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("scored without being asked to")

    monkeypatch.setattr(evaluation, "evaluate", refuse)
    answer = call("compare", run.folder, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "accuracy" not in answer.out
    assert "regret" not in answer.out
    assert len(answer.out.splitlines()) <= 40
    assert "acclimate predict" in answer.err


def test_with_labels_each_model_is_scored_and_each_score_judged(run, place, call) -> None:
    answer = call("compare", run.folder, "--device", "cpu", "--labels", place / "real", "--json")
    truths = {label: each["value"] for label, each in answer.json["labelled"].items()}
    lost, _ = answer.json["regret and rank correlation"]["entropy"]
    chosen = min(answer.json["values"]["entropy"].items(), key=lambda item: item[1])[0]
    assert lost == pytest.approx(max(truths.values()) - truths[chosen])
    assert "accuracy (labels)" in call("compare", run.folder, "--labels", place / "real", "--device", "cpu").out


def test_the_score_can_be_chosen(run, call) -> None:
    assert call("compare", run.folder, "--score", "bnm", "--json", "--device", "cpu").json["score"] == "bnm"
    wrong = call("compare", run.folder, "--score", "bmn")
    assert (wrong.code, "did you mean 'bnm'" in wrong.err) == (2, True)
    masks = call("compare", run.folder, "--score", "morphology", "--device", "cpu")
    assert (masks.code, "is for segmentation" in masks.err) == (2, True)


def test_reverse_validation_ranks_by_the_way_back(run, call, monkeypatch) -> None:
    ways = {"SourceOnly": 0.2, "AdaBN": 0.9, "DANN": 0.5}
    monkeypatch.setattr(reverse, "reverse_validation", lambda model, *_, **__: ways[type(model.method).__name__])
    answer = call("compare", run.folder, "--reverse", "3", "--json", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert answer.json["score"] == "reverse-validation"
    assert [each["label"] for each in answer.json["ranking"]] == ["adabn", "dann", "source-only"]
    assert "seed-0/adabn" in answer.err


def test_reverse_validation_trains_back_to_the_source(run, call) -> None:
    answer = call("compare", run.folder, "--reverse", "3", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "Reverse validation puts" in answer.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{run}/seed-0/dann"], 2, "at least two"),
        (["nowhere"], 3, "there is no such folder"),
        (["{run}", "--target", "nowhere-at-all"], 2, "nowhere-at-all"),
        (["{run}", "--score", "entropy", "--reverse", "3"], 2, "either --score or --reverse"),
    ],
)
def test_what_cannot_be_compared_is_said(run, call, words, code, said) -> None:
    answer = call("compare", *(word.format(run=run.folder) for word in words))
    assert said in answer.err
    assert answer.code == code


def test_runs_of_different_targets_are_refused(run, call, place, tmp_path) -> None:
    import json

    other = tmp_path / "other"
    shutil.copytree(run.folder, other)
    results = json.loads((other / "results.json").read_text())
    results["experiment"]["target"] = str(place / "new")
    (other / "results.json").write_text(json.dumps(results))
    answer = call("compare", run.folder, other)
    assert answer.code == 2
    assert "different targets" in answer.err
    assert call("compare", run.folder, other, "--target", place / "new", "--device", "cpu").code == 0
