"""``adapt`` as a person uses it: chosen, run, repeated, interrupted, mistaken."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import folders
import pytest

from acclimate.cli import choices
from acclimate.errors import UsageError
from acclimate.methods import find


def test_says_what_it_found_and_chose(run, place):
    said = run.answer.err.splitlines()
    assert said[0].startswith("source   simulated: 48 images, 16 x 16 pixels, colour; 3 classes")
    assert said[1] == "target   real: 30 images, 16 x 16 pixels, colour; labels are not used"
    assert "dann-mnist" in said[2]
    assert "30 steps of 8 images" in said[3]
    assert said[4] == f"out      {run.folder}"
    assert f"next: acclimate compare {run.folder}" in said
    assert f"or:   acclimate evaluate {run.folder} {place / 'real'}" in said


def test_the_table_has_every_player_and_no_target_score(run):
    for name in ("source-only", "adabn", "dann"):
        assert f"\n{name} " in run.answer.out
    assert "target accuracy" not in run.answer.out
    assert f"report   {run.folder / 'report.html'}" in run.answer.out
    results = json.loads((run.folder / "results.json").read_text())
    assert not results["scored"]
    assert all(facts["target_test"] is None for p in results["players"].values() for facts in p["seeds"].values())
    assert results["experiment"]["settings"] == {"dann": {"hidden": [20]}}
    assert (run.folder / "report.html").stat().st_size > 1000
    assert len(run.answer.out.splitlines()) + len(run.answer.err.splitlines()) < 30


def test_a_second_time_trains_nothing(run, call):
    before = (run.folder / "seed-0" / "dann" / "model.safetensors").read_bytes()
    answer = call(*run.words, "--json")
    assert answer.code == 0
    assert "finished before" in answer.err
    assert "seed 0" not in answer.err  # no stage was reported
    assert answer.json["folder"] == str(run.folder)
    assert set(answer.json["players"]) == {"source-only", "adabn", "dann"}
    assert (run.folder / "seed-0" / "dann" / "model.safetensors").read_bytes() == before


def test_other_settings_do_not_go_on_in_the_same_folder(run, call):
    answer = call(*run.words, "--batch", "4")
    assert answer.code == 2
    assert "plan.batch" in answer.err
    assert "--force" in answer.err


def test_a_model_needs_no_source(run, place, call, tmp_path):
    answer = call(
        "adapt", "--model", run.folder / "seed-0" / "source-only", "--target", place / "new", "--out", tmp_path / "m"
    )
    assert answer.code == 0, answer.err
    assert "adabn" in answer.out
    assert "source accuracy" not in answer.out
    assert f"evaluate {tmp_path / 'm'} LABELLED" in answer.err


def test_segmentation_chooses_crop_and_batch(place, call, tmp_path):
    folders.masks(tmp_path / "a", 8)
    folders.masks(tmp_path / "b", 8, shifted=True)
    words = [
        "adapt",
        "--source",
        tmp_path / "a",
        "--target",
        tmp_path / "b",
        "--out",
        tmp_path / "run",
        "--method",
        "adabn",
    ]
    words += [
        "--network-set",
        "width=2",
        "--network-set",
        "depth=1",
        "--steps",
        "4",
        "--oracle",
        "--augment",
        "dihedral",
    ]
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert "crops of 32 x 32" in answer.err
    assert "8 images per domain" in answer.err
    assert "dihedral flips" in answer.err
    assert "trained-on-target (oracle)" in answer.out
    assert "target_test" not in answer.out


def test_few_labels_and_a_warm_start_are_said_and_marked(call, tmp_path):
    for name, count in (("a", 6), ("b", 6), ("few", 2)):
        folders.masks(tmp_path / name, count)
    words = ["adapt", "--source", tmp_path / "a", "--target", tmp_path / "b", "--labelled", tmp_path / "few"]
    words += ["--method", "memory-bank-few", "--method", "adabn", "--warm-start", "--out", tmp_path / "run"]
    words += ["--network-set", "width=2", "--network-set", "depth=1", "--steps", "2", "--batch", "2"]
    broken = next((tmp_path / "few" / "masks").iterdir())
    kept = broken.read_bytes()
    broken.write_bytes(kept[:60])
    refused = call(*words)
    assert refused.code == 3
    assert broken.name in refused.err
    assert f"acclimate check {tmp_path / 'few'}" in refused.err
    assert not (tmp_path / "run").exists()  # it is found before anything is trained
    broken.write_bytes(kept)
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert "labelled few: 2 images, 32 x 32 pixels" in answer.err
    assert "memory-bank-few, adabn from source-only's network (--warm-start)" in answer.err
    assert "\nmemory-bank-few (few target labels) " in answer.out
    assert "\nadabn " in answer.out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {name: entry["reads"] for name, entry in results["players"].items()} == {
        "source-only": None,
        "memory-bank-few": "few target labels",
        "adabn": None,
    }
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [domain["role"] for domain in report["domains"]][-1] == "labelled target"
    assert report["examples"]["compared"] == "adabn"
    scored = call("evaluate", tmp_path / "run", tmp_path / "b")
    assert "\nmemory-bank-few (few target labels) " in scored.out


def test_options_that_would_do_nothing_are_refused(run, place, call, tmp_path):
    few = ("--labelled", place / "real", "--method", "dann", "--out", tmp_path / "r")
    refused = call("adapt", "--source", place / "simulated", "--target", place / "real", *few)
    assert refused.code == 2
    assert "leave out --labelled, or add --method fine-tune or memory-bank-few" in refused.err
    model = ("--model", run.folder, "--target", place / "new", "--warm-start", "--out", tmp_path / "r")
    refused = call("adapt", *model)
    assert refused.code == 2
    assert "leave out --warm-start" in refused.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method dannn", "did you mean 'dann'?"),
        ("--network dtnn", "did you mean 'dtn'?"),
        ("--network dann-mnist --network-set nrom=batch", "did you mean 'norm'?"),
        ("--set dann.weigth=1", "did you mean 'weight'?"),
        ("--set dannn.weight=1", "did you mean 'dann'?"),
        ("--set weight=1", "whose setting it is: dann.weight"),
        ("--set dann.weight", "write KEY=VALUE"),
        ("--set dann.norm=targt", "--set dann.norm=targt: must be 'joint', "),
        ("--set plan.stepz=3", "did you mean 'steps'?"),
        ("--set proda.warm_up=3", "'proda' takes no part here; add --method proda"),
        ("--set dann.qqqq=3", "(known: "),
        ("--precision float61", "--precision float61: must be "),
        ("--lr -1", "--lr -1: must be "),
        ("--size 0", "--size 0: a side must be at least 1 pixel"),
        ("--augment horizntal", "did you mean 'horizontal'?"),
        ("--steps 0", "--steps 0: must be greater than"),
        ("--size 3x", "such as 64"),
        ("--crop 16", "use --size"),
        ("--device gpu", "unknown device 'gpu'"),
        ("--map circle=ring", "no class 'circle'"),
    ],
)
def test_mistakes(place, call, tmp_path, words, said):
    answer = call(
        "adapt", "--source", place / "simulated", "--target", place / "real", "--out", tmp_path, *words.split()
    )
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert not list(tmp_path.iterdir())


def test_domains_that_do_not_fit(place, call, tmp_path):
    folders.masks(tmp_path / "masks", 4)
    common = ("--out", tmp_path / "run")
    unlabelled = call("adapt", "--source", place / "new", "--target", place / "real", *common)
    assert (unlabelled.code, "has no labels" in unlabelled.err) == (2, True)
    other_task = call("adapt", "--source", place / "simulated", "--target", tmp_path / "masks", *common)
    assert (other_task.code, "segmentation" in other_task.err) == (2, True)
    no_oracle = call("adapt", "--source", place / "simulated", "--target", place / "new", "--oracle", *common)
    assert (no_oracle.code, "--oracle" in no_oracle.err) == (2, True)
    nowhere = call("adapt", "--source", place / "simulated", "--target", tmp_path / "nowhere", *common)
    assert (nowhere.code, "nowhere" in nowhere.err) == (2, True)


def test_a_broken_image_is_named(place, call, tmp_path):
    shutil.copytree(place / "simulated", tmp_path / "source")
    broken = next((tmp_path / "source" / "ring").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    words = ("adapt", "--source", tmp_path / "source", "--target", place / "real", "--out", tmp_path / "run")
    answer = call(*words, "--steps", "2", "--batch", "4", "--json")
    assert answer.code == 3
    assert broken.name in answer.json["error"]
    assert not (tmp_path / "run").exists()  # it is found before anything is trained
    looked = call("check", tmp_path / "source", place / "real")
    assert looked.code == 1
    assert str(broken) in looked.out


def test_ctrl_c_saves_and_the_same_command_finishes(place, tmp_path):
    words = ["adapt", "--source", place / "simulated", "--target", place / "real", "--out", tmp_path / "run"]
    words += ["--method", "adabn", "--network", "dann-mnist", "--network-set", "norm=batch", "--steps", "400"]
    words += ["--batch", "4", "--set", "plan.log_every=1", "--device", "cpu"]
    command = [sys.executable, "-m", "acclimate", *map(str, words)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if "source-only, seed 0" in line:
            first.send_signal(signal.SIGINT)
            break
    out, err = first.communicate()
    assert first.returncode == 130, err
    assert "run the same command to continue" in err
    assert "Traceback" not in err
    assert out == ""
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "goes on where it stopped" in second.stderr
    rows = (tmp_path / "run" / "seed-0" / "source-only" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 401))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("0.5", 0.5), ("true", True), ("None", None), ("batch", "batch"), ("1,2", [1, 2]), ("[3]", [3])],
)
def test_values_are_typed(text, value):
    assert choices.typed(text) == value


def test_settings_take_the_declared_types():
    assert choices.settings_of(find("dann").Settings, {"hidden": "100", "weight": "2"}) == {
        "hidden": [100],
        "weight": 2.0,
    }
    with pytest.raises(UsageError, match="twice"):
        choices.pairs(["a=1", "a=2"], "--set")


def test_default_folders_tell_splits_apart(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(choices.default_folder("a/train", "b/train/")) == "runs/a-train-to-b-train"
    assert str(choices.default_folder("camvid:day", "camvid:dusk")) == "runs/camvid-day-to-camvid-dusk"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method shot", "shot is for classification; for segmentation choose another method, such as adabn, "),
        ("--method memory-bank-few", "name their folder with --labelled"),
        ("--network dtn", "dtn gives one class for an image; for segmentation choose another network"),
        ("--scale -1", "--scale -1.0: must be greater than 0"),
    ],
)
def test_what_cannot_work_is_refused_before_a_line_is_said(call, tmp_path, words, said):
    for name in ("a", "b"):
        folders.masks(tmp_path / name, 4)
    out = tmp_path / "run"
    answer = call("adapt", "--source", tmp_path / "a", "--target", tmp_path / "b", "--out", out, *words.split())
    assert answer.code == 2
    assert said in answer.err
    assert "source   a" not in answer.err
    assert not out.exists()


def test_few_labels_end_in_a_report(call, tmp_path):
    """The newcomer's command: the only method reads a few target labels, so it is the one that is compared."""
    for name, count in (("a", 6), ("b", 6), ("few", 2)):
        folders.masks(tmp_path / name, count)
    words = ["adapt", "--source", tmp_path / "a", "--target", tmp_path / "b", "--labelled", tmp_path / "few"]
    words += ["--method", "memory-bank-few", "--network-set", "width=2", "--network-set", "depth=1"]
    answer = call(*words, "--steps", "2", "--batch", "2", "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["examples"]["compared"] == "memory-bank-few"
    assert "few target labels" in (tmp_path / "run" / "report.html").read_text()
    predicted = call("predict", tmp_path / "run", tmp_path / "b" / "images", "--out", tmp_path / "p")
    assert "predicted by memory-bank-few (other methods: source-only; --method)" in predicted.out


def test_it_says_what_it_does_after_the_training(run):
    said = [line for line in run.answer.err.splitlines() if line.startswith(("gathering evidence", "writing"))]
    assert said == [
        "gathering evidence: predictions",
        "gathering evidence: features",
        "gathering evidence: images that methods make",
        "writing the report",
    ]


def test_ctrl_c_in_the_report_says_how_to_go_on(run, call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("acclimate.report.write.write", interrupted)
    answer = call(*run.words)
    assert answer.code == 130
    assert "run the same command to continue" in answer.err


def test_names_are_listed_only_where_none_is_near(place, call):
    words = ("adapt", "--source", place / "simulated", "--target", place / "real", "--method")
    near, far = call(*words, "dannn"), call(*words, "qqqq")
    assert "known:" not in near.err
    assert "see: acclimate methods" in near.err
    assert "known: 3c-gan" in far.err
    assert "see:" not in far.err
