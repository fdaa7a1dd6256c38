"""CellSegUDA's two updates against plain functions of the same batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from runs import network, plan, start
from torch.nn import functional

from acclimate import networks
from acclimate.engine.update import Updater
from acclimate.methods import find
from acclimate.plan import Optimiser
from acclimate.tasks import build


def one_step(**more: Any) -> tuple[Any, Any, Any, list[Any]]:
    """The method before its first step, the step's batches, and at each update: terms, players, the method's state."""
    caught: list[Any] = []
    updates: list[Any] = []
    kind = find("cellseguda")

    class Watched(kind):  # type: ignore[misc, valid-type]
        def step(self, source: Any, target: Any, at: Any) -> Any:
            caught.extend([copy.deepcopy(self), source, target])
            return super().step(source, target, at)

        def update(self, terms: Any, *players: str) -> None:
            values = {name: term.detach().clone() for name, term in terms.items()}
            updates.append((values, players, copy.deepcopy(self.state_dict())))
            super().update(terms, *players)

    last = start(Watched, how=plan(steps=1), **more).model.method.state_dict()
    return caught[0], caught[1], caught[2], [*updates, ({}, (), last)]


def test_minimises_the_terms_of_its_formula() -> None:
    method, source, target, updates = one_step(adversarial=0.2, reconstruction=0.7)
    ps, pt = (method.net(x.x).logits.softmax(1)[:, 1:] for x in (source, target))
    bce = functional.binary_cross_entropy_with_logits
    ds, dt = method.critic(ps), method.critic(pt)
    assert updates[0][1] == ("critic",)
    torch.testing.assert_close(updates[0][0], {"domain": bce(ds, torch.ones_like(ds)) + bce(dt, torch.zeros_like(dt))})

    moved = copy.deepcopy(method)
    moved.load_state_dict(updates[1][2])  # the critic has moved, and nothing else
    dt = moved.critic(pt)
    y = (source.y == 1).float()
    dice = 1 - (2 * (ps[:, 0] * y).sum() + 1) / (ps.sum() + y.sum() + 1)
    error = (method.reconstructor(pt) - target.x).square().mean()
    expected = {
        "supervised": dice,
        "adversarial": 0.2 * bce(dt, torch.ones_like(dt)),
        "reconstruction": 0.7 * error,
    }
    torch.testing.assert_close(updates[1][0], {name: value.detach() for name, value in expected.items()})
    assert updates[1][1] == ("net", "reconstructor")


def test_the_critic_moves_before_the_others() -> None:
    method, _, _, updates = one_step()
    parameters = [name for name, _ in method.named_parameters()]
    states = [state for _, _, state in updates]

    def movers(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name in parameters if not torch.equal(a[name], b[name])}

    assert movers(states[0], states[1]) == {"critic"}
    assert movers(states[1], states[2]) == {"net", "reconstructor"}


def test_every_player_has_the_rate_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, tuple[str, float]] = {}
    update = Updater.update

    def watched(self: Updater, terms: Any, players: Any) -> None:
        for name, optimiser in self.optimisers.items():
            rates[name] = (optimiser.settings.kind, optimiser.optimiser.param_groups[0]["lr"])
        update(self, terms, players)

    monkeypatch.setattr(Updater, "update", watched)
    start("cellseguda", how=plan(steps=1, optimiser=None))
    assert rates == {"net": ("adam", 1e-4), "critic": ("adam", 1e-3), "reconstructor": ("adam", 1e-3)}
    start("cellseguda", how=plan(steps=1, optimiser=Optimiser(lr=0.3)), critic_lr=0.002, reconstruction_lr=0.003)
    assert rates == {"net": ("sgd", 0.3), "critic": ("adam", 0.002), "reconstructor": ("adam", 0.003)}


def test_the_reconstruction_network_is_as_wide_as_the_features_but_64_at_most() -> None:
    kind, task = find("cellseguda"), build("segmentation", ("a", "b", "c"))
    assert kind(network("segmentation"), task, plan()).reconstructor.head.in_channels == 12
    wide = networks.build("unet", classes=3, channels=1, size=32, width=80, depth=1)
    made = kind(wide, task, plan())
    assert made.reconstructor.head.in_channels == 64
    assert made.critic[0].in_channels == made.reconstructor.down[0][0].in_channels == 2
    assert kind(wide, task, plan(), width=8).reconstructor.head.in_channels == 8
