"""Single methods against values computed apart from them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from runs import network, plan, small, start
from torch.nn import functional

from acclimate.engine.update import Updater
from acclimate.methods import find
from acclimate.methods.base import Progress
from acclimate.plan import Optimiser


def test_adabn_holds_the_moments_of_the_target() -> None:
    """The first BatchNorm sees a convolution of the image: its moments over all target images, in float64."""
    net, target = network("classification"), small("classification")[1]
    x = torch.from_numpy(np.asarray(target.images)).permute(0, 3, 1, 2) / 127.5 - 1
    conv = net.module.body[0]
    z = functional.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1).transpose(0, 1).flatten(1)
    adapted = start("adabn", net=net).model.method.net.module.body[1]
    torch.testing.assert_close(adapted.running_mean.double(), z.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(adapted.running_var.double(), z.var(1), rtol=1e-4, atol=1e-5)


def test_dann_minimises_the_terms_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two terms, from plain functions of the same batch."""
    seen: dict[str, Any] = {}

    def catch(self: Updater, terms: Any, players: Any) -> None:
        seen.update(terms=dict(terms), players=players)
        raise StopIteration

    monkeypatch.setattr(Updater, "update", catch)
    kind = find("dann")
    caught: list[Any] = []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def step(self, source: Any, target: Any, at: Progress) -> Any:
            caught.append((copy.deepcopy(self), source, target))
            return super().step(source, target, Progress("adapt", 1, 2))  # p = 0.5

    with pytest.raises(StopIteration):
        start(Watched, weight=0.7)
    method, source, target = caught[0]
    assert set(seen["terms"]) == {"supervised", "domain"}
    assert seen["players"] == ("net", "critic")
    s, t = method(source, target)
    task = functional.cross_entropy(s.logits, source.y)
    logits = torch.cat([method.critic(s.features), method.critic(t.features)])
    truth = torch.cat([torch.ones(len(s.features), 1), torch.zeros(len(t.features), 1)])
    domain = functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(seen["terms"]["supervised"], task)
    torch.testing.assert_close(seen["terms"]["domain"], domain)


def test_dann_reverses_into_the_features_only() -> None:
    kind = find("dann")
    gradients: dict[str, torch.Tensor] = {}

    class Watched(kind):  # type: ignore[misc, valid-type]
        def update(self, terms: Any, *players: str) -> None:
            if not gradients:
                wanted = [self.net.body_parameters()[0], self.critic[0].weight]
                turned = torch.autograd.grad(terms["domain"], wanted, retain_graph=True)
                gradients.update(body=turned[0], critic=turned[1])
            super().update(terms, *players)

    found = []
    for weight in (1.0, 0.25):
        gradients.clear()
        start(Watched, how=plan(steps=1), weight=weight, ramp=False)
        found.append(dict(gradients))
    torch.testing.assert_close(found[1]["body"], 0.25 * found[0]["body"], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found[1]["critic"], found[0]["critic"])
    assert found[0]["body"].norm() > 0


def test_self_training_keeps_the_share_it_says_of_every_class() -> None:
    """Portions 0.3, 0.4, 0.4 of the pixels of each class in three rounds."""
    shares: list[float] = []
    kind = find("self-training")

    class Watched(kind):  # type: ignore[misc, valid-type]
        def label(self, target: Any) -> None:
            batches = list(target)
            super().label(iter(batches))
            logits = torch.cat([self.predict(b.x) for b in batches]).double()
            p, label = logits.softmax(1).max(1)
            for k in range(len(self.task.classes)):
                mine = p[label == k].sort(descending=True).values
                if len(mine) > 200:
                    odds = (float(self.thresholds[k]) / 64) - 16
                    shares.append(((mine / (1 - mine)).log() >= odds).double().mean().item())

    start(Watched, "segmentation", how=plan(steps=3), portion=0.3, growth=0.1, portion_max=0.4)
    assert shares
    assert all(0.29 <= share <= 0.45 for share in shares), shares


def test_self_training_with_impossible_threshold_learns_from_the_source_alone() -> None:
    terms: list[float] = []
    kind = find("self-training")

    class Watched(kind):  # type: ignore[misc, valid-type]
        def label(self, target: Any) -> None:
            super().label(target)
            self.thresholds.fill_(5000)

        def update(self, found: Any, *players: str) -> None:
            terms.append(found["pseudo-label"].item())
            super().update(found, *players)

    run = start(Watched, how=plan(steps=3, optimiser=Optimiser(lr=0.01)))
    assert set(terms) == {0.0}
    assert run.history[-1]["kept"] == 0
    assert "raise portion" in run.warnings[0]
