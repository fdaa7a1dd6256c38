"""Sweeps: what a trial is, how a sweep goes on, and that no target label is opened."""

from __future__ import annotations

import functools
import itertools
import json
import sys

import folders
import optuna
import pytest
import torch
from runs import Killed, assert_same, on_tick

from acclimate import selection, tasks
from acclimate.engine.checkpoint import read_tensors
from acclimate.engine.code import code_hash
from acclimate.engine.model import Model
from acclimate.errors import NumericError, UsageError
from acclimate.experiment import Experiment, carry_out, open_domains
from acclimate.plan import Plan
from acclimate.selection import Score, Seen, tuning
from acclimate.selection.search_space import Choice, Range, changed
from acclimate.selection.see import see
from acclimate.selection.tuning import learnt, tune


def sharpness(zt) -> float:
    return float(zt.softmax(1).amax(1).mean())


def score(better="high", function=sharpness, name="sharpness") -> Score:
    return Score(name, name, function, better, paper="", when="", fails="")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("domains")
    folders.classes(root / "a", 30)
    folders.classes(root / "b", 18, shifted=True)
    return root


def asked(place, method="dann", **changes) -> Experiment:
    plan = Plan(steps=3, batch=6, precision="float32", save_every=1, log_every=1)
    given = {
        "settings": {"dann": {"hidden": [4]}},
        "preprocess": {"size": [16, 16]},
        "plan": plan,
        "holdout": 0,
    } | changes
    where = {"source": str(place / "a"), "target": str(place / "b")}
    return Experiment(**{**where, "methods": (method,), "network": "lenet", **given})


def weights(folder):
    return read_tensors(folder / "model.safetensors")


@pytest.fixture(scope="module")
def swept(place, tmp_path_factory):
    """Four trials by a score of which low is better."""
    folder = tmp_path_factory.mktemp("swept") / "t"
    return tune(asked(place), folder, score=score("low"), trials=4, device="cpu"), folder


def test_trials_are_what_adapt_makes_of_their_settings(swept, place, tmp_path):
    found, folder = swept
    assert found["trials"][0]["settings"] == {"lr": 0.01, "dann.weight": 1.0}
    for number in (0, 3):
        experiment = changed(asked(place), {} if number == 0 else found["trials"][number]["settings"])
        carry_out(experiment, tmp_path / str(number), device="cpu")
        alone = tmp_path / str(number) / "seed-0"
        assert_same(weights(folder / f"trial-00{number}"), weights(alone / "dann"))
        assert_same(weights(folder / "source-only"), weights(alone / "source-only"))


def test_scores_are_those_of_the_kept_models_and_the_lowest_is_best(swept, place):
    found, folder = swept
    domains = open_domains(asked(place), None, score=False)
    for entry in [*found["trials"], {**found["source-only"], "folder": folder / "source-only"}]:
        seen = see(Model.load(folder / entry["folder"]), domains.target)
        assert len(seen.zt) == 18
        assert entry["score"] == pytest.approx(sharpness(seen.zt), abs=1e-6)
        assert sum(entry["predicted shares"].values()) == pytest.approx(1)
    best = min(found["trials"], key=lambda entry: entry["score"])
    assert found["best"] == best["number"]
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.journal")))
    assert optuna.load_study(storage=journal, study_name="tune").best_trial.number == best["number"]
    assert_same(weights(folder / "best"), weights(folder / f"trial-{best['number']:03}"))
    assert Model.load(folder / "best").method.settings.weight == best["settings"]["dann.weight"]


def test_drawn_settings_lie_in_their_ranges_and_can_be_typed(swept):
    found, folder = swept
    drawn = [entry["settings"] for entry in found["trials"][1:]]
    assert all(0.001 <= each["lr"] <= 0.1 and 0.1 <= each["dann.weight"] <= 10 for each in drawn)
    assert all(float(f"{value:.3g}") == value for each in drawn for value in each.values())
    assert len({each["lr"] for each in drawn}) == 3
    assert json.loads((folder / "tune.json").read_text()) == found
    assert not list(folder.rglob("checkpoints"))


def test_a_second_time_trains_nothing_and_more_trials_go_on(swept, place, tmp_path, monkeypatch):
    found, _ = swept
    experiment = asked(place)
    first = tune(experiment, tmp_path / "t", score=score("low"), trials=2, device="cpu")
    assert [e["settings"] for e in first["trials"]] == [e["settings"] for e in found["trials"][:2]]
    told = []
    again = tune(experiment, tmp_path / "t", score=score("low"), trials=4, device="cpu", told=told.append)
    assert [entry["number"] for entry in told] == [2, 3]
    assert stripped(again) == stripped(found)
    on_tick(monkeypatch, lambda k: pytest.fail("it trains"))
    assert tune(experiment, tmp_path / "t", score=score("low"), trials=4, device="cpu") == again


def stripped(found):
    return {**found, "trials": [{**entry, "folder": None} for entry in found["trials"]]}


@pytest.mark.parametrize("tick", [2, 5, 10])
def test_a_killed_sweep_goes_on_to_the_same_end(swept, place, tmp_path, monkeypatch, tick):
    """Three updates each: source-only is hit at 2, trial 0 at 5, trial 2 at 10."""

    def react(k):
        if k == tick:
            raise Killed

    with monkeypatch.context() as patch:
        on_tick(patch, react)
        with pytest.raises(Killed):
            tune(asked(place), tmp_path / "t", score=score("low"), trials=4, device="cpu")
    journal = tmp_path / "t" / "study.journal"
    with journal.open("a") as stream:
        stream.write('{"op_code":8,"wor')  # what a kill in the middle of a line leaves
    found = tune(asked(place), tmp_path / "t", score=score("low"), trials=4, device="cpu")
    assert stripped(found) == stripped(swept[0])
    for name in ("trial-002", "trial-003", "best"):
        assert_same(weights(tmp_path / "t" / name), weights(swept[1] / name))


@pytest.mark.parametrize(
    ("function", "at", "number"),
    [
        ("_tidy", "trial-000", 0),  # after the journal knows the score, before anything is copied
        ("_tidy", "trial-001", 1),
        ("write_bytes", "best/model.safetensors", 0),
        ("write_bytes", "best/model.json", 0),
    ],
)
def test_the_best_model_is_right_after_a_kill_while_it_is_kept(place, tmp_path, monkeypatch, function, at, number):
    count = itertools.count()
    better_each_time = score(function=lambda zt: float(next(count)))
    ask = functools.partial(tune, asked(place), tmp_path, score=better_each_time, trials=number + 1, device="cpu")
    original = getattr(tuning, function)

    def killed(path, *more):
        if str(path).endswith(at):
            raise Killed
        original(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, function, killed)
        with pytest.raises(Killed):
            ask()
    assert ask()["best"] == number
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "best" / name).read_bytes() == (tmp_path / f"trial-00{number}" / name).read_bytes()


def test_a_kill_between_two_draws_of_a_trial_changes_neither(swept, place, tmp_path, monkeypatch):
    draws, suggested = itertools.count(), Range.suggested

    def killed(self, trial, name):
        if next(draws) == 3:  # the second of trial 1
            raise Killed
        return suggested(self, trial, name)

    ask = functools.partial(tune, asked(place), tmp_path, score=score("low"), trials=2, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Range, "suggested", killed)
        with pytest.raises(Killed):
            ask()
    assert [entry["settings"] for entry in ask()["trials"]] == [entry["settings"] for entry in swept[0]["trials"][:2]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"lr": Range(0.001, 0.2, log=True)}}, "begun with other search.dann.weight, search.lr;"),
        ({"score": score("low", name="other")}, "begun with other score;"),
        ({"plan": 5}, "experiment.plan.steps;"),
        ({"target": "a"}, "data.target.fingerprint"),
    ],
)
def test_another_question_is_refused_by_name(swept, place, change, said):
    experiment = asked(place)
    if "plan" in change:
        experiment = experiment.replace(plan=experiment.plan.replace(steps=change.pop("plan")))
    if "target" in change:
        experiment = experiment.replace(target=str(place / change.pop("target")))
    with pytest.raises(UsageError, match="was begun with other") as error:
        tune(experiment, swept[1], **{"score": score("low"), "trials": 4, "device": "cpu", **change})
    assert said in str(error.value)


def test_the_code_of_a_score_and_of_what_it_sees_is_of_the_question(place, tmp_path, monkeypatch):
    iwv = selection.find("iwv")
    ask = functools.partial(tune, asked(place, holdout=0.2), tmp_path, score=iwv, trials=1, device="cpu")
    ask()
    for name in (
        "methods/dann.py", "selection/iwv.py", "selection/density_ratio.py", "selection/see.py",
        "selection/learnt.py", "engine/seeing.py",
    ):  # fmt: skip
        changed_code = lambda path, name=name: "x" if str(path).endswith(name) else code_hash(path)  # noqa: E731
        monkeypatch.setattr(tuning, "code_hash", changed_code)
        with pytest.raises(UsageError, match=f"begun with other code.{name}; use another --out"):
            ask()


def test_failed_trials_are_told_and_the_sweep_goes_on(place, tmp_path):
    values = []

    def third_is_nothing(zt):
        values.append(zt)
        return float("nan") if len(values) == 3 else 1.0

    search = {"lr": Choice((0.01, 0.02, 0.03, 0.04, 1e30))}
    found = tune(
        asked(place), tmp_path, score=score(function=third_is_nothing), search=search, trials=10, device="cpu"
    )  # fmt: skip
    states = {entry["number"]: (entry["settings"]["lr"], entry["state"]) for entry in found["trials"]}
    assert states[0] == (0.01, "finished")
    once = [entry for entry in found["trials"] if entry["state"] != "repeated"]
    (diverged,) = [entry for entry in once if entry["settings"]["lr"] == 1e30]
    assert diverged["state"] == "failed"
    assert "became non-finite" in diverged["reason"]
    (nothing,) = (entry for entry in found["trials"] if "not a number" in (entry["reason"] or ""))
    assert nothing["state"] == "failed"
    assert found["best"] == 0
    others = [entry for entry in once if entry not in (diverged, nothing)]
    assert all(entry["state"] in ("finished", "set aside") for entry in others)


def test_the_same_settings_are_not_trained_again(place, tmp_path, monkeypatch):
    """Six values for ten trials, drawn as if there were too many to try each."""
    monkeypatch.setattr(tuning._Tuning, "_all_can_be_tried", lambda self: False)
    search = {"dann.weight": Choice((0.1, 0.2, 0.3, 0.4, 0.5, 1.0))}
    found = tune(asked(place), tmp_path, score=score(), search=search, trials=10, device="cpu")
    repeated = [entry for entry in found["trials"] if entry["state"] == "repeated"]
    assert repeated
    assert all(not (tmp_path / f"trial-{entry['number']:03d}").exists() for entry in repeated)
    others = [entry["settings"]["dann.weight"] for entry in found["trials"] if entry["state"] != "repeated"]
    assert len(others) == len(set(others))


def test_all_combinations_are_tried_once_where_there_are_so_few(place, tmp_path):
    search = {"dann.weight": Choice((0.1, 1.0)), "plan.steps": Choice((2, 3))}
    found = tune(asked(place), tmp_path, score=score(), search=search, trials=9, device="cpu")
    tried = [tuple(entry["settings"].values()) for entry in found["trials"]]
    assert set(itertools.product((0.1, 1.0), (2, 3))) <= set(tried)
    assert len(tried) == len(set(tried)) <= 5  # the four, and the settings as they are where these are none of them


def test_where_everything_fails_the_reason_is_said(place, tmp_path):
    broken = asked(place, plans={"dann": {"optimiser": {"lr": 1e30}}})
    with pytest.raises(NumericError, match=r"no trial can be used: .*became non-finite"):
        tune(broken, tmp_path, score=score(), trials=1, device="cpu")


def test_settings_that_do_not_go_together_end_a_trial_and_not_the_sweep(tmp_path):
    """MIC without mixing and without masking has nothing to learn from the target, which it says when it is made."""
    folders.masks(tmp_path / "a", 6)
    folders.masks(tmp_path / "b", 4, shifted=True)
    experiment = Experiment(
        source=str(tmp_path / "a"), target=str(tmp_path / "b"), methods=("mic",), settings={"mic": {"mix": False}},
        network_settings={"width": 2, "depth": 1}, plan=Plan(steps=1, batch=2, precision="float32"),
        preprocess={"crop": [16, 16]}, holdout=0,
    )  # fmt: skip
    search = {"mic.masked": Choice((0, 0.7))}
    found = tune(experiment, tmp_path / "t", score=score(), search=search, trials=5, device="cpu")
    drawn = [(entry["settings"]["mic.masked"], entry["state"]) for entry in found["trials"]]
    assert drawn[0] == (1.0, "finished")
    assert {each for each in drawn[1:] if each[1] != "repeated"} == {(0, "failed"), (0.7, "finished")}
    assert {entry["reason"] for entry in found["trials"] if entry["state"] == "failed"} == {
        "mic without mixing and masking is source-only; set mix=True or masked above 0"
    }


def test_trials_that_learnt_less_than_half_of_the_source_are_set_aside(place, tmp_path, monkeypatch):
    shares = iter([0.8, 0.3, 0.4, 0.5])  # source-only's first
    monkeypatch.setattr("acclimate.selection.tuning.learnt", lambda seen, task: next(shares))
    found = tune(asked(place), tmp_path, score=score(), trials=3, device="cpu")
    assert [entry["state"] for entry in found["trials"]] == ["set aside", "finished", "finished"]
    assert all(entry["score"] is not None for entry in found["trials"])
    assert found["best"] in (1, 2)
    monkeypatch.setattr("acclimate.selection.tuning.learnt", lambda seen, task: next(shares))
    shares = iter([0.8, 0.1, 0.0, -0.2])  # SHOT does not learn from the source
    free = asked(place, "shot", settings={"shot": {"refreshes": 1}})
    kept = tune(free, tmp_path / "free", score=score(), search={"lr": Range(1e-3, 1e-2)}, trials=2, device="cpu")
    assert {entry["state"] for entry in kept["trials"]} == {"finished"}


def test_learnt_is_the_share_of_what_one_answer_for_all_leaves():
    task = tasks.build("classification", ("a", "b"))

    def share(predicted, truth):
        zs = torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()
        return learnt(Seen(zt=zs, ft=zs, image_t=torch.arange(len(zs)), zs=zs, ys=torch.tensor(truth)), task)

    assert share([0, 0, 0, 0], [0, 0, 0, 1]) == 0
    assert share([0, 0, 0, 1], [0, 0, 0, 1]) == 1
    assert share([1, 0, 0, 0], [0, 0, 0, 1]) == pytest.approx((0.5 - 0.75) / 0.25)
    assert learnt(Seen(zt=torch.zeros(1, 2), ft=torch.zeros(1, 2), image_t=torch.zeros(1)), task) is None


def test_defaults_outside_of_what_is_searched_are_still_trial_0(place, tmp_path):
    found = tune(
        asked(place), tmp_path, score=score(), search={"dann.weight": Choice((2.0, 3.0))}, trials=3, device="cpu"
    )
    first, *others = (entry["settings"]["dann.weight"] for entry in found["trials"])
    assert first == 1.0
    assert set(others) <= {2.0, 3.0}


def test_methods_that_need_a_source_model_start_from_the_one_source_only(place, tmp_path, monkeypatch):
    began = []
    adapt = tuning.adapt

    def watched(net, source, target, method, **more):
        began.append((method, {name: value.clone() for name, value in net.state_dict().items()}))
        return adapt(net, source, target, method, **more)

    monkeypatch.setattr(tuning, "adapt", watched)
    experiment = asked(place, "shot", settings={"shot": {"refreshes": 1}})
    search = {"lr": Range(1e-3, 1e-2)}
    tune(experiment, tmp_path, score=score(), search=search, trials=2, device="cpu")
    tune(experiment, tmp_path, score=score(), search=search, trials=3, device="cpu")  # which loads source-only
    assert [method for method, _ in began] == ["source-only", "shot", "shot", "shot"]
    trained = Model.load(tmp_path / "source-only").method.net.state_dict()
    for _, start in began[1:]:
        assert_same(start, dict(trained))


def test_a_sweep_of_a_given_model_trains_no_source_only(swept, place, tmp_path):
    _, folder = swept
    experiment = Experiment(
        target=str(place / "b"), model=str(folder / "source-only"), methods=("shot",),
        plan=asked(place).plan, settings={"shot": {"refreshes": 1}},
    )  # fmt: skip
    found = tune(experiment, tmp_path, score=score("low"), search={"lr": Range(1e-3, 1e-2)}, trials=2, device="cpu")
    assert found["source-only"]["score"] == pytest.approx(swept[0]["source-only"]["score"], abs=1e-6)
    assert found["source-only"]["source_test"] is None
    assert not (tmp_path / "source-only" / "model.json").exists()
    needs = Score("risk", "risk", lambda zs, ys: 0.0, "low", paper="", when="", fails="")
    with pytest.raises(UsageError, match="risk needs the source"):
        tune(experiment, tmp_path / "no", score=needs, device="cpu")


def test_no_target_label_is_opened(tmp_path):
    """The target's masks cannot be read, and the result is that of a target without masks."""
    folders.masks(tmp_path / "a", 6)
    folders.masks(tmp_path / "b", 4, shifted=True)
    plan = Plan(steps=2, batch=2, precision="float32")
    asked = {"source": str(tmp_path / "a"), "methods": ("dann",), "network_settings": {"width": 2, "depth": 1}}
    common = {**asked, "plan": plan, "preprocess": {"crop": [16, 16]}, "holdout": 0}
    for mask in (tmp_path / "b" / "masks").iterdir():
        mask.write_bytes(mask.read_bytes()[:50])
    found = [
        tune(Experiment(target=str(target), **common), tmp_path / name, score=score(), trials=2, device="cpu")
        for name, target in (("labelled", tmp_path / "b"), ("plain", tmp_path / "b" / "images"))
    ]
    assert [e["score"] for e in found[0]["trials"]] == [e["score"] for e in found[1]["trials"]]
    assert_same(weights(tmp_path / "labelled" / "best"), weights(tmp_path / "plain" / "best"))


def test_what_cannot_be_swept_is_refused_before_anything_is_trained(place, tmp_path, monkeypatch):
    out = tmp_path / "no"

    def refused(said, experiment=None, **changes):
        given = {"score": score(), "device": "cpu", **changes}
        with pytest.raises(UsageError, match=said):
            tune(experiment or asked(place), out, **given)
        assert not out.exists()

    together = Score("agree", "agree", lambda zt, consensus: 0.0, "high", paper="", when="", fails="")
    refused("agree compares all models with each other", score=together)
    pixels = Score("shape", "shape", lambda zt: 0.0, "high", paper="", when="", fails="", tasks=("segmentation",))
    refused("shape is a score for segmentation", score=pixels)
    held_out = Score("risk", "risk", lambda zs, ys: 0.0, "low", paper="", when="", fails="")
    refused("risk needs source images that training has not seen", score=held_out)
    refused("trained on the target's labels", asked(place, "trained-on-target", settings={}))
    still = asked(place, "adabn", settings={}, network="dann-mnist", network_settings={"norm": "batch"})
    refused("adabn has no learning rate and no weight", still)
    refused("adabn trains nothing", still, search={"lr": Range(0.1, 1), "adabn.alpha": Range(0, 1)})
    refused("of one method, not of 2", asked(place).replace(methods=("dann", "mcd")))
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused(r'acclimate tune needs an extra: pip install "acclimate\[sweep\]"')


def test_a_sweep_leaves_the_caller_s_generator_as_it_was(place, tmp_path):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    tune(asked(place), tmp_path, score=score(), trials=1, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
