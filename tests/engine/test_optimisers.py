"""Fused optimisers on channels-last weights equal plain ones; schedules, groups and averages equal values by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from games import Supervised, Teacher
from runs import assert_same, differs, network, on_tick, plan, start, state
from torch import nn

from acclimate.engine.optimisers import PlayerOptimiser, factor, groups, lr_scales, make
from acclimate.engine.run import move_average
from acclimate.engine.update import Updater
from acclimate.engine.world import World
from acclimate.errors import UsageError
from acclimate.methods import Average, Train
from acclimate.plan import Optimiser

KINDS: dict[str, tuple[Optimiser, Any]] = {
    "sgd": (
        Optimiser(lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, fused=False, foreach=False),
    ),
    "adam": (Optimiser(kind="adam", lr=0.1), lambda p: torch.optim.Adam(p, lr=0.1, fused=False, foreach=False)),
    "adamw": (
        Optimiser(kind="adamw", lr=0.1, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, fused=False, foreach=False),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reload", [False, True], ids=["straight", "resumed"])
def test_fused_channels_last_equals_plain_contiguous(kind: str, reload: bool) -> None:
    """Gradients arrive contiguous: a fused optimiser that walks raw memory would permute them silently."""
    settings, plain = KINDS[kind]
    torch.manual_seed(0)
    reference = nn.Parameter(torch.randn(6, 4, 3, 3))
    weight = nn.Parameter(reference.detach().clone().contiguous(memory_format=torch.channels_last))
    assert weight.stride() != reference.stride()
    theirs = plain([reference])
    updater = Updater(torch.device("cpu"), World(), None, False)
    updater.optimisers = {"net": PlayerOptimiser([weight], settings)}
    for step in range(6):
        direction = torch.randn(6, 4, 3, 3)
        if reload and step == 3:  # as a checkpoint keeps it: contiguous
            saved = {name: value.clone().contiguous() for name, value in updater.optimisers["net"].state().items()}
            updater.optimisers = {"net": PlayerOptimiser([weight], settings)}
            updater.optimisers["net"].load(saved)
        reference.grad = direction
        theirs.step()
        updater.begin(step)
        updater.update({"loss": (weight.contiguous() * direction).sum()}, ["net"])
    torch.testing.assert_close(weight.detach(), reference.detach(), rtol=1e-5, atol=1e-6)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_gradient_takes_the_strides_of_its_parameter() -> None:
    weight = nn.Parameter(torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    weight.grad = (direction := torch.randn(6, 4, 3, 3)).clone()
    (gradient,) = Updater(torch.device("cpu"), World(), None, False)._gradients([weight])
    assert gradient.stride() == weight.stride() != direction.stride()
    assert torch.equal(gradient, direction)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_run_equals_contiguous_run(kind: str) -> None:
    runs = [
        state(start(Supervised, how=plan(steps=4, channels_last=last, optimiser=KINDS[kind][0].replace(lr=0.001))))
        for last in (True, False)
    ]
    for name in runs[0]:
        torch.testing.assert_close(runs[0][name], runs[1][name], rtol=1e-3, atol=2e-4)


def test_saved_state_of_other_parameters_is_refused() -> None:
    one, two = (PlayerOptimiser(nn.Linear(2, n), Optimiser(momentum=m)) for n, m in ((2, 0.9), (2, 0.0)))
    with pytest.raises(UsageError, match="other entries"):
        two.load(one.state())


# -- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "fraction", "value"),
    [
        ("constant", 0.7, 1.0),
        ("dann", 0.0, 1.0),
        ("dann", 0.5, 6**-0.75),
        ("dann", 1.0, 11**-0.75),
        ("poly", 0.0, 1.0),
        ("poly", 0.5, 0.5**0.9),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1 / 3, 0.75),
    ],
)
def test_schedule_has_the_value_of_its_formula(schedule: str, fraction: float, value: float) -> None:
    assert factor(Optimiser(schedule=schedule), fraction) == pytest.approx(value, rel=1e-12)  # type: ignore[arg-type]


def test_warmup_rises_linearly_from_zero() -> None:
    settings = Optimiser(warmup=0.2)
    assert [factor(settings, f) for f in (0.0, 0.05, 0.1, 0.2, 0.9)] == pytest.approx([0, 0.25, 0.5, 1, 1])


def test_schedule_follows_the_progress_of_the_stage() -> None:
    seen: list[float] = []

    class Watched(Supervised):
        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            seen.append(self.conductor.updater.optimisers["net"].optimiser.param_groups[0]["lr"])  # type: ignore
            return super().step(source, at)

    start(Watched, how=plan(steps=4, optimiser=Optimiser(lr=0.1, schedule="cosine")))
    assert seen == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


# -- players and stages -----------------------------------------------------------------------------------------------


def test_group_scales_its_learning_rate_through_the_schedule() -> None:
    body, head = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [body]}, {"params": [head], "lr_scale": 10.0, "weight_decay": 0.5}]
    optimiser = PlayerOptimiser(groups, Optimiser(lr=0.01, momentum=0.0, schedule="poly"))
    optimiser.schedule(0.5)
    body.grad, head.grad = torch.ones(2), torch.ones(2)
    optimiser.step(torch.zeros(()))
    rate = 0.01 * 0.5**0.9
    torch.testing.assert_close(body.detach(), torch.full((2,), 1 - rate))
    torch.testing.assert_close(head.detach(), torch.full((2,), 1 - 10 * rate * 1.5))


class Apart(Supervised):
    """Body and head as two players, one a list and one a module."""

    def players(self) -> dict[str, Any]:
        return {"features": self.net.body_parameters(), "head": self.net.head}

    def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
        self.update({"supervised": self.task.loss(self.net(source.x).logits, source.y)}, "features", "head")
        return {}


@pytest.mark.parametrize("game", [Supervised, Apart], ids=["one module", "a list and a module"])
def test_network_scales_the_rate_of_layers_trained_before_in_every_player(game: Any) -> None:
    how = plan(steps=1, optimiser=Optimiser(lr=0.1, momentum=0.0))
    before = network("classification").state_dict()
    moved = []
    for scales in ({}, {"body": 0.25}):
        net = network("classification")
        net.lr_scales = scales
        after = start(game, net=net, how=how).model.method.net.state_dict()
        moved.append({name: after[name] - before[name] for name, _ in net.named_parameters()})
    for name, whole in moved[0].items():
        scale = 0.25 if name.startswith("module.body") else 1.0
        torch.testing.assert_close(moved[1][name], scale * whole, rtol=1e-4, atol=1e-7)
        assert whole.any()


def test_a_group_s_own_scale_multiplies_the_network_s() -> None:
    net = network("classification")
    net.lr_scales = {"body.0": 0.5}
    first, *rest = net.body_parameters()
    given = [{"params": [first, rest[-1]], "lr_scale": 10.0, "weight_decay": 0.5}, {"params": rest[:-1]}]
    found = groups(given, lr_scales(nn.ModuleList([net])))
    assert [(len(g["params"]), g["lr_scale"], g.get("weight_decay")) for g in found] == [
        (1, 5.0, 0.5),
        (1, 10.0, 0.5),
        (1, 0.5, None),  # the bias of the first convolution
        (len(rest) - 2, 1.0, None),
    ]


def test_without_scales_a_player_is_one_group_in_its_own_order() -> None:
    net = network("classification")
    (group,) = groups(net, lr_scales(net))
    assert group["lr_scale"] == 1.0
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]


def test_stage_may_name_another_optimiser_for_a_player() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    made = make({"a": a, "b": b}, Optimiser(lr=0.1), {"b": Optimiser(kind="adam", lr=0.3)})
    assert isinstance(made["a"].optimiser, torch.optim.SGD)
    assert isinstance(made["b"].optimiser, torch.optim.Adam)
    assert (made["a"].settings.lr, made["b"].settings.lr) == (0.1, 0.3)
    with pytest.raises(UsageError, match="'c'"):
        make({"a": a}, Optimiser(), {"c": Optimiser()})


def test_stage_optimiser_counts_for_its_stage_only() -> None:
    kinds: list[str] = []

    class Two(Supervised):
        def stages(self) -> list[Train]:
            adam = {"net": Optimiser(kind="adam", lr=0.001)}
            return [Train("a", "step", ("source",), 2, optimisers=adam), Train("b", "step", ("source",), 2)]

        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            kinds.append(self.conductor.updater.optimisers["net"].settings.kind)  # type: ignore
            return super().step(source, at)

    start(Two)
    assert kinds == ["adam", "adam", "sgd", "sgd"]


def test_frozen_parameters_never_move() -> None:
    net = network("classification")
    net.head.requires_grad_(False)
    before = copy.deepcopy(net.head.state_dict())
    assert_same(start("source-only", net=net).model.method.net.head.state_dict(), before)


@pytest.mark.parametrize("continues", [False, True])
def test_stage_starts_with_fresh_momentum_unless_it_continues(continues: bool) -> None:
    seen: list[bool] = []

    class Watched(Teacher):
        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            if at.step == 0:
                found = self.conductor.updater.optimisers["net"].state()  # type: ignore[union-attr]
                seen.append(any(value.any() for value in found.values()))
            return super().step(source, at)

    start(Watched, continues=continues)
    assert seen == [False, continues]


# -- averages ---------------------------------------------------------------------------------------------------------


def test_average_has_the_value_of_its_formula() -> None:
    of, into = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        of.weight.fill_(3.0)
        into.weight.fill_(1.0)
        of.running_mean.fill_(7.0)  # type: ignore[union-attr]
    move_average(of, into, 0.9, torch.zeros(()))
    torch.testing.assert_close(into.weight.detach(), torch.full((2,), 0.9 * 1 + 0.1 * 3))
    assert torch.equal(into.running_mean, of.running_mean)  # type: ignore[arg-type]
    move_average(of, into, 0.9, torch.ones(()))
    torch.testing.assert_close(into.weight.detach(), torch.full((2,), 1.2))


def test_average_follows_each_step_of_a_run() -> None:
    trail: list[dict[str, torch.Tensor]] = []

    class Watched(Teacher):
        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            trail.append({n: p.detach().clone() for n, p in self.net.named_parameters()})
            return super().step(source, at)

        def reset(self) -> None:
            trail.append({n: p.detach().clone() for n, p in self.net.named_parameters()})
            self.at_reset = {n: p.clone() for n, p in self.teacher.named_parameters()}

    method = start(Watched, how=plan(steps=3)).model.method
    mean = trail[0]
    for value in trail[1:4]:  # after each of three steps
        mean = {name: 0.5 * mean[name] + 0.5 * value[name] for name in mean}
    for name, value in method.at_reset.items():
        torch.testing.assert_close(value, mean[name])


def test_sweep_may_start_a_student_anew() -> None:
    class Reset(Teacher):
        def stages(self) -> Any:
            return super().stages()[:2]

    method = start(Reset).model.method
    assert_same(method.teacher.state_dict(), method.net.state_dict())
    assert differs(method.net.state_dict(), network("classification").state_dict())


# -- compilation ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["self-training"])
def test_compiled_network_learns_the_same(name: str) -> None:
    """Sweeps that re-estimate statistics are part of it."""
    eager, compiled = (
        start(name, how=plan(steps=4, compile=flag, optimiser=Optimiser(lr=0.005))) for flag in (False, True)
    )
    for key, value in state(eager).items():
        if value.is_floating_point():
            torch.testing.assert_close(state(compiled)[key], value, rtol=1e-4, atol=1e-5)


def test_tick_helper_counts_updates_and_swept_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[int] = []
    on_tick(monkeypatch, ticks.append)
    start("self-training", how=plan(steps=3))
    assert ticks == list(range(1 + 3 * (1 + 1)))


def test_ramped_average_is_a_plain_mean_until_it_is_longer_than_its_decay() -> None:
    weights: list[torch.Tensor] = []

    class Ramped(Teacher):
        def stages(self) -> list[Train]:
            return [Train("one", "step", ("source",), 5)]

        def averages(self) -> list[Average]:
            return [Average(self.net, self.teacher, 0.7, ramp=True)]

        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            weights.append(next(self.net.parameters()).detach().clone())
            return super().step(source, at)

    ended = start(Ramped).model.method
    weights.append(next(ended.net.parameters()).detach())
    mean = torch.stack(weights[:3]).mean(0)  # 1 - 1 / 4 is above .7: from the third step on the decay counts
    for after in weights[3:]:
        mean = 0.7 * mean + 0.3 * after
    torch.testing.assert_close(next(ended.teacher.parameters()).detach(), mean)
