"""Scores of a whole set from predictions at each image's own size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from runs import network, plan, small, start
from torch import Tensor
from toys import PREPROCESS

from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.adapt import adapt
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.methods import Method, find
from acclimate.plan import Plan
from acclimate.tasks import build


class Bright(Method):
    """Says "foreground" where the image is bright: a prediction that needs no training."""

    def predict(self, x: Tensor) -> Tensor:
        return torch.cat([-x, x], 1)


def bright(**preprocess: Any) -> Model:
    method = Bright(network("segmentation"), build("segmentation", ("ground", "cell")), Plan())
    return Model(method, Preprocess(channels=1, **preprocess), torch.device("cpu"))


def images(*sizes: tuple[int, int]) -> Domain:
    rng = np.random.default_rng(0)
    made = [(rng.random(size) > 0.7).astype(np.uint8)[..., None] * 255 for size in sizes]
    return Domain(
        "d", "segmentation", ("ground", "cell"), made, [i[..., 0] // 255 for i in made], [str(s) for s in sizes]
    )


def test_perfect_prediction_scores_one_at_any_mix_of_sizes() -> None:
    found = evaluate(bright(), images((8, 8), (5, 9), (8, 8), (30, 4)))
    assert found.value == 1.0
    assert found.interval == (1.0, 1.0)
    assert (found.images, np.sum(found.confusion)) == (4, 64 + 45 + 64 + 120)


def test_scaled_prediction_returns_to_each_images_own_size() -> None:
    """Two sizes that become one when halved must not be confused."""
    domain = images((10, 10), (9, 9), (10, 9))
    shapes = {i: tuple(z.shape[-2:]) for index, z in bright(scale=0.5).logits(domain) for i in index}
    assert shapes == {0: (10, 10), 1: (9, 9), 2: (10, 9)}
    evaluate(bright(scale=0.5), domain)


def test_score_is_that_of_the_labels_by_hand() -> None:
    source, _, test = small("classification")
    model = start("source-only").model
    guesses = torch.zeros(len(test), dtype=torch.long)
    for index, logits in model.logits(test):
        guesses[index] = logits.argmax(1)
    expected = np.mean(guesses.numpy() == np.array(test.labels))
    found = evaluate(model, test)
    assert found.value == pytest.approx(expected)
    assert found.interval[0] <= found.value <= found.interval[1]
    assert found == evaluate(model, test)
    assert evaluate(model, test, resamples=0) == dataclasses.replace(found, interval=None)
    assert source.classes == test.classes


def test_subsets_of_a_domain_are_scored_beside_the_whole() -> None:
    """Subsets that match_classes and the like carry along in the facts; one class of two is enough to see it."""
    domain = images((8, 8), (5, 9))
    domain = dataclasses.replace(domain, facts={"subsets": {"1": ["cell"], "of others": ["tree"]}})
    wrong = dataclasses.replace(domain, labels=[np.zeros_like(label) for label in domain.labels or ()]).subset([0, 1])
    assert evaluate(bright(), domain).scores["mIoU 1"] == 1.0
    scores = evaluate(bright(), wrong).scores
    assert scores["mIoU 1"] == scores["IoU cell"] == 0.0
    assert scores["mIoU"] == pytest.approx(scores["IoU ground"] / 2)
    assert "mIoU of others" not in scores


def test_interval_is_about_that_of_the_binomial() -> None:
    """400 images, a quarter wrong: the standard error of the share is sqrt(p (1 - p) / n)."""
    images_ = np.zeros((400, 16, 16, 3), np.uint8)
    constant = start("source-only").model
    (_, logits), *_ = constant.logits(Domain("d", None, (), images_[:1], None, ["0"]))
    winner = int(logits.argmax())
    labels = [winner if i % 4 else (winner + 1) % 3 for i in range(400)]
    found = evaluate(
        constant, Domain("d", "classification", small("classification")[0].classes, images_, labels, ["x"] * 400)
    )
    assert found.value == 0.75
    error = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert found.interval == pytest.approx((0.75 - error, 0.75 + error), abs=0.01)


def test_what_cannot_be_compared_is_named() -> None:
    domain = images((8, 8))
    for other, kind, text in (
        (domain.unlabelled(), UsageError, "no labels"),
        (dataclasses.replace(domain, classes=("cell", "ground")), UsageError, "--map"),
        (dataclasses.replace(domain, labels=[np.zeros((8, 7), int)]), DataError, "mask has"),
        (dataclasses.replace(domain, labels=[np.full((8, 8), 255)]), DataError, r"-1\.\.1"),
    ):
        with pytest.raises(kind, match=text):
            evaluate(bright(), other)


# -- models in files --------------------------------------------------------------------------------------------------


def test_model_of_a_network_made_by_hand_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made by hand"):
        start("source-only").model.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_or_foreign_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no model\.json"):
        Model.load(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 99"):
        Model.load(tmp_path)


# -- what adapt asks for ----------------------------------------------------------------------------------------------


def test_oracle_without_labels_is_refused() -> None:
    source, target, _ = small("classification")
    with pytest.raises(UsageError, match="reads target labels"):
        start("trained-on-target", pair=(source, target.unlabelled()))


def test_source_without_labels_is_refused() -> None:
    source, target, _ = small("classification")
    with pytest.raises(UsageError, match="needs labels"):
        start("source-only", pair=(source.unlabelled(), target))


def test_task_that_nothing_tells_is_asked_for() -> None:
    with pytest.raises(UsageError, match="task="):
        adapt(
            network("classification"), None, None, "source-only", plan=plan(), preprocess=PREPROCESS["classification"]
        )


def test_preprocessing_defaults_to_what_the_network_was_made_for() -> None:
    model = start("source-only", preprocess=None).model
    assert (model.preprocess.size, model.preprocess.channels, model.preprocess.mean) == ((16, 16), 3, 0.5)


def test_alarm_tells_what_looked_wrong() -> None:
    kind = find("self-training")

    class Alarmed(kind):  # type: ignore[misc, valid-type]
        watch: ClassVar = {"kept": (2.0, 3.0, "keep more")}

    assert "keep more" in start(Alarmed).warnings[0]
    assert not start("source-only").warnings
