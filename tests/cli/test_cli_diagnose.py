"""``diagnose`` as a person uses it: with and without a model, mistaken, interrupted."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from acclimate.cli import diagnose as verb
from acclimate.diagnosis import advisor
from acclimate.diagnosis import diagnose as diagnosis
from acclimate.errors import DataError


def no_trial(*_: object) -> None:
    raise KeyboardInterrupt


def test_help_and_a_mistyped_option(call):
    said = call("diagnose", "--help")
    assert said.code == 0
    for option in ("--model", "--budget", "--trials", "--map", "--out"):
        assert option in said.out
    wrong = call("diagnose", "a", "b", "--modle", "c")
    assert wrong.code == 2
    assert "--model" in wrong.err


def test_without_a_model_all_images_are_compared(place, call, tmp_path):
    answer = call("diagnose", place / "simulated", place / "new", "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["verdict"] is None
    assert answer.json["source_images"] == 60
    assert answer.json["sentence"].startswith("The images differ in")
    assert json.loads((tmp_path / "out" / "findings.json").read_text())["looked"]["size"] == [16, 16]
    page = (tmp_path / "out" / "diagnosis.html").read_text()
    assert "of the source (of 60 images)" in page
    assert f"next: acclimate adapt --source {place / 'simulated'}" in answer.err


def test_a_run_is_diagnosed_by_its_source_only_model(run, place, call, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "windows_of", lambda *_: 12)
    words = ["diagnose", place / "simulated", place / "new", "--model", run.folder, "--trials", "24"]
    answer = call(*words, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    assert f"model    {run.folder / 'seed-0' / 'source-only'}" in answer.err
    assert "shifts 1/24" in answer.err
    found = answer.json
    assert found["source_images"] == 12  # held out by the run
    assert found["looked"]["trial_images"] == found["looked"]["target_images"] == 6
    assert found["verdict"] in ("adapt", "don't adapt", "uncertain")
    assert not found["interrupted"]
    assert (tmp_path / "out" / "diagnosis.html").exists()


def test_ctrl_c_after_enough_trials_gives_the_verdict_and_130(run, place, call, tmp_path, monkeypatch):
    done = []

    def trial(*given: object) -> advisor.Trial:
        if len(done) == diagnosis.LEAST:
            raise KeyboardInterrupt
        done.append(advisor.trial(*given))
        return done[-1]

    monkeypatch.setattr(diagnosis, "windows_of", lambda *_: 12)
    monkeypatch.setattr(diagnosis, "trial", trial)
    words = ["diagnose", place / "simulated", place / "new", "--model", run.folder, "--out", tmp_path / "out", "--json"]
    answer = call(*words)
    assert answer.code == 130
    assert answer.json["interrupted"]
    assert "interrupted: the verdict is from the 24 shifts" in answer.err
    monkeypatch.setattr(diagnosis, "trial", no_trial)
    early = call(*words[:-2], tmp_path / "early")
    assert early.code == 130
    assert "error: interrupted" in early.err
    assert not (tmp_path / "early").exists()


def test_mistakes_are_said_before_the_work(run, place, call, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "inside"):
        answer = call("diagnose", place / "simulated", place / "new", "--out", out)
        assert answer.code == 2
        assert f"{file} is a file" in answer.err
    unknown = call("diagnose", place / "simulatde", place / "new")
    assert unknown.code == 2
    assert "simulatde" in unknown.err
    (tmp_path / "half" / "seed-0").mkdir(parents=True)
    unfinished = call("diagnose", place / "simulated", place / "new", "--model", tmp_path / "half")
    assert unfinished.code == 3
    assert "not finished" in unfinished.err
    plain = call("diagnose", place / "new", place / "new", "--model", run.folder)
    assert plain.code == 2
    assert "has no labels" in plain.err


# -- which model, which images ----------------------------------------------------------------------------------------


def write_run(folder, model: str | None, players: list[str], holdout: float = 0.2) -> None:
    folder.mkdir()
    experiment = {"model": model, "holdout": holdout}
    entries = {name: {"oracle": False} for name in players}
    (folder / "results.json").write_text(json.dumps({"experiment": experiment, "seeds": [0], "players": entries}))


def test_a_run_that_began_with_a_model_leads_to_that_model(run, tmp_path):
    source_only = run.folder / "seed-0" / "source-only"
    again = tmp_path / "again"
    write_run(again, str(source_only), ["adabn"], holdout=0.4)
    adapted = again / "seed-0" / "adabn"
    shutil.copytree(run.folder / "seed-0" / "adabn", adapted)
    for given in (again, adapted, run.folder, source_only):
        assert verb.source_model(given).resolve() == source_only.resolve()
    write_run(tmp_path / "lost", "nowhere", ["adabn"])
    with pytest.raises(DataError, match="began with the model nowhere"):
        verb.source_model(tmp_path / "lost")
    write_run(tmp_path / "from source", None, ["adabn"])
    with pytest.raises(DataError, match="no source-only model"):
        verb.source_model(tmp_path / "from source")
    alone = tmp_path / "alone"
    shutil.copytree(adapted, alone)
    with pytest.raises(DataError, match="adapted by adabn"):
        verb.source_model(alone)
    shutil.copytree(source_only, tmp_path / "imported")
    assert verb.source_model(tmp_path / "imported") == tmp_path / "imported"


def test_images_that_the_run_held_out(run, place, tmp_path, capsys):
    write_run(tmp_path / "run", None, ["source-only"], holdout=0.5)
    model = tmp_path / "run" / "seed-0" / "source-only"
    shutil.copytree(run.folder / "seed-0" / "source-only", model)
    assert verb.holdout_of(model) == 0.5
    assert verb.holdout_of(tmp_path) is None
    simulated = str(place / "simulated")
    assert len(verb.not_trained_on(simulated, 0.5)) == 30
    assert len(verb.not_trained_on(simulated, None)) == 12
    assert not capsys.readouterr().err
    assert len(verb.not_trained_on(simulated, 0.1)) == 54
    assert "only 6 images" in capsys.readouterr().err
    everything = verb.everything(simulated)
    assert len(everything) == len(set(everything.names)) == 60
    assert np.asarray(everything.images[59]).shape == (16, 16, 3)
