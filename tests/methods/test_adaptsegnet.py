"""AdaptSegNet's two updates against plain functions of the same batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from runs import network, plan, start
from torch import nn
from torch.nn import functional
from toys import SmallSegmenter

from acclimate.engine.update import Updater
from acclimate.errors import UsageError
from acclimate.methods import find
from acclimate.methods.base import Progress
from acclimate.networks.contract import Network
from acclimate.plan import Optimiser
from acclimate.tasks import build

bce = functional.binary_cross_entropy_with_logits


def tapped() -> Network:
    """The toy network with an inner activation from before its last BatchNorm."""
    torch.manual_seed(0)
    return Network(SmallSegmenter(), "head", input_shape=(1, 32, 32), taps=("body.6",))


def one_step(fraction: float = 0.5, **more: Any) -> tuple[Any, Any, Any, list[Any]]:
    """The method before its first step, the step's batches, and at each update: terms, players, the method's state."""
    caught: list[Any] = []
    updates: list[Any] = []
    kind = find("adaptsegnet")

    class Watched(kind):  # type: ignore[misc, valid-type]
        def step(self, source: Any, target: Any, at: Any) -> Any:
            caught.extend([copy.deepcopy(self), source, target])
            return super().step(source, target, Progress("adapt", round(100 * fraction), 100))

        def update(self, terms: Any, *players: str) -> None:
            values = {name: term.detach().clone() for name, term in terms.items()}
            updates.append((values, players, copy.deepcopy(self.state_dict())))
            super().update(terms, *players)

    last = start(Watched, how=plan(steps=1), **more).model.method.state_dict()
    return caught[0], caught[1], caught[2], [*updates, ({}, (), last)]


def expected(d: nn.Module, zs: Any, zt: Any, y: Any, w: float, form: str) -> tuple[Any, Any, Any]:
    """Supervised, adversarial and critic's terms of one level, with the labels of 1 for the source and 0 for the target."""
    ds, dt = d(zs.softmax(1)), d(zt.softmax(1))
    source, target = torch.ones_like(ds), torch.zeros_like(dt)
    loss = bce if form == "vanilla" else functional.mse_loss
    halved = (loss(ds, source) + loss(dt, target)) / 2
    values = functional.cross_entropy(zs, y, ignore_index=-1), w * loss(dt, torch.ones_like(dt)), halved
    return tuple(value.detach() for value in values)  # type: ignore[return-value]


@pytest.mark.parametrize(("form", "weight"), [("vanilla", 0.001), ("least-squares", 0.01)])
def test_one_level_minimises_the_terms_of_its_formula(form: str, weight: float) -> None:
    method, source, target, updates = one_step(form=form)
    zs, zt = (method.net(b.x).logits for b in (source, target))
    supervised, adversarial, critic = expected(method.critics[0], zs, zt, source.y, weight, form)
    assert [players for _, players, _ in updates] == [("net",), ("critic",), ()]
    torch.testing.assert_close(updates[0][0], {"supervised": supervised, "adversarial": adversarial})
    torch.testing.assert_close(updates[1][0], {"critic": critic})


def test_two_levels_add_a_classifier_and_a_critic_of_their_own() -> None:
    method, source, target, updates = one_step(
        net=tapped(), auxiliary="body.6", adversarial=0.3, auxiliary_supervised=0.4, auxiliary_adversarial=0.5
    )
    outs = [method.net(b.x) for b in (source, target)]
    zs, zt = (
        sum(
            functional.conv2d(functional.relu(out.taps["body.6"]), b.weight, b.bias, padding=d, dilation=d)
            for b, d in zip(method.auxiliary.branches, (6, 12, 18, 24), strict=True)
        )
        for out in outs
    )
    first = expected(method.critics[0], outs[0].logits, outs[1].logits, source.y, 0.3, "vanilla")
    second = expected(method.critics[1], zs, zt, source.y, 0.5, "vanilla")
    terms = {
        "supervised": first[0],
        "adversarial": first[1],
        "auxiliary supervised": 0.4 * second[0],
        "auxiliary adversarial": second[1],
    }
    assert [players for _, players, _ in updates] == [("net", "auxiliary"), ("critic",), ()]
    torch.testing.assert_close(updates[0][0], terms)
    torch.testing.assert_close(updates[1][0], {"critic": first[2], "auxiliary critic": second[2]})


def test_the_networks_update_moves_no_critic_and_the_critics_no_network() -> None:
    method, _, _, updates = one_step(net=tapped(), auxiliary="body.6")
    parameters = [name for name, _ in method.named_parameters()]
    states = [state for _, _, state in updates]

    def movers(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name in parameters if not torch.equal(a[name], b[name])}

    assert movers(states[0], states[1]) == {"net", "auxiliary"}
    assert movers(states[1], states[2]) == {"critics"}


def test_the_critics_loss_has_no_gradient_in_the_network_and_fooling_leaves_none_in_the_critic() -> None:
    """The critic's input is detached; after the network's update no critic holds a gradient of it."""
    kind, seen = find("adaptsegnet"), []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def update(self, terms: Any, *players: str) -> None:
            loss = sum(terms.values())
            found = torch.autograd.grad(loss, list(self.net.parameters()), retain_graph=True, allow_unused=True)
            seen.append(any(g is not None for g in found))
            super().update(terms, *players)
            if players == ("net",):
                assert all(p.grad is None or not p.grad.any() for p in self.critics.parameters())

    start(Watched, how=plan(steps=1))
    assert seen == [True, False]


def test_the_target_is_pushed_towards_what_the_critic_calls_source() -> None:
    """With a critic that likes the second class, the adversarial term alone makes the target's second class likelier."""
    kind = find("adaptsegnet")

    class Likes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, p: torch.Tensor) -> torch.Tensor:
            return self.scale * p[:, 1:]

    class Watched(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.critics = nn.ModuleList([Likes()])

        def update(self, terms: Any, *players: str) -> None:
            shares.append(self.net(self.x).logits.softmax(1)[:, 1].mean().item())
            terms = {name: term if "supervised" not in name else 0 * term for name, term in terms.items()}
            super().update(terms, *players)

        def step(self, source: Any, target: Any, at: Any) -> Any:
            self.x = target.x
            return super().step(source, target, at)

    for form in ("vanilla", "least-squares"):
        shares: list[float] = []
        start(Watched, how=plan(steps=1, optimiser=Optimiser(lr=0.1)), adversarial=1.0, form=form)
        assert shares[1] > shares[0] + 0.01


@pytest.mark.parametrize(("fraction", "share"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)])
def test_the_adversarial_weights_rise_over_the_warm_up(fraction: float, share: float) -> None:
    settings = {"net": tapped(), "auxiliary": "body.6"}
    with_, without = one_step(fraction, warmup=0.2, **settings), one_step(fraction, **settings)
    for name, value in without[3][0][0].items():
        factor = share if "adversarial" in name else 1.0
        torch.testing.assert_close(with_[3][0][0][name], factor * value)


def test_the_accuracy_of_a_critic_that_is_right_is_one_in_both_forms() -> None:
    """Answers of .9 and .1 are right where 1 and 0 are asked for, of 1 and -1 as logits."""

    class Knows(nn.Module):
        def __init__(self, high: float, low: float) -> None:
            super().__init__()
            self.answers, self.calls = nn.Parameter(torch.tensor([low, high, low])), 0

        def forward(self, p: torch.Tensor) -> torch.Tensor:  # asked for target, source, target
            self.calls += 1
            return self.answers[self.calls - 1] + 0 * p.sum()

    kind = find("adaptsegnet")
    for form, high, low in (("vanilla", 1.0, -1.0), ("least-squares", 0.9, 0.1)):

        class Watched(kind):  # type: ignore[misc, valid-type]
            def __init__(self, *arguments: Any, high: float = high, low: float = low, **settings: Any) -> None:
                super().__init__(*arguments, **settings)
                self.critics = nn.ModuleList([Knows(high, low)])

        assert start(Watched, how=plan(steps=1), form=form).history[-1]["critic accuracy"] == 1


def test_every_player_has_the_rate_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    update = Updater.update

    def watched(self: Updater, terms: Any, players: Any) -> None:
        found.update({name: o.settings for name, o in self.optimisers.items()})
        update(self, terms, players)

    monkeypatch.setattr(Updater, "update", watched)
    start("adaptsegnet", how=plan(steps=1, optimiser=None), net=tapped(), auxiliary="body.6")
    net = Optimiser(lr=2.5e-4, momentum=0.9, weight_decay=5e-4, schedule="poly")
    critic = Optimiser(kind="adam", lr=1e-4, betas=(0.9, 0.99), schedule="poly")
    assert found == {"net": net, "auxiliary": net, "critic": critic}


def test_a_tap_that_the_network_lacks_is_named() -> None:
    task = build("segmentation", ("a", "b"))
    with pytest.raises(UsageError, match=r"auxiliary='body\.5' is no tap.*did you mean 'body\.6'"):
        find("adaptsegnet")(tapped(), task, plan(), auxiliary="body.5")


def test_two_levels_predict_with_the_first_and_also_from_a_trained_network() -> None:
    trained = start("source-only", "segmentation", net=tapped()).model.method.net
    adapted = start("adaptsegnet", net=trained, auxiliary="body.6")
    method = adapted.model.method.eval()
    x = torch.zeros(1, 1, 32, 32)
    torch.testing.assert_close(method.predict(x), method.net(x).logits)
    assert {"critic accuracy", "auxiliary critic accuracy"} <= adapted.history[-1].keys()


def test_players_are_those_of_the_levels() -> None:
    task = build("segmentation", ("a", "b", "c"))
    one = find("adaptsegnet")(network("segmentation"), task, plan())
    assert list(one.players()) == ["net", "critic"]
    assert [critic[0].in_channels for critic in one.critics] == [3]
    two = find("adaptsegnet")(tapped(), task, plan(), auxiliary="body.6")
    assert list(two.players()) == ["net", "auxiliary", "critic"]
    assert [critic[0].in_channels for critic in two.critics] == [3, 3]
