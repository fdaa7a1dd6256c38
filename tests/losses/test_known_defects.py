"""Defects that other libraries have had, each shown to be one, and that nothing here has it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from runs import METHODS, Killed, plan, small, start
from torch import Tensor, nn
from torch.testing import assert_close

from acclimate import networks, registry
from acclimate.errors import UsageError
from acclimate.losses import (
    classifier_discrepancy,
    coral,
    critic_loss,
    cross_entropy,
    dann_ramp,
    divergence,
    domain_accuracy,
    domain_cross_entropy,
    entropy,
    fooling_loss,
    marginal_entropy,
    soft_dice,
)
from acclimate.methods import find
from acclimate.methods.base import Progress, Train
from acclimate.networks.critics import critic

# -- 1. a softmax over one unit is 1 whatever the unit says, so its gradient is 0 -----------------------------------------


def gradients(judge: nn.Module, x: Tensor) -> list[float]:
    """Of the features, for each loss that a critic or its opponent descends here."""
    norms = []
    for loss in (
        lambda d: domain_cross_entropy(d, torch.zeros_like(d)),
        lambda d: domain_cross_entropy(torch.zeros_like(d), d),
        fooling_loss,
    ):
        x = x.detach().clone().requires_grad_()
        norms.append(torch.autograd.grad(loss(judge(x)), x)[0].norm().item())
    return norms


def is_critic(name: str) -> bool:
    """``critic``, ``image_critic``, ``critics.0``; not a layer inside one."""
    return re.fullmatch(r"\w*critic|\w*critics\.\w+", name) is not None


@functools.cache
def judged(name: str) -> dict[str, tuple[tuple[int, ...], list[float]]]:
    """By critic of a registered method: the shape that it gives, and the gradients of what it is shown in a run."""
    found: dict[str, tuple[tuple[int, ...], list[float]]] = {}

    class Watched(find(name)):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            for child, module in self.named_modules():
                if is_critic(child):
                    module.register_forward_hook(functools.partial(look, child))

    def look(child: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if child not in found and len(given) == 1 and isinstance(output, Tensor):
            found[child] = tuple(output.shape), []  # first, because the module is called again
            with torch.enable_grad():
                found[child] = tuple(output.shape), gradients(module, given[0].float())

    start(Watched, how=plan(steps=3))
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_critic_gives_one_logit_that_features_can_learn_from(name: str) -> None:
    for child, (shape, norms) in judged(name).items():
        assert shape[1] == 1, f"{child} gives {shape}"
        assert all(norm > 0 for norm in norms), child


def test_critics_are_found_and_a_softmax_over_one_unit_would_be() -> None:
    assert {"dann", "adda"} <= {name for name in METHODS if judged(name)}
    sound = critic((6,), (5,))
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    assert min(gradients(sound, x)) > 0
    assert max(gradients(nn.Sequential(*sound, nn.Softmax(1)), x)) == 0


# -- 2. (N,) against (N, 1) broadcasts to (N, N) --------------------------------------------------------------------------


def test_the_shape_of_critic_outputs_and_labels_changes_no_value() -> None:
    n = 7
    a, b = (torch.randn(n, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    for loss in (
        domain_cross_entropy,
        domain_accuracy,
        critic_loss,
        functools.partial(critic_loss, form="least-squares"),
    ):
        values = [loss(x, y) for x in (a, a[:, None]) for y in (b, b[:, None])]
        for value in values:
            assert value.shape == ()
            assert_close(value, values[0])
    assert_close(fooling_loss(a[:, None]), fooling_loss(a))
    zs = torch.randn(n, 3)
    ys = torch.tensor([0, 1, 2, 1, -1, 0, 2])
    assert_close(cross_entropy(zs, ys[:, None]), cross_entropy(zs, ys))
    ps = torch.rand(n, 1, 4, 4)
    masks = torch.randint(-1, 2, (n, 4, 4))
    assert_close(soft_dice(ps, masks[:, None]), soft_dice(ps, masks))


def test_losses_of_two_tensors_refuse_shapes_that_would_broadcast() -> None:
    z = torch.randn(7, 3)
    for loss in (classifier_discrepancy, coral):
        with pytest.raises(UsageError):
            loss(z, z[:, :1])
        with pytest.raises(UsageError):
            loss(z[:, 0], z[:, :1])


def test_a_task_gives_one_loss_for_labels_of_either_shape() -> None:
    from acclimate.tasks import build

    task, zs, ys = build("classification", ["a", "b", "c"]), torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    assert_close(task.loss(zs, ys[:, None]), task.loss(zs, ys))
    by_hand = -sum(zs[i].log_softmax(0)[y] for i, y in enumerate(ys)) / 5
    assert_close(task.loss(zs, ys), by_hand)


# -- 3. CORAL that is not the CORAL of the paper --------------------------------------------------------------------------


def test_coral_is_the_squared_frobenius_norm_over_four_d_squared() -> None:
    """Not its root, not a mean over entries, not divided by n, not of uncentred activations."""
    rng = np.random.default_rng(0)
    fs, ft = rng.normal(1, 1, (6, 3)), rng.normal(-2, 3, (9, 3))
    cs, ct = np.cov(fs, rowvar=False), np.cov(ft, rowvar=False)
    paper = ((cs - ct) ** 2).sum() / (4 * 3**2)
    wrong = {
        "root": np.sqrt(((cs - ct) ** 2).sum()) / (4 * 3**2),
        "mean": ((cs - ct) ** 2).mean(),
        "by n": ((np.cov(fs, rowvar=False, bias=True) - np.cov(ft, rowvar=False, bias=True)) ** 2).sum() / 36,
        "not centred": ((fs.T @ fs / 5 - ft.T @ ft / 8) ** 2).sum() / 36,
        "means too": paper + ((fs.mean(0) - ft.mean(0)) ** 2).mean(),
    }
    found = coral(torch.from_numpy(fs), torch.from_numpy(ft)).item()
    assert found == pytest.approx(paper, rel=1e-10)
    assert all(abs(found - other) > 0.05 * paper for other in wrong.values())


# -- 4. a ramp that counts epochs, or to a constant, or from the start of a sitting ---------------------------------------

RAMPED = [name for name in METHODS if any(hasattr(sys.modules[k.__module__], "dann_ramp") for k in find(name).__mro__)]


def ramped(name: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[float]:
    """What each call of the ramp was given."""
    given: list[float] = []

    def spy(fraction: float, *rest: float) -> float:
        given.append(fraction)
        return dann_ramp(fraction, *rest)

    with monkeypatch.context() as patch:
        for kind in find(name).__mro__:
            if hasattr(sys.modules[kind.__module__], "dann_ramp"):
                patch.setattr(sys.modules[kind.__module__], "dann_ramp", spy)
        with contextlib.suppress(Killed):
            start(name, **more, **switched_on(name))
    return given


def switched_on(name: str) -> dict[str, bool]:
    return {"ramp": True} if "ramp" in find(name).Settings.model_fields else {}


def of_stages(name: str, how: Any) -> list[list[float]]:
    """k / steps for every step k, for each training stage."""
    stages = start(name, how=how, **switched_on(name)).model.method.stages()
    return [[k / stage.steps for k in range(stage.steps)] for stage in stages if isinstance(stage, Train)]


def test_ramps_are_found() -> None:
    assert {"dann", "dan", "deep-coral"} <= set(RAMPED)


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_ramp_of_dann_follows_the_steps_of_the_stage(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ramped("dann", monkeypatch, how=plan(steps=steps))
    assert given == [k / steps for k in range(steps)]


@pytest.mark.parametrize("name", RAMPED)
def test_ramp_does_not_depend_on_data_or_logging(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A longer source, a shorter target, other batches and other intervals: the same numbers."""
    task = find(name).card.tasks[0]
    source, target, _ = small(task)
    longer = toys.PAIRS[task](count=2 * len(source))[0]
    whole = of_stages(name, plan(steps=6))
    runs = (
        {"how": plan(steps=6)},
        {"how": plan(steps=6, log_every=1)},
        {"how": plan(steps=6, batch=12)},
        {"how": plan(steps=6, log_every=2, save_every=2), "folder": tmp_path},
        {"how": plan(steps=6), "pair": (longer, target.subset(range(10)))},
    )
    given = [ramped(name, monkeypatch, **more) for more in runs]
    assert all(other == given[0] for other in given)
    assert any(set(stage) <= set(given[0]) for stage in whole)
    assert set(given[0]) <= {fraction for stage in whole for fraction in stage}


def test_ramp_goes_on_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = plan(steps=9, save_every=2)
    kind = find("dann")
    original = kind.step

    def killed(self: Any, source: Any, target: Any, at: Progress) -> Any:
        if at.step == 5:
            raise Killed
        return original(self, source, target, at)

    monkeypatch.setattr(kind, "step", functools.wraps(original)(killed))
    first = ramped("dann", monkeypatch, how=how, folder=tmp_path)
    monkeypatch.setattr(kind, "step", original)
    second = ramped("dann", monkeypatch, how=how, folder=tmp_path)
    assert first == [k / 9 for k in range(5)]
    assert second == [k / 9 for k in range(4, 9)]  # from the checkpoint after step 4


@pytest.mark.parametrize("steps", [200, 8_600, 10_000, 1_000_000])
def test_ramp_ends_near_one_whatever_the_number_of_steps(steps: int) -> None:
    """A ramp to a constant 10,000 would end 8,600 steps at 0.9996; one of 200 at 0.1."""
    assert dann_ramp(Progress("adapt", steps - 1, steps).fraction) > 0.9999
    assert dann_ramp(1.0) > 0.9999
    assert dann_ramp(Progress("adapt", 0, steps).fraction) == 0


# -- 5. a softmax of a softmax --------------------------------------------------------------------------------------------


def test_losses_of_logits_take_one_softmax() -> None:
    """Against probabilities computed with math alone; a second softmax would give other values."""
    zs = [[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]]
    ps = [[math.exp(z) / sum(math.exp(other) for other in row) for z in row] for row in zs]
    x = torch.tensor(zs)
    assert cross_entropy(x, torch.tensor([0, 2])).item() == pytest.approx(
        -(math.log(ps[0][0]) + math.log(ps[1][2])) / 2
    )
    assert entropy(x).item() == pytest.approx(-sum(p * math.log(p) for row in ps for p in row) / 2)
    mean = [(a + b) / 2 for a, b in zip(*ps)]
    assert marginal_entropy(x).item() == pytest.approx(-sum(p * math.log(p) for p in mean))
    kl = sum(p * math.log(p / q) for p, q in zip(*ps))
    assert divergence(x[:1], x[1:]).item() == pytest.approx(kl)
    assert classifier_discrepancy(x[:1], x[1:]).item() == pytest.approx(sum(abs(p - q) for p, q in zip(*ps)) / 3)
    s, t = (1 / (1 + math.exp(-z)) for z in (1.5, -0.5))
    assert domain_cross_entropy(torch.tensor([1.5]), torch.tensor([-0.5])).item() == pytest.approx(
        -(math.log(s) + math.log(1 - t)) / 2
    )
    assert fooling_loss(torch.tensor([-0.5])).item() == pytest.approx(-math.log(t))
    twice = cross_entropy(x.softmax(1), torch.tensor([0, 2])).item()
    assert abs(twice - cross_entropy(x, torch.tensor([0, 2])).item()) > 0.1


def classifiers() -> list[str]:
    """Registered networks for classification that can be built without a file or a connection."""
    factories = {name: registry.load("networks", name) for name in registry.names("networks")}
    return [
        name
        for name, factory in factories.items()
        if factory.card.task == "classification" and "download" not in inspect.signature(factory).parameters
    ]


@pytest.mark.parametrize("name", classifiers())
def test_heads_of_classifiers_give_logits(name: str) -> None:
    """Neither a softmax (positive, of sum 1), nor its logarithm (whose exponentials have the sum 1)."""
    pretrained = "pretrained" in inspect.signature(registry.load("networks", name)).parameters
    torch.manual_seed(0)
    try:
        net = networks.build(name, classes=5, **({"pretrained": False} if pretrained else {}))
    except UsageError as error:
        pytest.skip(str(error))  # an extra that is not installed
    with torch.no_grad():
        logits = net.eval()(3 * torch.randn(4, *net.input_shape)).logits
    assert (logits < 0).any()
    assert ((logits.sum(1) - 1).abs() > 1e-3).all()
    assert (logits.logsumexp(1).abs() > 1e-3).all()
