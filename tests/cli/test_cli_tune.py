"""``tune`` as a person uses it: a sweep, its table, the commands it ends with, interrupted and repeated."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys

import pytest
from runs import assert_same

from acclimate.engine.checkpoint import read_tensors

TINY = (
    "--network",
    "dann-mnist",
    "--network-set",
    "norm=batch",
    "--batch",
    "8",
    "--device",
    "cpu",
    "--score",
    "entropy",
)


def words(place, out, *more):
    where = ["--source", place / "simulated", "--target", place / "real", "--out", out]
    return [str(word) for word in ("tune", *where, *TINY, "--set", "dann.hidden=20", *more)]


@pytest.fixture(scope="module")
def swept(place, call):
    out = place / "swept"
    typed = words(place, out, "--steps", "25", "--trials", "3", "--set", "dann.weight=0.1")
    answer = call(*typed)
    assert answer.code == 0, answer.err
    return out, typed, answer


def test_what_is_done_is_said_before(swept):
    out, _, answer = swept
    said = answer.err.splitlines()
    assert said[0].startswith("source   simulated")
    assert said[1] == "target   real: 30 images, 16 x 16 pixels, colour; labels are not used"
    tuned = "3 trials of dann by entropy (low is better): lr 0.001 to 0.1 (log); dann.weight 0.01 to 1 (log)"
    assert said[4] == f"tune     {tuned}"
    assert said[5] == f"out      {out}"
    assert sum(line.startswith("trial ") for line in said) == 3


def test_the_table_shows_trials_defaults_source_only_and_a_warning(swept):
    out, _, answer = swept
    lines = answer.out.splitlines()
    assert lines[0].split() == ["entropy", "lr", "dann.weight", "source", "accuracy", "largest", "class"]
    assert "(best" in lines[1]
    assert any("defaults" in line and " 0.01 " in line and " 0.1 " in line for line in lines)
    assert any(line.startswith("source-only") for line in lines)
    assert "entropy can mislead" in answer.out
    assert "docs/studies/selection.md" in answer.out
    assert "target accuracy" not in answer.out
    assert lines[-1] == f"best     {out / 'best'}"
    assert len(lines) + len(answer.err.splitlines()) < 40


def test_it_ends_with_the_adapt_that_gives_the_best_trial_again(swept, call, place, tmp_path):
    out, _, answer = swept
    found = json.loads((out / "tune.json").read_text())
    best = found["trials"][found["best"]]
    (line,) = (line for line in answer.err.splitlines() if line.startswith("or:   acclimate adapt"))
    *again, flag, folder = shlex.split(line)[2:]
    assert flag == "--out"
    assert folder.endswith("-tuned")  # not where an earlier adapt lies
    assert not {"--trials", "--score", "--search", "--out"} & set(again)
    assert again.count("--set") == 2  # dann.weight=0.1 is replaced
    assert f"dann.weight={best['settings']['dann.weight']:g}" in again
    assert again[again.index("--lr") + 1] == f"{best['settings']['lr']:g}"
    adapted = call(*again, "--out", tmp_path / "run")
    assert adapted.code == 0, adapted.err
    dann = tmp_path / "run" / "seed-0" / "dann" / "model.safetensors"
    assert_same(read_tensors(dann), read_tensors(out / "best" / "model.safetensors"))


def test_the_best_model_predicts(swept, call, place, tmp_path):
    out, _, answer = swept
    assert f"next: acclimate predict {out / 'best'} IMAGES --out predictions" in answer.err
    predicted = call("predict", out / "best", place / "new", "--out", tmp_path / "p")
    assert predicted.code == 0, predicted.err


def test_a_second_time_says_the_same_and_trains_nothing(swept, call):
    out, typed, answer = swept
    again = call(*typed)
    assert again.code == 0
    assert again.out == answer.out
    assert "goes on where it stopped" in again.err
    assert "seed 0" not in again.err
    as_json = call(*typed, "--json").json
    assert as_json["folder"] == str(out)
    assert [entry["number"] for entry in as_json["trials"]] == [0, 1, 2]


def test_it_ends_with_a_comparison_of_all_trials(swept, call):
    out, _, answer = swept
    assert f"or:   acclimate compare {out}" in answer.err.splitlines()
    compared = call("compare", out, "--device", "cpu")
    assert compared.code == 0, compared.err
    trials = json.loads((out / "tune.json").read_text())["trials"]
    finished = {f"trial-00{entry['number']}" for entry in trials if entry["state"] == "finished"}
    assert {"source-only", *finished} <= set(compared.out.split())


def test_what_is_searched_replaces_its_own_option_in_what_is_suggested(call, place, tmp_path):
    typed = words(place, tmp_path / "run", "--steps", "5", "--search", "plan.steps=5,6", "--trials", "1")
    score = typed.index("--score")
    answer = call(*typed[:score], *typed[score + 2 :])
    assert answer.code == 0, answer.err
    assert "1 trials of dann by information-maximisation (high is better): plan.steps 5 or 6" in answer.err
    (line,) = (line for line in answer.err.splitlines() if line.startswith("or:   acclimate adapt"))
    assert "--steps" not in line
    assert line.partition(" --out")[0].endswith("--set dann.hidden=20 --set plan.steps=5")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--steps", "24"), "was begun with other experiment.plan.steps; use another --out"),
        (("--search", "dann.wieght=1,2"), "did you mean 'dann.weight'?"),
        (("--search", "lr=1:2", "--search", "lr=1:3"), "--search lr: given twice"),
        (("--score", "entrpy"), "did you mean 'entropy'?"),
        (("--score", "agreement"), "compares all models with each other"),
        (("--method", "adabn"), "name what to try, such as --search adabn."),
        (("--trials", "0"), "invalid value for '--trials'"),
    ],
)
def test_mistakes_are_named(swept, call, more, said):
    _, typed, _ = swept
    answer = call(*typed, *more)
    if "adabn" in more:  # the settings of dann are not adabn's
        answer = call(*[w for i, w in enumerate(typed) if w != "--set" and typed[i - 1] != "--set"], *more)
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""


def test_ctrl_c_ends_with_130_and_the_same_command_finishes(place, tmp_path):
    typed = words(place, tmp_path / "run", "--steps", "30", "--trials", "1", "--set", "plan.log_every=1")
    command = [sys.executable, "-m", "acclimate", *typed]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("dann, trial 0"):
            first.send_signal(signal.SIGINT)
            break
    out, err = first.communicate()
    assert first.returncode == 130, err
    assert "run the same command to continue" in err
    assert "Traceback" not in err
    assert out == ""
    begun = json.loads((tmp_path / "run" / "tune.json").read_text())
    assert begun["source-only"] is not None
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "source-only, seed 0" not in second.stderr  # it is not trained again
    rows = (tmp_path / "run" / "trial-000" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 31))


def test_adapt_writes_curves(place, call, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    where = ["--source", place / "simulated", "--target", place / "real", "--out", tmp_path / "run"]
    more = ["--network", "lenet", "--steps", "4", "--batch", "4", "--set", "plan.log_every=2", "--device", "cpu"]
    answer = call("adapt", *where, *more, "--tensorboard", tmp_path / "tb")
    assert answer.code == 0, answer.err
    assert "dann, seed 0" in answer.err  # the progress still hears it too
    for method in ("source-only", "dann"):
        events = EventAccumulator(str(tmp_path / "tb" / method / "seed-0"))
        events.Reload()
        assert [event.step for event in events.Scalars("supervised")] == [2, 4]
