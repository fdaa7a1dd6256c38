"""What an experiment refuses before it trains, and where its methods start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import masks

from acclimate import experiment as home
from acclimate import tasks
from acclimate.data.domain import Domain
from acclimate.engine.evaluate import Evaluation
from acclimate.engine.inference import Inference
from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.experiment import (
    Experiment,
    Player,
    carry_out,
    changed_predictions,
    default_player,
    hardly_learnt,
    odd_shares,
    open_domains,
    score_facts,
    starts_from_source,
)
from acclimate.files import read_json
from acclimate.plan import Optimiser, Plan

PLAN = Plan(steps=2, batch=2, log_every=1, precision="float32", optimiser=Optimiser(lr=1e-12))
SMALL = {"network_settings": {"width": 2, "depth": 1}, "preprocess": {"crop": 16}, "plan": PLAN}


def experiment(tmp_path: Path, **more: object) -> Experiment:
    for name in ("source", "target"):
        if not (tmp_path / name).exists():
            masks(tmp_path / name, 6)
    return Experiment(source=str(tmp_path / "source"), target=str(tmp_path / "target"), **{**SMALL, **more})


def test_a_method_for_the_other_task_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shot is for classification; for segmentation choose another method"):
        carry_out(experiment(tmp_path, methods=("shot",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_labelled_images_are_noticed_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory-bank-few needs a few labelled target images"):
        carry_out(experiment(tmp_path, methods=("memory-bank-few",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_number_of_labelled_images_is_taken_from_the_targets_own(tmp_path: Path) -> None:
    found = open_domains(experiment(tmp_path, labelled=2), None, score=True)
    again = open_domains(experiment(tmp_path, labelled=2), None, score=True)
    assert found.labelled is not None
    assert found.labelled.labels is not None
    assert len(found.labelled) == 2
    assert set(found.labelled.names) <= set(found.target.names)
    assert list(found.labelled.names) == list(again.labelled.names)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="labelled must lie in"):
        open_domains(experiment(tmp_path, labelled=60), None, score=True)


def test_labelled_images_may_come_from_a_folder_but_not_without_labels(tmp_path: Path) -> None:
    masks(tmp_path / "few", 2)
    found = open_domains(experiment(tmp_path, labelled=str(tmp_path / "few")), None, score=False)
    assert found.labelled is not None
    assert len(found.labelled) == 2
    assert found.target.labels is None
    with pytest.raises(UsageError, match="have no labels"):
        open_domains(experiment(tmp_path, labelled=str(tmp_path / "few" / "images")), None, score=False)


class Saying:
    """A model whose predictions are given, in batches of a given size; it notes each image that it is asked for."""

    def __init__(self, name: str, labels: list[int], batch: int, log: list[str]) -> None:
        self.name, self.labels, self.batch, self.log = name, labels, batch, log

    def logits(self, domain: Domain) -> Iterator[tuple[list[int], torch.Tensor]]:
        for first in range(0, len(domain), self.batch):
            index = list(range(first, min(first + self.batch, len(domain))))
            self.log.append(f"{self.name}{first}")
            yield index, torch.eye(3)[[self.labels[i] for i in index]]


def test_changed_predictions_are_counted_by_image_and_nothing_is_hoarded() -> None:
    """Source-only gives batches, the other single images, as where it looks through windows: 2 of 5 differ."""
    log: list[str] = []
    domain = Domain("d", "classification", ("a", "b", "c"), np.zeros((5, 2, 2, 1), np.uint8), None, list("vwxyz"))
    said = (("s", [0, 1, 2, 0, 1], 2), ("m", [0, 1, 0, 0, 2], 1))
    models: list[Any] = [Saying(*words, log) for words in said]
    players = [Player(name, model, {}) for name, model in zip(("source-only", "dann"), models)]
    changed_predictions(players, domain)
    assert players[1].facts["changed"] == pytest.approx(2 / 5)
    assert log == ["s0", "m0", "m1", "s2", "m2", "m3", "s4", "m4"]


def test_an_adapted_model_keeps_how_the_given_one_looks_at_images(tmp_path: Path) -> None:
    asked = Inference(window=(16, 16), flip=True)
    carry_out(experiment(tmp_path, methods=("adabn",)), tmp_path / "first")
    given = Model.load(tmp_path / "first" / "seed-0" / "source-only")
    given.inference = asked
    given.save(tmp_path / "given")
    seen: list[Inference] = []
    results = carry_out(
        experiment(tmp_path, methods=("adabn",)).replace(source=None, model=str(tmp_path / "given")),
        tmp_path / "run",
        after=lambda domains, players: seen.extend(player.model.inference for player in players),
    )
    assert seen == [asked, asked]
    assert Model.load(tmp_path / "run" / "seed-0" / "adabn").inference == asked
    assert 0 <= results["players"]["adabn"]["seeds"]["0"]["changed"] <= 1


def test_a_player_that_reads_a_few_target_labels_says_so(tmp_path: Path) -> None:
    masks(tmp_path / "few", 2)
    asked = experiment(tmp_path, methods=("memory-bank-few",), labelled=str(tmp_path / "few"), oracle=True)
    carry_out(asked, tmp_path / "run")
    players = read_json(tmp_path / "run" / "results.json")["players"]
    said = {name: (entry["oracle"], entry["reads"]) for name, entry in players.items()}
    assert said == {
        "source-only": (False, None),
        "memory-bank-few": (False, "few target labels"),
        "trained-on-target": (True, None),
    }


def test_who_starts_from_the_source_model() -> None:
    cold, warm = Experiment(target="t"), Experiment(target="t", warm_start=True)
    assert [starts_from_source(cold, name) for name in ("source-only", "dann", "adabn", "trained-on-target")] == [
        False,
        False,
        True,
        False,
    ]
    assert [starts_from_source(warm, name) for name in ("source-only", "dann", "adabn", "trained-on-target")] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_start_goes_on_from_source_only(warm: bool, tmp_path: Path) -> None:
    """With next to no learning rate, a method that starts warm keeps source-only's weights."""
    long = PLAN.replace(optimiser=Optimiser(lr=0.5))
    carry_out(
        experiment(
            tmp_path,
            methods=("dann",),
            warm_start=warm,
            plan=long,
            plans={"dann": {"optimiser": PLAN.optimiser.model_dump()}},  # type: ignore[union-attr]
        ),
        tmp_path / "run",
    )
    source, dann = (
        Model.load(tmp_path / "run" / "seed-0" / name).method.net.state_dict() for name in ("source-only", "dann")
    )
    weights = [name for name in source if name.endswith("weight")]
    same = [torch.allclose(source[name], dann[name], atol=1e-6) for name in weights]
    assert all(same) if warm else not np.all(same)


def test_labels_drawn_from_the_target_are_those_of_the_target_under_a_class_map(tmp_path: Path) -> None:
    """Exchanged names: the few labels must agree with the target's own, pixel for pixel."""
    wanted = experiment(tmp_path, labelled=2, class_map={"earth": "shape", "thing": "ground"})
    (tmp_path / "target" / "classes.json").write_text(json.dumps({"classes": ["earth", "thing"]}))
    found = open_domains(wanted, None, score=True)
    assert found.labelled is not None
    for i, name in enumerate(found.labelled.names):
        j = list(found.target.names).index(name)
        assert np.array_equal(found.labelled.labels[i], found.target.labels[j])  # type: ignore[index]


def test_labelled_images_of_a_target_that_is_scored_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would be scored too"):
        open_domains(experiment(tmp_path, labelled=2, holdout=0.0), None, score=True)


def test_a_network_for_the_other_task_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dtn gives one class for an image; for segmentation choose another network"):
        carry_out(experiment(tmp_path, network="dtn", network_settings={}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_methods_are_named_for_the_other_task(tmp_path: Path) -> None:
    """SHOT is source-free; what is named first is source-free too, and fits."""
    with pytest.raises(UsageError, match="choose another method, such as adabn, ") as found:
        carry_out(experiment(tmp_path, methods=("shot",)), tmp_path / "run")
    assert "dirt-t" not in str(found.value)


TWO = tasks.build("segmentation", ("ground", "vessel"))
THREE = tasks.build("classification", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("predicted", "labelled", "said"),
    [
        (
            (0.10, 0.90),
            (0.92, 0.08),
            "'vessel' is predicted on 90 % of the target's pixels, where 8 % of the source's ",
        ),
        ((0.62, 0.38), (0.92, 0.08), ""),  # less than five times
        ((0.98, 0.02), (0.88, 0.12), "'vessel' is predicted on 2 % of the target's pixels, where 12 %"),
        ((0.96, 0.04), (0.88, 0.12), ""),  # more than a fifth
        ((0.955, 0.045), (0.995, 0.005), ""),  # nine times, but four points apart
    ],
)
def test_a_class_that_is_oddly_frequent_on_the_target_is_said(predicted: Any, labelled: Any, said: str) -> None:
    found = odd_shares(predicted, labelled, TWO)
    assert len(found) == bool(said)
    assert said in "".join(found)
    assert "the like" not in "".join(found)


def test_of_many_odd_classes_the_oddest_leads() -> None:
    (found,) = odd_shares((0.02, 0.01, 0.97), (0.5, 0.4, 0.1), THREE)
    assert found.startswith("'c' is predicted on 97 % of the target's images")
    assert "(and the like for a, b)" in found


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        ([[20, 72], [1, 7]], "it reaches 8.8 % foreground IoU, where one class for everything gives 8.0 %"),
        ([[90, 2], [3, 5]], ""),  # IoU 0.5
        ([[92, 0], [8, 0]], "it reaches 0.0 % foreground IoU"),
    ],
)
def test_a_model_about_as_good_as_one_class_for_everything_has_hardly_learnt(confusion: Any, said: str) -> None:
    scored = Evaluation(TWO.scores(torch.tensor(confusion)), TWO.primary, None, confusion, 1)
    found = hardly_learnt(score_facts(scored), TWO)
    assert len(found) == bool(said)
    assert said in "".join(found)


def test_the_warning_stands_with_every_player_but_an_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "predicted_shares", lambda *_: (torch.tensor([0.01, 0.99]), 0.9))
    monkeypatch.setattr(home, "source_shares", lambda *_: [0.9, 0.1])
    results = carry_out(experiment(tmp_path, methods=("adabn",), oracle=True), tmp_path / "run")
    for name, entry in results["players"].items():
        told = [text for text in entry["seeds"]["0"]["warnings"] if "is predicted on 99 %" in text]
        assert len(told) == (name != "trained-on-target")


def test_the_method_that_is_meant_reads_no_target_label_if_one_does_not() -> None:
    def entry(reads: str | None = None, oracle: bool = False) -> dict[str, Any]:
        return {"oracle": oracle, "reads": reads}

    base, few = {"source-only": entry()}, {"memory-bank-few": entry("few target labels")}
    oracle = {"trained-on-target": entry(oracle=True)}
    assert default_player(base | {"suit": entry(), "adabn": entry()} | few | oracle) == "adabn"
    assert default_player(base | few | oracle) == "memory-bank-few"
    assert default_player(base | oracle) == "source-only"
    assert default_player({"source-only": {"oracle": False}, "dann": {"oracle": False}}) == "dann"  # an earlier release
