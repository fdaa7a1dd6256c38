"""Gaussian and general activation matching as runs, against closed forms, AdaBN and plain functions of PyTorch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs import Killed, assert_same, network, on_tick, plan, small, start, state
from torch import Tensor, nn
from torch.nn import functional

from acclimate import networks
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.adapt import Adapted
from acclimate.engine.model import Model
from acclimate.engine.update import Updater
from acclimate.errors import UsageError
from acclimate.methods import find
from acclimate.methods.base import Progress, Sweep, Train
from acclimate.networks import norm
from acclimate.networks.contract import Network


def lenet(dropout: float = 0.0, kind: str = "none") -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return networks.build("lenet", classes=3, channels=1, size=16, dropout=dropout, norm=kind)


def pair() -> tuple[Domain, Domain]:
    """Source images with even values; the target shows the same images at half the contrast, and brighter."""
    rng = np.random.default_rng(0)
    images = (2 * rng.integers(0, 128, (30, 16, 16))).astype(np.uint8)
    source = Domain(
        "source", "classification", ("a", "b", "c"), images, rng.integers(0, 3, 30), list(map(str, range(30)))
    )
    return source, dataclasses.replace(source, name="target", images=(images // 2 + 90).astype(np.uint8))


def run(name: str = "gim", **more: Any) -> Adapted:
    preprocess = Preprocess(size=(16, 16), channels=1)
    return start(name, **{"net": lenet(), "pair": pair(), "preprocess": preprocess, "how": plan(steps=3), **more})


def pixels(domain: Domain) -> Tensor:
    return torch.from_numpy(np.asarray(domain.images))[:, None] / 127.5 - 1


def activations(net: nn.Module, x: Tensor, layer: str) -> np.ndarray:
    """A layer's output as ``(C, values)``."""
    kept: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda module, args, out: kept.append(out))
    with torch.no_grad():
        net.eval()(x)
    handle.remove()
    return kept[0].double().movedim(1, 0).flatten(1).numpy()


# -- Gaussian ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["exact", "cumulative"])
def test_gim_undoes_a_change_of_contrast_and_brightness(mode: str) -> None:
    """The first layer's channels are then an affine map of what they were, so the match is the whole truth."""
    source, target = pair()
    net = run(mode=mode).model.method.net
    with torch.no_grad():
        wanted, moved, found = (
            n.eval()(x).logits for n, x in ((lenet(), pixels(source)), (lenet(), pixels(target)), (net, pixels(target)))
        )
    assert (moved - wanted).abs().max() > 0.05
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-4)


def test_gim_gives_every_layer_the_moments_of_the_source() -> None:
    """With batches of another kind of image, where no closed form is at hand."""
    source, target = small("classification")[:2]
    xs, xt = (torch.from_numpy(np.asarray(d.images)).permute(0, 3, 1, 2) / 127.5 - 1 for d in (source, target))
    before, after = network("classification", norm=False), start("gim", net=network("classification", norm=False))
    for layer in ("module.body.0", "module.body.3"):
        wanted, found = activations(before, xs, layer), activations(after.model.method.net, xt, layer)
        assert np.abs(activations(before, xt, layer).mean(1) - wanted.mean(1)).max() > 0.1
        np.testing.assert_allclose(found.mean(1), wanted.mean(1), atol=1e-4)
        np.testing.assert_allclose(found.std(1), wanted.std(1), rtol=1e-3)
    assert torch.equal(before.head.weight, after.model.method.net.head.weight)  # the layer of the logits


def test_gim_is_exact_adabn_on_a_network_with_batch_norm() -> None:
    source = small("segmentation")[0]
    net = network("segmentation")
    norm.restat(net, [torch.from_numpy(np.asarray(source.images)).permute(0, 3, 1, 2) / 127.5 - 1], mode="exact")
    wanted = start("adabn", "segmentation", net=net, mode="exact").model.method.net.state_dict()
    for name, value in start("gim", "segmentation", net=net).model.method.net.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)


def test_gim_sweeps_the_target_once_for_each_layer() -> None:
    def sweeps(**settings: Any) -> list[tuple[str, ...]]:
        return [stage.streams for stage in run(**settings).model.method.stages() if isinstance(stage, Sweep)]

    assert sweeps() == [("source",), ("target",), ("target",), ("target",)]
    assert sweeps(layers=("body.0",)) == [("source",), ("target",), ("target",)]
    assert sweeps(mode="cumulative") == [("source",), ("target",)]


@pytest.mark.parametrize("tick", [0, 1, 2, 3])
def test_gim_resumes_in_any_sweep_where_weights_carry_the_match(tick: int, tmp_path: Path) -> None:
    def interrupt(now: int) -> None:
        if now == tick:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, interrupt)
        with contextlib.suppress(Killed):
            run(folder=tmp_path)
    assert_same(state(run(folder=tmp_path)), state(run()))


def test_gim_adds_nothing_to_the_network(tmp_path: Path) -> None:
    """A fresh network with its weights, and a loaded model, predict what it predicts: no hook, no layer, no buffer."""
    model = run().model
    model.save(tmp_path)
    fresh = lenet()
    fresh.load_state_dict(model.method.net.state_dict())
    x = pixels(pair()[1])
    with torch.no_grad():
        wanted = model.method.predict(x)
        for again in (fresh.eval(), copy.deepcopy(model.method.net), Model.load(tmp_path).method.net):
            torch.testing.assert_close(again(x).logits, wanted, rtol=1e-5, atol=1e-6)


def test_gim_reports_how_far_the_first_layer_was_off() -> None:
    source, target = pair()
    row = run().model.method.report()[0]
    s, t = (activations(lenet(), pixels(d), "module.body.0.0") for d in (source, target))
    assert row["layer"] == "module.body.0.0"
    assert row["mean shift"] == pytest.approx((np.abs(s.mean(1) - t.mean(1)) / s.std(1)).mean(), rel=1e-3)
    assert row["spread"] == pytest.approx(0.5, rel=1e-2)  # half the contrast


# -- general ----------------------------------------------------------------------------------------------------------


def first_step(**settings: Any) -> tuple[list[Any], list[tuple[dict[str, Tensor], tuple[str, ...]]]]:
    """The method before its first step with that step's batches, and the terms and players of its two updates."""
    caught: list[Any] = []
    updates: list[Any] = []

    class Watched(find("gam")):  # type: ignore[misc]
        def step(self, source: Any, target: Any, at: Progress) -> Any:
            caught.extend([copy.deepcopy(self), source, target])
            return super().step(source, target, at)

    def catch(self: Updater, terms: Any, players: Any) -> None:
        updates.append((dict(terms), tuple(players)))  # no weight moves, so both updates see the same critics
        if len(updates) == 2:
            raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Updater, "update", catch)
        with pytest.raises(StopIteration):
            run(Watched, **settings)
    return caught, updates


@pytest.mark.parametrize("form", ["vanilla", "least-squares"])
def test_gam_minimises_the_terms_of_its_formula(form: str) -> None:
    (method, source, target), updates = first_step(form=form, critics={"logits": 0.7, "features": 0.2}, drift=3.0)
    loss = functional.binary_cross_entropy_with_logits if form == "vanilla" else functional.mse_loss
    fs, ft = method.source_net(source.x), method.net(target.x)
    domain = adversarial = torch.zeros(())
    for judge, weight, s, t in (
        (method.critics[0], 0.7, fs.logits, ft.logits),
        (method.critics[1], 0.2, fs.features, ft.features),
    ):
        ds, dt = judge(s), judge(t)
        domain = domain + weight * (loss(ds, torch.ones_like(ds)) + loss(dt, torch.zeros_like(dt))) / 2
        adversarial = adversarial + weight * loss(dt, torch.ones_like(dt))
    (first, critics), (second, net) = updates
    assert (critics, net) == (("critics",), ("net",))
    torch.testing.assert_close(first["domain"], domain)
    torch.testing.assert_close(second["adversarial"], adversarial)
    assert second["drift"].item() == 0  # from the matched weights


def test_gam_starts_from_the_match_and_compares_with_the_network_that_came() -> None:
    (method, _, _), _ = first_step()
    assert_same(method.source_net.state_dict(), lenet().state_dict())
    matched = run().model.method.net.state_dict()
    assert_same(method.net.state_dict(), matched)
    assert_same(method.matched_net.state_dict(), matched)
    (method, _, _), _ = first_step(gim=False)
    assert_same(method.net.state_dict(), lenet().state_dict())


def test_gam_leaves_source_network_and_match_alone() -> None:
    method = run("gam", how=plan(steps=5)).model.method
    assert_same(method.source_net.state_dict(), lenet().state_dict())
    assert_same(method.matched_net.state_dict(), run().model.method.net.state_dict())
    assert any(not torch.equal(a, b) for a, b in zip(method.net.parameters(), method.matched_net.parameters()))


def test_gam_trains_the_network_as_it_predicts() -> None:
    """Without dropout, which the source network would not have, and with the matched statistics unless told otherwise."""
    for policy, moves in (("frozen", False), ("target", True)):
        net = lenet(dropout=0.5, kind="batch")
        method = run("gam", net=net, norm=policy).model.method
        method.train()
        dropouts = [module for module in method.net.modules() if isinstance(module, (nn.Dropout, nn.Dropout2d))]
        assert dropouts
        assert not any(module.training for module in dropouts)
        now, then = norm.statistics(method.net), norm.statistics(method.matched_net)
        assert moves == any(not torch.equal(now[name].mean, then[name].mean) for name in now)


def test_gam_plays_vanilla_for_images_and_least_squares_for_pixels() -> None:
    assert run("gam").model.method.form == "vanilla"
    assert run("gam", form="least-squares").model.method.form == "least-squares"
    method = start("gam", "segmentation").model.method
    assert method.form == "least-squares"
    assert [judge(torch.zeros(2, n, 5, 5)).shape for judge, n in zip(method.critics, (12, 2))] == [(2, 1, 5, 5)] * 2


def test_gam_puts_critics_at_taps() -> None:
    net = network("classification")
    tapped = Network(net.module, head="fc", input_shape=net.input_shape, taps=("body.3",))
    method = start("gam", net=tapped, critics={"body.3": 1.0}).model.method
    assert method.critics[0][0].weight.shape[1:] == (16, 1, 1)
    with pytest.raises(UsageError, match=r"logit'.*did you mean 'logits'"):
        start("gam", critics={"logit": 1.0})


@pytest.mark.parametrize(("form", "says", "right"), [("least-squares", (0.7, 0.3), 1.0), ("vanilla", (0.7, 0.3), 0.5)])
def test_gam_counts_a_least_squares_critic_right_from_one_half_on(
    form: str, says: tuple[float, float], right: float
) -> None:
    class Critic(nn.Module):
        """Says one thing of the source, another of the target, which is the second to come."""

        def __init__(self) -> None:
            super().__init__()
            self.answers = [*says, says[1]]

        def forward(self, a: Tensor) -> Tensor:
            return torch.full((len(a), 1), self.answers.pop(0))

    method: Any = run("gam", form=form).model.method
    method.critics = nn.ModuleList([Critic(), Critic()])
    x = pixels(pair()[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "update", lambda self, terms, *players: None)
        batch = SimpleNamespace(x=x)
        assert method.step(batch, batch, Progress("adapt", 0, 1))["critic accuracy"].item() == right


def test_gam_trains_after_all_matching() -> None:
    stages = run("gam", how=plan(steps=3)).model.method.stages()
    kinds = [type(stage) for stage in stages]
    assert kinds == [Sweep] * (len(stages) - 1) + [Train]
    assert len(run("gam", gim=False).model.method.stages()) == 1
