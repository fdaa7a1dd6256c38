"""Asymmetric tri-training: who labels what, who learns from it, and in which order."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs import network, plan, small, start
from torch import nn
from torch.nn import functional

from acclimate.methods import find
from acclimate.methods.base import Progress, Sweep, Train
from acclimate.plan import Optimiser


def method(steps: int = 12, **settings: Any) -> Any:
    return start("tri-training", how=plan(steps=steps), **settings).model.method


def test_stages_share_steps_and_one_schedule() -> None:
    stages = method(20, rounds=3, source_share=0.25).stages()
    training = [stage for stage in stages if isinstance(stage, Train)]
    assert [type(stage) for stage in stages] == [Train, Sweep, Train, Sweep, Train, Sweep, Train]
    assert [stage.steps for stage in training] == [5, 5, 5, 5]
    assert [stage.part for stage in training] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert [stage.continues for stage in training] == [False, True, True, True]


def test_labelers_and_head_start_apart() -> None:
    net = network("classification")
    torch.manual_seed(0)
    fresh = find("tri-training")(net, method(3).task, plan())
    weights = [net.head.weight, *(labeler.weight for labeler in fresh.labelers)]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    x = torch.zeros(2, *net.input_shape)
    with torch.no_grad():
        assert torch.equal(fresh.eval().predict(x), net.eval()(x).logits)


@pytest.mark.parametrize("threshold", [0.0, 0.45])
def test_an_image_gets_the_label_that_both_are_for_and_one_is_sure_of(threshold: float) -> None:
    """Against NumPy on the labelers' logits, in each of two rounds; the second has more candidates."""
    kept: list[np.ndarray] = []
    wanted: list[np.ndarray] = []

    class Watched(find("tri-training")):  # type: ignore[misc]
        def label(self, target: Any) -> None:
            batches = list(target)
            order = torch.cat([batch.index for batch in batches])
            features = torch.cat([self.net(batch.x).features for batch in batches])
            z1, z2 = (labeler(features).double().numpy() for labeler in self.labelers)
            p1, p2 = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (z1, z2))
            sure = (p1.argmax(1) == p2.argmax(1)) & (np.maximum(p1.max(1), p2.max(1)) > threshold)
            labels = np.where(sure, p1.argmax(1), -1)
            labels[int(0.4 * (int(self.round) + 1) * len(order)) :] = -1
            wanted.append(labels[np.argsort(order)])
            super().label(iter(batches))

        def keep(self, batch: Any, **columns: Any) -> None:
            kept.append(columns["label"].numpy()[np.argsort(batch.index)])
            super().keep(batch, **columns)

    start(Watched, how=plan(steps=9), rounds=2, growth=0.4, fewest=1, threshold=threshold)
    assert len(kept) == len(wanted) == 2
    for found, right in zip(kept, wanted):
        np.testing.assert_array_equal(found, right)
    counts = [(found >= 0).sum() for found in kept]
    assert 0 < counts[0] <= 16 < 32
    assert all(set(found) > {-1} for found in kept)


def test_there_are_never_fewer_candidates_than_fewest() -> None:
    shares = {}
    for fewest in (1, 10, 5000):
        candidates = {"rounds": 1, "growth": 0.05, "fewest": fewest, "threshold": 0.0, "source_share": 0.9}
        run = start("tri-training", how=plan(steps=20, batch=40), **candidates)
        shares[fewest] = run.history[-1]["kept"] * 40  # one batch is the whole target
    assert shares[1] <= 2
    assert shares[1] < shares[10] <= 10 < shares[5000] <= 40


def test_updates_are_those_of_its_formula() -> None:
    """Both updates of a step, from plain functions; the second sees the features that the first has moved."""
    caught: list[Any] = []
    updates: list[Any] = []

    class Watched(find("tri-training")):  # type: ignore[misc]
        def step(self, source: Any, target: Any, at: Progress) -> Any:
            if not caught:
                caught.extend([SimpleNamespace(net=copy.deepcopy(self.net), labelers=copy.deepcopy(self.labelers))])
                caught.extend([source, target])
            return super().step(source, target, at)

        def update(self, terms: Any, *players: str) -> None:
            if len(caught) < 5:
                updates.append((dict(terms), players))
            super().update(terms, *players)
            if caught:
                caught.append(SimpleNamespace(net=copy.deepcopy(self.net)))

    start(
        Watched,
        net=network("classification", norm=False),
        how=plan(steps=20),
        source_share=0.8,
        overlap=0.3,
        threshold=0.0,
    )
    before, source, target, between = caught[:4]
    label = target.columns["label"]
    assert (label >= 0).any()
    first, second = updates[-2:]
    assert [players for _, players in (first, second)] == [("features", "labelers"), ("features", "head")]

    def losses(net: Any, labelers: Any, batch: Any, y: torch.Tensor) -> torch.Tensor:
        features = net(batch.x).features
        return sum(functional.cross_entropy(f(features), y, ignore_index=-1) for f in labelers)  # type: ignore[return-value]

    torch.testing.assert_close(first[0]["supervised"], losses(before.net, before.labelers, source, source.y))
    torch.testing.assert_close(first[0]["pseudo-label"], losses(before.net, before.labelers, target, label))
    w1, w2 = (f.weight.detach().double().numpy() for f in before.labelers)
    assert first[0]["overlap"].item() == pytest.approx(0.3 * np.abs(w1.T @ w2).sum(0).mean(), rel=1e-4)
    torch.testing.assert_close(second[0]["target"], losses(between.net, [between.net.head], target, label))
    assert not torch.equal(second[0]["target"], losses(before.net, [before.net.head], target, label))


def test_the_source_trains_all_heads_at_first() -> None:
    updates: list[Any] = []

    class Watched(find("tri-training")):  # type: ignore[misc]
        def begin(self, source: Any, target: Any, at: Progress) -> None:
            features = self.net(source.x).features
            heads = (self.net.head, *self.labelers)
            wanted = sum(functional.cross_entropy(f(features), source.y) for f in heads)
            super().begin(source, target, at)
            torch.testing.assert_close(updates[-1][0]["supervised"], wanted)

        def update(self, terms: Any, *players: str) -> None:
            updates.append((terms, players))
            super().update(terms, *players)

    start(Watched, net=network("classification", norm=False), how=plan(steps=4))
    assert set(updates[0][1]) == {"features", "labelers", "head"}


def test_without_any_label_the_target_teaches_nothing() -> None:
    terms: list[dict[str, float]] = []

    class Watched(find("tri-training")):  # type: ignore[misc]
        def update(self, found: Any, *players: str) -> None:
            terms.append({name: value.item() for name, value in found.items()})
            super().update(found, *players)

    how = plan(steps=6, optimiser=Optimiser(lr=0.02, momentum=0.0))
    net = network("classification", norm=False)
    run = start(Watched, net=net, how=how, threshold=0.9999, rounds=1, source_share=0.5)
    assert {t["target"] for t in terms if "target" in t} == {0.0}
    assert {t["pseudo-label"] for t in terms if "pseudo-label" in t} == {0.0}
    assert "lower threshold" in run.warnings[0]


def test_running_statistics_move_once_a_step() -> None:
    """Neither the source nor the second pass of the target counts (policy "target")."""
    run = method(6)
    layer = run.net.module.body[1]
    assert isinstance(layer, nn.BatchNorm2d)
    forwards: list[float] = []
    layer.register_forward_pre_hook(lambda module, args: forwards.append(module.momentum if module.training else 0.0))
    steps = start_again(run)
    moved = [momentum for momentum in forwards if momentum]
    assert len(moved) == steps
    assert len(forwards) > steps


def start_again(made: Any) -> int:
    """One step of the method on the toy pair, with updates that do nothing."""
    target = torch.from_numpy(np.asarray(small("classification")[1].images[:8])).permute(0, 3, 1, 2) / 127.5 - 1
    batch = type("Given", (), {"x": target, "y": torch.zeros(8, dtype=torch.long), "columns": {}})()
    batch.columns = {"label": torch.zeros(8, dtype=torch.long)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made), "update", lambda self, terms, *players: None)
        made.train()
        made.step(batch, batch, Progress("round 1", 0, 1))
    return 1
