"""DAN, Deep CORAL, MCD and ADDA: their terms from plain functions of the same batch, and who moves in which update."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from runs import differs, network, plan, start
from sklearn.metrics.pairwise import euclidean_distances
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from acclimate.errors import UsageError
from acclimate.methods import adda as adda_module
from acclimate.methods import find
from acclimate.methods.base import Progress
from acclimate.plan import Optimiser

ADAM = Optimiser(kind="adam", lr=1e-3, betas=(0.5, 0.999))


def spied(name: str, before: Callable[..., None], after: Callable[..., None] = lambda *_: None) -> Any:
    """The method, with calls ``before(method, terms, players)`` and ``after(...)`` around each of its updates."""

    class Spied(find(name)):  # type: ignore[misc, valid-type]
        def step(self, source: Any, target: Any, at: Progress) -> Any:
            self.batches = source, target
            return super().step(source, target, at)

        def update(self, terms: Any, *players: str) -> None:
            before(self, terms, players)
            super().update(terms, *players)
            after(self, terms, players)

    return Spied


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


# -- one loss ---------------------------------------------------------------------------------------------------------


def mmd(fs: Tensor, ft: Tensor, kernels: int) -> float:
    """From scikit-learn's distances, in float64."""
    both = torch.cat([fs, ft]).detach().double().numpy()
    squared = euclidean_distances(both, squared=True)
    mean = squared.sum() / (len(both) * (len(both) - 1))
    k = sum(np.exp(-squared / (mean * 2.0 ** (u - kernels // 2))) for u in range(kernels))
    n = len(fs)
    return float(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean())


def coral(fs: Tensor, ft: Tensor) -> float:
    cs, ct = (np.cov(f.detach().double().numpy(), rowvar=False) for f in (fs, ft))
    return float(((cs - ct) ** 2).sum() / (4 * fs.shape[1] ** 2))


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("dan", {}, lambda s, t: mmd(s.features, t.features, 5) + mmd(s.logits, t.logits, 5)),
        ("dan", {"kernels": 3, "layers": ("logits",)}, lambda s, t: mmd(s.logits, t.logits, 3)),
        ("deep-coral", {"layers": ("logits",)}, lambda s, t: coral(s.logits, t.logits)),
        ("deep-coral", {"layers": ("features",)}, lambda s, t: coral(s.features, t.features)),
        (
            "deep-coral",
            {"layers": ("features", "logits")},
            lambda s, t: coral(s.features, t.features) + coral(s.logits, t.logits),
        ),
    ],
)
@pytest.mark.parametrize("ramp", [True, False])
def test_aligned_methods_minimise_the_terms_of_their_formula(
    name: str, settings: Any, expected: Any, ramp: bool
) -> None:
    seen: list[Any] = []

    def before(method: Any, terms: Any, players: Any) -> None:
        net = copy.deepcopy(method.net)
        source, target = method.batches
        seen.append((terms["supervised"].item(), terms["gap"].item(), net(source.x), net(target.x), source.y, players))

    start(spied(name, before), how=plan(steps=4), weight=0.7, ramp=ramp, **settings)
    for k, (supervised, gap, s, t, y, players) in enumerate(seen):
        assert players == ("net",)
        assert supervised == pytest.approx(functional.cross_entropy(s.logits, y).item(), rel=1e-5)
        ramped = np.tanh(10 * (k / 4) / 2) if ramp else 1.0  # 2 / (1 + exp(-10 p)) - 1
        assert gap == pytest.approx(0.7 * ramped * expected(s, t), rel=1e-3, abs=1e-7)


# -- MCD --------------------------------------------------------------------------------------------------------------


def disagreement(zs: tuple[Tensor, Tensor]) -> float:
    one, two = (z.detach().double().numpy() for z in zs)
    one, two = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (one, two))
    return float(np.abs(one - two).mean())


def test_mcd_plays_a_b_and_four_times_c_with_the_terms_of_its_formula() -> None:
    played: list[tuple[str, ...]] = []

    def before(method: Any, terms: Any, players: Any) -> None:
        net, second = copy.deepcopy((method.net, method.second))
        source, target = method.batches
        s, t = net(source.x), net(target.x)
        zs, zt = ((out.logits, second(out.features)) for out in (s, t))
        supervised = sum(functional.cross_entropy(z, source.y).item() for z in zs)
        expected = {"supervised": supervised, "disagree": -0.5 * disagreement(zt), "agree": 0.5 * disagreement(zt)}
        assert {name: term.item() for name, term in terms.items()} == pytest.approx(
            {name: expected[name] for name in terms}, rel=1e-4
        )
        played.append((*players, *terms))

    start(spied("mcd", before), how=plan(steps=2), weight=0.5)
    step = [("features", "heads", "supervised"), ("heads", "supervised", "disagree"), *[("features", "agree")] * 4]
    assert played == 2 * step


def test_mcd_moves_only_heads_in_b_and_only_features_in_c() -> None:
    last: dict[str, Any] = {}
    seen = {"B": 0, "C": 0}

    def before(method: Any, terms: Any, players: Any) -> None:
        last.update(weights=weights(method), value=None)

    def after(method: Any, terms: Any, players: Any) -> None:
        moved = {name for name, p in weights(method).items() if not torch.equal(p, last["weights"][name])}
        heads = {name for name in last["weights"] if name.startswith(("net.module.fc.", "second."))}
        assert len(heads) == 4
        if players == ("heads",):
            assert moved == heads
            seen["B"] += 1
        elif players == ("features",):
            assert moved
            assert not moved & heads
            seen["C"] += 1

    start(spied("mcd", before, after), how=plan(steps=2), repeat=3)
    assert seen == {"B": 2, "C": 6}


def test_mcd_heads_raise_the_discrepancy_and_features_lower_it() -> None:
    """On the batch of the step, with small plain gradient steps."""

    def value(method: Any) -> float:
        net, second = copy.deepcopy((method.net, method.second))
        out = net(method.batches[1].x)
        return disagreement((out.logits, second(out.features)))

    last: dict[str, float] = {}
    changes: dict[tuple[str, ...], list[float]] = {}

    def before(method: Any, terms: Any, players: Any) -> None:
        last["value"] = value(method)

    def after(method: Any, terms: Any, players: Any) -> None:
        changes.setdefault(players, []).append(value(method) - last["value"])

    # So heavy a weight that the supervised term of B does not matter.
    start(spied("mcd", before, after), how=plan(steps=1, optimiser=Optimiser(lr=1e-6, momentum=0)), weight=1e3)
    assert min(changes["heads",]) > 0
    assert max(changes["features",]) < 0


@pytest.mark.parametrize("norm", ["target", "source", "separate", "frozen"])
def test_mcd_moves_running_statistics_once_a_step_as_its_policy_says(norm: str) -> None:
    expected: dict[str, Tensor] = {}

    def before(method: Any, terms: Any, players: Any) -> None:
        if players == ("heads",):  # the weights that B's passes saw
            conv = method.net.module.body[0]
            ms, mt = (conv(batch.x).mean((0, 2, 3)).detach() for batch in method.batches)
            zero = torch.zeros_like(ms)
            expected["mean"] = {
                "target": 0.1 * mt, "source": 0.1 * ms, "separate": 0.9 * 0.1 * ms + 0.1 * mt, "frozen": zero
            }[norm]  # fmt: skip

    run = start(spied("mcd", before), how=plan(steps=1), norm=norm)
    assert_close(run.model.method.net.module.body[1].running_mean, expected["mean"])


def test_mcd_predicts_with_both_heads_or_with_the_networks_own() -> None:
    x = torch.randn(5, 3, 16, 16)
    for ensemble in (True, False):
        method = start("mcd", ensemble=ensemble).model.method
        out = method.net(x)
        second = functional.linear(out.features, method.second.weight, method.second.bias)
        assert differs({"z": out.logits}, {"z": second})
        assert_close(method.predict(x), (out.logits + second) / 2 if ensemble else out.logits)


# -- ADDA -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["logits", "features"])
def test_adda_minimises_the_terms_of_its_formula_critic_first(layer: str) -> None:
    played: list[tuple[str, ...]] = []

    def before(method: Any, terms: Any, players: Any) -> None:
        net, source_net, critic = copy.deepcopy((method.net, method.source_net, method.critic))
        source, target = method.batches
        fs, ft = (getattr(out, layer) for out in (source_net(source.x), net(target.x)))
        ds, dt = critic(fs), critic(ft)
        ones, zeros = torch.ones(len(fs), 1), torch.zeros(len(fs), 1)
        bce = functional.binary_cross_entropy_with_logits
        if players == ("critic",):
            expected = bce(torch.cat([ds, dt]), torch.cat([ones, zeros]))
        else:
            expected = bce(dt, ones)
        (value,) = terms.values()
        assert value.item() == pytest.approx(expected.item(), rel=1e-4)
        played.append((*players, *terms))

    start(spied("adda", before), how=plan(steps=3), layer=layer)
    assert played == 3 * [("critic", "domain"), ("features", "adversarial")]


@pytest.mark.parametrize("settings", [{}, {"norm": "frozen"}, {"layer": "features"}, {"threshold": 0.5}], ids=str)
def test_adda_moves_the_body_and_never_the_head_or_the_source_network(settings: Any) -> None:
    fresh = network("classification")
    with torch.no_grad():  # statistics of a source unlike those a fresh network has
        fresh.module.body[1].running_mean.add_(0.3)
    method = start("adda", net=fresh, **settings).model.method
    assert not differs(fresh.state_dict() | tracked(method.source_net), method.source_net.state_dict())
    before, after = fresh.state_dict(), method.net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("fc." in name for name in changed)
    assert {name for name, _ in fresh.named_parameters() if "fc." not in name} <= changed
    moved = {name for name in changed if "running" in name}
    assert bool(moved) == (settings.get("norm") != "frozen")


def tracked(net: nn.Module) -> dict[str, Tensor]:
    """Counters of batches, which say nothing where the momentum is a number."""
    return {name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}


def test_adda_starts_as_the_source_network_and_shows_the_critic_logits_alike() -> None:
    """The same image through both networks gives the same logits while nothing has moved: only the domain differs."""
    met: list[Tensor] = []

    class Same(find("adda")):  # type: ignore[misc, valid-type]
        def step(self, source: Any, target: Any, at: Progress) -> Any:
            hook = self.critic.register_forward_hook(lambda module, args, output: met.append(args[0].detach().clone()))
            found = super().step(source, source, at)
            hook.remove()
            return found

    for settings in ({}, {"norm": "frozen"}):
        met.clear()
        start(Same, how=plan(steps=1), **settings)
        assert_close(met[0], met[1])


def test_adda_threshold_decides_whether_the_body_learns() -> None:
    fresh = network("classification")
    how = plan(optimiser=ADAM)
    always, low, high = (
        start("adda", net=fresh, how=how, norm="frozen", threshold=t).model.method.net for t in (None, 0.0, 0.999999)
    )
    assert not differs(always.state_dict(), low.state_dict())  # a critic that is right at least once
    assert not differs(weights(fresh), weights(high))
    assert differs(weights(fresh), weights(always))


def test_adda_below_its_threshold_still_has_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the card says: the gate closes the gradient, not Adam's memory of it."""
    accuracies = iter([1.0, 0.0, 0.0])
    monkeypatch.setattr(adda_module, "domain_accuracy", lambda ds, dt: torch.tensor(next(accuracies)))
    moves: list[float] = []
    last: dict[str, Any] = {}

    def before(method: Any, terms: Any, players: Any) -> None:
        last.update(weights(method.net))
        if players == ("features",):
            assert (terms["adversarial"].item() == 0) == bool(moves)

    def after(method: Any, terms: Any, players: Any) -> None:
        if players == ("features",):
            moves.append(sum((p - last[name]).abs().sum().item() for name, p in weights(method.net).items()))

    start(spied("adda", before, after), how=plan(steps=3, optimiser=ADAM), threshold=0.6)
    assert moves[0] > moves[1] > moves[2] > 0


def test_adda_critic_has_its_own_optimiser() -> None:
    (stage,) = start("adda", critic_lr=3e-4).model.method.stages()
    assert stage.optimisers == {"critic": Optimiser(kind="adam", lr=3e-4, betas=(0.5, 0.999))}


def test_a_layer_that_is_not_there_is_refused() -> None:
    for name, settings in (("dan", {"layers": ()}), ("deep-coral", {"layers": ("fc",)}), ("adda", {"layer": "fc"})):
        with pytest.raises(UsageError, match="layer"):
            start(name, **settings)
