"""Verbs that read a run: evaluate, predict, report, export, cite; and demo, import and the lists."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from acclimate.data import open_domain
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model


def test_evaluate_gives_the_engines_numbers(run, place, call):
    answer = call("evaluate", run.folder, place / "real", "--json")
    assert answer.code == 0, answer.err
    assert list(answer.json["players"]) == ["source-only", "adabn", "dann"]
    for name, found in answer.json["players"].items():
        expected = evaluate(Model.load(run.folder / "seed-0" / name), open_domain(place / "real"))
        assert found["scores"] == pytest.approx(expected.scores, nan_ok=True)
        assert found["interval"] == pytest.approx(expected.interval)
        assert found["confusion"] == expected.confusion


def test_evaluate_prints_a_screen(run, place, call):
    answer = call("evaluate", run.folder, place / "real")
    assert answer.code == 0
    assert "95 % interval" in answer.out
    assert "recall by class" in answer.out
    assert len(answer.out.splitlines()) < 24
    one = call("evaluate", run.folder, place / "real", "--method", "adabn")
    assert ("source-only" in one.out, "adabn" in one.out, "dann" in one.out) == (True, True, False)
    inside = call("evaluate", run.folder / "seed-0" / "dann", place / "real")
    assert ("source-only" in inside.out, "dann" in inside.out) == (True, True)


def test_evaluate_maps_classes(run, place, call, tmp_path):
    for name in ("bar", "cross", "ring"):
        (tmp_path / {"ring": "circle"}.get(name, name)).symlink_to(place / "real" / name)
    without = call("evaluate", run.folder, tmp_path)
    assert without.code == 3
    assert "--map circle=" in without.err
    mapped = call("evaluate", run.folder, tmp_path, "--map", "circle=ring", "--json")
    plain = call("evaluate", run.folder, place / "real", "--json")
    assert [p["scores"]["accuracy"] for p in mapped.json["players"].values()] == [
        p["scores"]["accuracy"] for p in plain.json["players"].values()
    ]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("evaluate", "RUN", "NEW"), 2, "has no labels"),
        (("evaluate", "NOWHERE", "REAL"), 3, "no such folder"),
        (("evaluate", "RUN", "REAL", "--method", "dan"), 2, "did you mean 'dann'?"),
        (("predict", "NEW", "NEW", "--out", "OUT"), 3, "holds no model"),
        (("predict", "RUN", "NEW", "--out", "NEW/predictions"), 2, "stays as it is"),
        (("predict", "RUN", "NEW", "--out", "OUT", "--overlay"), 2, "one class per image"),
        (("report", "NEW"), 3, "no finished run"),
        (("export", "RUN", "--out", "NEW"), 2, "is a folder"),
    ],
)
def test_mistakes(run, place, call, tmp_path, words, code, said):
    names = {"RUN": run.folder, "NEW": place / "new", "REAL": place / "real", "OUT": tmp_path / "out"}
    full = [str(names.get(word, word)).replace("NEW/", f"{place / 'new'}/") for word in words]
    full = [str(tmp_path / "nowhere") if word == "NOWHERE" else word for word in full]
    answer = call(*full)
    assert answer.code == code, answer.err
    assert said in answer.err
    assert not (place / "new" / "predictions").exists()


def test_an_unfinished_run_says_so(run, place, call, tmp_path):
    (tmp_path / "seed-0" / "dann").mkdir(parents=True)
    answer = call("evaluate", tmp_path, place / "real")
    assert answer.code == 3
    assert "not finished" in answer.err


def test_predict_writes_one_row_per_image(run, place, call, tmp_path):
    answer = call("predict", run.folder, place / "new", "--out", tmp_path / "p")
    assert answer.code == 0, answer.err
    with (tmp_path / "p" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == sorted(path.name for path in (place / "new").iterdir())
    classes = ("bar", "cross", "ring")
    for row in rows:
        shares = [float(row[f"probability {name}"]) for name in classes]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert row["class"] == classes[int(np.argmax(shares))]
    again = call("predict", run.folder, place / "new", "--out", tmp_path / "p")
    assert again.code == 2
    assert "--force" in again.err
    forced = call("predict", run.folder, place / "new", "--out", tmp_path / "p", "--force", "--json")
    assert forced.json["images"] == len(rows)


def test_predict_says_which_method_it_was(run, place, call, tmp_path):
    answer = call("predict", run.folder, place / "new", "--out", tmp_path / "p")
    assert "predicted by dann (other methods: source-only, adabn; --method)" in answer.out
    assert answer.err.startswith("images 0/12")
    named = call("predict", run.folder / "seed-0" / "adabn", place / "new", "--out", tmp_path / "q")
    assert "predicted by adabn\n" in named.out
    document = call("predict", run.folder, place / "new", "--out", tmp_path / "r", "--json").json
    assert document["method"] == "dann"


def test_report_puts_runs_side_by_side(run, place, call, tmp_path):
    """Two copies of one run: the page has both, each with its own source-only, and no target score."""
    for name in ("one", "two"):
        shutil.copytree(run.folder, tmp_path / name)
    words = ("report", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both")
    answer = call(*words, "--json")
    assert answer.code == 0, answer.err
    assert answer.json == {"report": str(tmp_path / "both" / "report.html")}
    twin = json.loads((tmp_path / "both" / "report.json").read_text())
    assert [player["name"] for player in twin["players"]] == [
        f"{run}/{method}" for run in ("one", "two") for method in ("source-only", "adabn", "dann")
    ]
    assert twin["scored"] is False
    assert twin["command"] == " ".join(["acclimate", *map(str, words), "--json"])
    assert twin["runs"][0]["command"].startswith("acclimate adapt --source")
    assert f"next: acclimate compare {tmp_path / 'one'} {tmp_path / 'two'}" in answer.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("RUN RUN", 2, "add --out DIR"),
        ("RUN --device cpu", 2, "leave it out"),
        ("RUN --out RUN", 2, "give a folder of its own"),
        ("NEW --out OUT", 3, "holds no run, no benchmark and no model"),
    ],
)
def test_report_says_what_it_needs(run, place, call, tmp_path, words, code, said):
    names = {"RUN": run.folder, "NEW": place / "new", "OUT": tmp_path / "out"}
    answer = call("report", *(names.get(word, word) for word in words.split()))
    assert answer.code == code
    assert said in answer.err


def test_report_of_an_unfinished_run_says_what_is_there(run, call, tmp_path):
    shutil.copytree(run.folder / "seed-0" / "adabn", tmp_path / "half" / "seed-0" / "adabn")
    (tmp_path / "half" / "seed-0" / "dann").mkdir()
    (tmp_path / "half" / "seed-0" / "dann" / "identity.json").write_text("{}")
    failed = {"stage": "adapt", "step": 12, "term": "domain", "players": [], "files": {}}
    (tmp_path / "half" / "seed-0" / "dann" / "failure.json").write_text(json.dumps(failed))
    answer = call("report", tmp_path / "half")
    assert answer.code == 3
    assert "finished: adabn; not finished: dann; dann (seed-0) stopped in adapt, step 12: domain" in answer.err


def test_evaluate_counts_while_it_is_piped(run, place, call):
    said = call("evaluate", run.folder, place / "real", "--method", "adabn").err
    assert "source-only: images 0/30" in said
    assert "adabn: images 0/30" in said


def test_counting_says_a_line_every_ten_seconds(capsys, monkeypatch):
    from acclimate.cli import console

    now = iter([100.0, 104.0, 111.0, 112.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.Progress() as progress:
        for done in range(4):
            progress.count(done, 9)
    assert capsys.readouterr().err.splitlines() == ["images 0/9", "images 2/9"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--window 16 --overlap 1.5", "--overlap 1.5: must be less than 1"),
        ("--scales 0", "--scales 0: must be greater than 0"),
        ("--scales 0.001", "--scales 0.001: the smallest must be at least 0.1"),
        ("--scales x", "--scales x: must be a valid number"),
        ("--window 0", "--window 0: a side must be at least 1 pixel"),
    ],
)
def test_how_to_predict_is_refused_in_the_words_that_were_typed(run, place, call, tmp_path, words, said):
    answer = call("predict", run.folder, place / "new", "--out", tmp_path / "p", *words.split())
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "p").exists()


def test_cards_say_tasks_and_what_to_type_next(call):
    rows = {line.split()[0]: line.split()[1:3] for line in call("methods").out.splitlines()}
    assert rows["dann"] == ["C", "S"]
    assert rows["shot"][0] == "C"
    assert rows["mic"][:2] == ["S", "source"]
    few = call("methods", "memory-bank-few")
    assert "--labelled FEW --method memory-bank-few" in few.err
    fda = call("methods", "fda")
    assert "or:   acclimate translate RUN SRC --out DIR" in fda.err
    for name in ("proda", "gam", "memory-bank", "adabn"):
        card = call("methods", name).out
        assert ":class:" not in card
        assert "`" not in card


def test_a_recipe_from_a_file_scores_and_reports(place, call, tmp_path):
    text = (
        f'title = "Tiny"\ndescription = "For a test."\nsource = "{place / "simulated"}"\ntarget = "{place / "real"}"\n'
        'network = "dann-mnist"\nnetwork_settings = { norm = "batch" }\nmethods = ["adabn"]\noracle = true\n'
        '[plan]\nsteps = 20\nbatch = 8\n[expected]\ntext = "nothing much"\n'
    )
    (tmp_path / "tiny.toml").write_text(text)
    answer = call("demo", tmp_path / "tiny.toml", "--seeds", "2", "--out", tmp_path / "run", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "target test" in answer.out
    assert "trained-on-target (oracle)" in answer.out
    assert " +- " in answer.out
    assert "expected nothing much" in answer.out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text.replace("oracle =", "orakle ="))
    refused = call("demo", wrong)
    assert (refused.code, "did you mean 'oracle'?" in refused.err) == (2, True)
    wrong.write_text("title = ")
    assert call("demo", wrong).code == 3


def test_packaged_recipes_are_experiments():
    from acclimate import recipes

    assert {"digits", "perlin", "smoke"} <= set(recipes.names())
    for name in recipes.names():
        recipe = recipes.load(name)
        assert recipe.title
        assert recipe.description
        assert recipe.experiment().methods


@pytest.mark.parametrize(
    "words",
    [
        ("methods",),
        ("methods", "dann"),
        ("networks",),
        ("networks", "unet"),
        ("datasets",),
        ("datasets", "mnist"),
        ("datasets", "digits-rendered"),
        ("cite",),
        ("cite", "dann", "mnist"),
        ("cite", "RUN"),
        ("doctor",),
        ("demo", "--list"),
        ("check", "NEW"),
        ("report", "RUN"),
        ("download", "digits-rendered"),
        ("predict", "RUN", "NEW", "--out", "OUT"),
        ("export", "RUN", "--out", "OUT/model.onnx"),
        ("import", "FILE", "--network", "dann-mnist", "--classes", "a,b", "--out", "OUT"),
    ],
    ids=" ".join,
)
def test_json_is_one_document(run, place, call, tmp_path, words):
    names = {"RUN": run.folder, "NEW": place / "new", "OUT": tmp_path / "o", "FILE": tmp_path / "no.pt"}
    full = [str(names.get(word, word)).replace("OUT/", f"{tmp_path}/") for word in words]
    answer = call(*full, "--json")
    assert answer.json is not None
    expected = {"download": 2, "import": 3}.get(words[0], 0)
    assert answer.code == expected, answer.err
    if expected:
        assert answer.json["exit_code"] == expected
    else:
        spoken = call(*full, *(["--force"] if words[0] == "predict" else []))
        assert spoken.code == 0
        assert len(spoken.out.splitlines()) <= 40


def test_broken_and_doubtful_files_are_grouped(place, call, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.png").write_bytes(b"")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "x.png")
    answer = call("check", folder)
    assert answer.code == 1
    assert "error: zero-byte, 5 times" in answer.out
    assert "and 3 more (--all)" in answer.out
    assert str(folder / "4.png") in call("check", folder, "--all").out
    found = call("check", folder, "--json")
    assert found.code == 1
    assert found.json["errors"] == 5


def test_doctor_says_what_has_to_be_done(call, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path / "nowhere"))
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert "ACCLIMATE_DATA" in answer.json["problems"][0]


def test_what_has_no_checksum_is_not_fetched(call, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))
    answer = call("download", "office-31")  # no checksum is known
    assert answer.code == 2
    assert "cannot fetch it" in answer.err
    assert not list(tmp_path.iterdir())
