"""Class-balanced self-training with its extras, and CRST, against values computed apart from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from runs import network, plan, small, start
from scipy.special import entr, expit, softmax
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.methods import Train, find

CBST, CRST = find("self-training"), find("crst")


def steps_of(kind: Any, task: str, **settings: Any) -> list[dict[str, Any]]:
    """Of each step the target's logits, its columns, the thresholds, the terms and what was kept."""
    seen: list[dict[str, Any]] = []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def on_target(self, logits: Tensor, target: Any) -> Any:
            terms, kept = super().on_target(logits, target)
            seen.append(
                {
                    "logits": logits.detach().double(),
                    "columns": target.columns,
                    "thresholds": self.thresholds.clone(),
                    "terms": {name: term.item() for name, term in terms.items()},
                    "kept": kept,
                }
            )
            return terms, kept

    start(Watched, task, how=plan(steps=3), **settings)
    return seen


# -- class-balanced thresholds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("kind", [CBST, CRST])
def test_portion_of_one_keeps_every_pixel(kind: Any, task: str) -> None:
    for step in steps_of(kind, task, portion=1.0, portion_max=1.0):
        assert step["kept"].all()


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("settings", [{}, {"regulariser": "lrent"}])
def test_class_that_is_never_predicted_does_no_harm(task: str, settings: dict[str, str]) -> None:
    net = network(task)
    with torch.no_grad():
        net.head.bias[1] = -1e3  # type: ignore[index, operator]
    for step in steps_of(CRST, task, net=net, **settings):
        assert all(np.isfinite(value) for value in step["terms"].values())
        assert step["columns"]["label"].ne(1).all()
        assert step["thresholds"][1] == 4095
        assert step["kept"].any()


# -- extras -----------------------------------------------------------------------------------------------------------


def test_spatial_prior_moves_labels_to_where_the_source_has_them() -> None:
    """A source that shows its shapes in the upper half: the prior is high there and low below."""
    source, target, _ = small("segmentation")
    labels = np.stack([np.asarray(label) for label in source.labels])  # type: ignore[union-attr]
    labels[:, 16:] = 0
    upper = type(source)(**{**vars(source), "labels": labels})
    found: dict[bool, Tensor] = {}
    for wanted in (False, True):

        class Watched(CBST):  # type: ignore[misc, valid-type]
            def keep(self, batch: Any, **columns: Tensor) -> None:
                found.setdefault(wanted, columns["label"].clone())  # noqa: B023
                super().keep(batch, **columns)

        method = start(
            Watched, "segmentation", pair=(upper, target), spatial_prior=wanted, prior_grid=(8, 8), how=plan(steps=3)
        ).model.method
        if wanted:
            assert method.prior.q[1, :3].mean() > 1.2
            assert method.prior.q[1, -2:].max() < 0.1
            assert method.prior.q[0].min() > 0.5
    lower = slice(20, None)
    assert found[True][:, lower].float().mean() < found[False][:, lower].float().mean()
    assert found[True][:, :12].float().mean() >= found[False][:, :12].float().mean()


def test_extras_are_off_and_ask_for_label_maps() -> None:
    made = start(CBST, "segmentation").model.method
    assert not any("prior" in name for name in made.state_dict())
    assert made.stages()[0].name == "statistics"
    assert all(not stage.rare_classes for stage in made.stages() if isinstance(stage, Train))
    with pytest.raises(UsageError, match="spatial_prior=False"):
        start(CBST, "classification", spatial_prior=True)


def test_rare_classes_are_drawn_from_the_source_alone() -> None:
    made = start(CBST, "segmentation", rare_classes=0.1, how=plan(steps=3)).model.method
    assert [stage.rare_classes for stage in made.stages() if isinstance(stage, Train)] == [{"source": 0.1}] * 3


def test_frozen_statistics_as_in_the_paper() -> None:
    net = network("segmentation")
    made = start(CBST, "segmentation", net=net, norm="frozen", restat=False).model.method
    before, after = net.state_dict(), made.net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "running" in name)
    assert not all(torch.equal(after[name], before[name]) for name in before)


# -- confidence regularisation ----------------------------------------------------------------------------------------


def pixels(value: Tensor, kept: Tensor) -> np.ndarray:
    """Rows of classes, one for each pixel that is kept."""
    return value.movedim(1, -1).numpy()[kept.numpy()]


REGULARISERS = {
    "mrkld": lambda p: -np.log(p).mean(1),
    "mrent": lambda p: -entr(p).sum(1),
    "mrl2": lambda p: (p**2).sum(1),
}


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("name", REGULARISERS)
def test_regularisers_are_those_of_the_formula(name: str, task: str) -> None:
    for step in steps_of(CRST, task, regulariser=name, alpha=0.3, weight=0.5, portion=0.5):
        p = softmax(pixels(step["logits"], step["kept"]), 1)
        expected = 0.5 * 0.3 * REGULARISERS[name](p).mean()
        assert step["terms"]["regulariser"] == pytest.approx(expected, rel=1e-4)
        labels = step["columns"]["label"].numpy()[step["kept"].numpy()]
        nll = -np.log(p[np.arange(len(p)), labels]).mean()
        assert step["terms"]["pseudo-label"] == pytest.approx(0.5 * nll, rel=1e-4)


def test_coefficient_of_mrkld_enters_once() -> None:
    """The released code multiplies by alpha as the weight of the target and once more: alpha squared."""
    for alpha in (None, 0.1, 0.4):
        settings = {} if alpha is None else {"alpha": alpha}
        step = steps_of(CRST, "segmentation", portion=1.0, portion_max=1.0, **settings)[0]
        p = softmax(pixels(step["logits"], step["kept"]), 1)
        assert step["terms"]["regulariser"] / -np.log(p).mean() == pytest.approx(alpha or 0.1, rel=1e-4)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_lrent_learns_soft_labels(task: str) -> None:
    """Labels (p / t)^(1 / alpha) of the labelling's p, kept by the paper's rule; alpha is .25."""
    net = network(task)
    with torch.no_grad():
        net.head.weight.mul_({"classification": 4, "segmentation": 20}[task])  # type: ignore[operator, union-attr]
    shares = []
    for step in steps_of(CRST, task, net=net, regulariser="lrent", shrink=1, portion=0.5):
        columns = step["columns"]
        p = columns["p"] if "p" in columns else torch.stack([columns[f"p{k}"] for k in range(3)], 1)
        p = p.double().movedim(1, -1).numpy().clip(1e-7)
        level = expit(columns["level"].double().numpy() / 64 - 16)  # within 1/64 of the log-odds, and sharper near 1
        np.put_along_axis(p, columns["label"].long().numpy()[..., None], level[..., None], -1)
        thresholds = expit(step["thresholds"].double().numpy() / 64 - 16)
        y = (p / thresholds) ** 4
        y /= y.sum(-1, keepdims=True)
        left = -(y * np.log(p)).sum(-1) - 0.25 * entr(y).sum(-1)
        right = -(y * np.log(thresholds)).sum(-1)
        clear = np.abs(left - right) > 1e-4
        assert (step["kept"].numpy() == (left < right))[clear].all()
        shares.append(step["kept"].double().mean())
        kept = step["kept"].numpy()
        costs = -(y * np.log(softmax(step["logits"].movedim(1, -1).numpy(), -1))).sum(-1)
        expected = costs[kept].sum() / max(1, kept.sum())
        assert step["terms"] == {"pseudo-label": pytest.approx(expected, rel=1e-3, abs=1e-6)}
    assert 0.1 < np.mean(shares) < 0.9


def test_lrent_keeps_every_image_at_portion_one() -> None:
    for step in steps_of(CRST, "classification", regulariser="lrent", portion=1.0, portion_max=1.0):
        assert step["kept"].all()


def test_lrent_remembers_a_quarter_of_the_resolution_in_half_precision() -> None:
    made: list[Tensor] = []

    class Watched(CRST):  # type: ignore[misc, valid-type]
        def keep(self, batch: Any, **columns: Tensor) -> None:
            made.append(columns["p"])
            super().keep(batch, **columns)

    start(Watched, "segmentation", regulariser="lrent", how=plan(steps=3))
    assert made[0].shape[1:] == (2, 8, 8)
    assert made[0].dtype == torch.float16


@pytest.mark.parametrize(("name", "alpha"), [("mrkld", 0.1), ("lrent", 0.25), ("mrent", 0.1), ("mrl2", 0.1)])
def test_default_coefficients(name: str, alpha: float) -> None:
    made = CRST(
        network("segmentation"), start("source-only", "segmentation").model.method.task, plan(), regulariser=name
    )
    assert made.alpha == alpha
