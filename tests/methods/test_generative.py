"""Label2Image-DA and 3C-GAN: each update against plain functions of the same batch and the same noise."""

from __future__ import annotations

import copy
import functools
import itertools
import shutil
from pathlib import Path
from typing import Any

import folders
import pytest
import torch
import toys
from runs import assert_same, differs, network, plan, small, start
from torch import Tensor
from torch.nn import functional

from acclimate import Model, adapt, networks, open_folder
from acclimate.engine.update import Updater
from acclimate.losses import virtual_adversarial
from acclimate.methods import Train, find
from acclimate.networks.norm import batch_norms
from acclimate.plan import Optimiser
from acclimate.tasks import build

BOTH = pytest.mark.parametrize("name", ["label2image-da", "3c-gan"])
bce = functional.binary_cross_entropy_with_logits


class Caught:
    """A stage's step as it ran: the method and the random numbers before it, its batches, and each of its updates."""

    def __init__(self) -> None:
        self.method: Any = None
        self.random: Tensor
        self.batches: dict[str, Any] = {}
        self.updates: list[tuple[dict[str, Tensor], tuple[str, ...], dict[str, Tensor]]] = []

    def after(self, updates: int) -> Any:
        """A copy of the method as it stood after so many of the step's updates."""
        moved = copy.deepcopy(self.method)
        moved.load_state_dict(self.updates[updates][2])
        return moved

    def drawn(self) -> tuple[Tensor, Tensor]:
        """What the generator drew, from the same numbers, which go on from there."""
        torch.set_rng_state(self.random)
        y = torch.randint(3, (len(self.batches["target"].x),))
        return copy.deepcopy(self.method).generator(y), y


def caught(name: str, step: str, at: int = 0, **more: Any) -> Caught:
    """Number ``at`` of the calls of the method's function ``step``; the last entry of ``updates`` is the state after it."""
    found, kind, calls = Caught(), find(name), iter(range(1000))
    function = getattr(kind, step)

    @functools.wraps(function)
    def watched(self: Any, **given: Any) -> Any:
        if next(calls) != at:
            return function(self, **given)
        found.random, found.method = torch.get_rng_state(), copy.deepcopy(self)
        found.batches = {stream: batch for stream, batch in given.items() if stream != "at"}
        function(self, **given)
        found.updates.append(({}, (), copy.deepcopy(self.state_dict())))
        raise StopIteration

    def update(self: Any, terms: Any, *players: str) -> None:
        if found.method is not None:
            values = {term: value.detach().clone() for term, value in terms.items()}
            found.updates.append((values, players, copy.deepcopy(self.state_dict())))
        kind.update(self, terms, *players)

    with pytest.raises(StopIteration):
        start(type("Watched", (kind,), {step: watched, "update": update}), **more)
    return found


def movers(found: Caught) -> list[set[str]]:
    """The parts of the method whose parameters each update of a step moves."""
    names = [name for name, _ in found.method.named_parameters()]
    states = [state for _, _, state in found.updates]
    return [
        {name.split(".")[0] for name in names if not torch.equal(a[name], b[name])}
        for a, b in itertools.pairwise(states)
    ]


# -- the game of critic and generator ---------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("step", ["draw", "adapt"])
def test_critic_and_generator_minimise_their_formulas(name: str, step: str) -> None:
    found = caught(name, step, semantic=0.3)
    x, y = found.drawn()
    real, fake = found.method.critic(torch.cat([found.batches["target"].x, x])).chunk(2)
    expected = (bce(real, torch.ones(8, 1)) + bce(fake, torch.zeros(8, 1))) / 2
    assert found.updates[0][:2] == ({"critic": pytest.approx(expected.item(), rel=1e-5)}, ("critic",))
    moved = found.after(1).eval()  # the estimates of spectral norms are those that the critic's call has just refined
    judged = moved.net(x).logits
    assert found.updates[1][1] == ("generator",)
    torch.testing.assert_close(
        found.updates[1][0],
        {
            "adversarial": bce(moved.critic(x), torch.ones(8, 1)).detach(),
            "semantic": 0.3 * functional.cross_entropy(judged, y).detach(),
        },
    )


@BOTH
def test_only_the_named_one_moves_in_each_update(name: str) -> None:
    assert movers(caught(name, "draw")) == [{"critic"}, {"generator"}]
    assert movers(caught(name, "adapt", at=1)) == [{"critic"}, {"generator"}, {"net"}]


@BOTH
def test_the_judge_teaches_the_generator_but_rests(name: str) -> None:
    """In the second phase the classifier stays bit for bit as it is, and what it says reaches the generator."""
    found = caught(name, "draw")
    assert_same(
        {k: v for k, v in found.updates[-1][2].items() if k.startswith("net.")},
        {k: v for k, v in found.method.state_dict().items() if k.startswith("net.")},
    )
    deaf = caught(name, "draw", semantic=0.0)
    assert_same(deaf.method.state_dict(), found.method.state_dict())
    assert differs(
        *({k: v for k, v in one.updates[-1][2].items() if k.startswith("generator")} for one in (deaf, found))
    )


@BOTH
def test_critic_and_generator_have_adam_with_rates_of_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, Any] = {}
    update = Updater.update

    def watched(self: Updater, terms: Any, players: Any) -> None:
        rates.update(
            {player: (o.settings.kind, o.optimiser.param_groups[0]["lr"]) for player, o in self.optimisers.items()}
        )
        update(self, terms, players)

    monkeypatch.setattr(Updater, "update", watched)
    start(name, how=plan(steps=3, optimiser=None))
    assert rates == {"net": ("adam", 1e-3), "generator": ("adam", 1e-3), "critic": ("adam", 1e-3)}
    start(name, how=plan(steps=3, optimiser=Optimiser(lr=0.3)), critic_lr=0.002, generator_lr=0.003)
    assert rates == {"net": ("sgd", 0.3), "generator": ("adam", 0.003), "critic": ("adam", 0.002)}


@BOTH
def test_works_without_batch_norm_and_then_sweeps_nothing(name: str) -> None:
    method = start(name, net=network("classification", norm=False)).model.method
    assert all(isinstance(stage, Train) for stage in method.stages())
    assert not batch_norms(method.net)


@BOTH
def test_stages_share_the_steps_and_none_is_empty(name: str) -> None:
    task = build("classification", small("classification")[0].classes)
    for steps in (3, 10, 77, 1000):
        stages = find(name)(network("classification"), task, plan(steps=steps), **toys.SETTINGS[name]).stages()
        counts = [stage.steps for stage in stages if isinstance(stage, Train)]
        assert sum(counts) == steps
        assert min(counts) >= 1


# -- BatchNorm --------------------------------------------------------------------------------------------------------


@BOTH
def test_only_real_target_images_move_the_running_statistics(name: str) -> None:
    """After a step: 0.9 of what was, 0.1 of the moments of the target's batch; of no source image, of no drawn one."""
    found = caught(name, "adapt", at=1)
    net, x = found.method.net, found.batches["target"].x
    conv, norm = net.module.body[:2]
    z = conv(x).transpose(0, 1).flatten(1)
    after = found.updates[-1][2]
    torch.testing.assert_close(after["net.module.body.1.running_mean"], 0.9 * norm.running_mean + 0.1 * z.mean(1))
    torch.testing.assert_close(after["net.module.body.1.running_var"], 0.9 * norm.running_var + 0.1 * z.var(1))


@BOTH
def test_the_judge_has_the_statistics_of_the_target_before_it_first_judges(name: str) -> None:
    found = caught(name, "draw")
    conv, norm = found.method.net.module.body[:2]
    images = torch.as_tensor(small("classification")[1].images).permute(0, 3, 1, 2) / 127.5 - 1
    z = conv(images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, z.mean(1), rtol=1e-3, atol=1e-4)
    if name == "3c-gan":
        assert_same(found.method.net.state_dict(), found.method.source_net.state_dict())
    without = caught(name, "draw", restat=False).method.net.module.body[1]
    assert not torch.allclose(without.running_mean, z.mean(1), rtol=1e-2, atol=1e-2)


def test_the_judge_has_dropout_but_no_statistics_of_the_batch() -> None:
    net, modes = network("classification"), []
    net.module.register_forward_pre_hook(lambda module, _: modes.append((module.training, module.body[1].training)))
    caught("3c-gan", "draw", at=2, net=net)
    assert modes[-3:] == [(True, False)] * 3


# -- 3C-GAN -----------------------------------------------------------------------------------------------------------


def test_three_c_gan_minimises_its_formula_without_the_source() -> None:
    """In the third step of the second stage, of five: the ramp stands at 1/2 = (2/5) / 0.8."""
    found = caught("3c-gan", "adapt", at=2, generated=0.5, drift=0.01, cluster=0.2, ramp=0.8, radius=1.5, begin=0.45)
    assert set(found.batches) == {"target"}
    terms, players, _ = found.updates[2]
    assert players == ("net",)
    x, y = found.drawn()
    method, xt = found.method, found.batches["target"].x
    net = copy.deepcopy(method.net).train()
    t = net(xt).logits
    p = t.softmax(1)
    squares = [(a - b).square().sum() for a, b in zip(method.net.parameters(), method.source_net.parameters())]
    expected = {
        "generated": 0.5 * 0.5 * functional.cross_entropy(net(x).logits, y),
        "drift": 0.01 * sum(squares),
        "entropy": 0.5 * 0.2 * -(p * p.log()).sum(1).mean(),
        "smoothness": 0.5 * 0.2 * virtual_adversarial(lambda x: net(x).logits, xt, t, 1.5),
    }
    torch.testing.assert_close(terms, {term: value.detach() for term, value in expected.items()})
    assert terms["drift"] > 0


def test_the_source_model_is_kept_as_it_was() -> None:
    """Its weights are those given; its statistics those of the target, which nothing moves while it is asked."""
    net = network("classification")
    found = caught("3c-gan", "adapt", at=2, net=net)
    assert not any(module.training for module in found.method.source_net.modules())
    kept = found.after(-1).source_net
    assert_same(kept.state_dict(), caught("3c-gan", "draw", net=net).method.source_net.state_dict())
    for mine, theirs in zip(kept.parameters(), net.parameters()):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad


def test_three_c_gan_runs_from_files_where_the_source_is_gone(tmp_path: Path) -> None:
    """Source-only is trained on a folder and saved; the folder is deleted; the model and a folder of images remain."""
    source = folders.classes(tmp_path / "source", 45)
    net = networks.build("dann-mnist", classes=3, channels=3, size=28, norm="batch")
    short = plan(steps=12, optimiser=Optimiser(lr=0.02))
    adapt(net, open_folder(source), None, "source-only", plan=short, device="cpu").model.save(tmp_path / "model")
    shutil.rmtree(source)

    loaded = Model.load(tmp_path / "model").method
    target = open_folder(folders.plain(tmp_path / "target", 20))
    more = toys.SETTINGS["3c-gan"]
    run = adapt(loaded.net, None, target, "3c-gan", plan=short, task=loaded.task, device="cpu", **more)
    run.model.save(tmp_path / "adapted")
    assert differs(run.model.method.net.state_dict(), loaded.net.state_dict())

    again = Model.load(tmp_path / "adapted")
    assert_same(again.method.state_dict(), run.model.method.state_dict())
    ((_, one),), ((_, two),) = ([*model.logits(target)] for model in (run.model, again))
    torch.testing.assert_close(one, two)
    y = torch.tensor([0, 1, 2])
    images = []
    for model in (run.model, again):
        torch.manual_seed(0)
        images.append(model.method.generate(y))
    assert torch.equal(*images)


# -- Label2Image-DA ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regulariser", ["none", "entropy", "vat", "entropy+vat"])
def test_label2image_minimises_its_formula(regulariser: str) -> None:
    more = {"generated": 0.7, "regularisation": 0.2, "radius": 1.5, "regulariser": regulariser}
    found = caught("label2image-da", "adapt", **more)
    terms, players, _ = found.updates[2]
    assert players == ("net",)
    x, y = found.drawn()
    net, (source, target) = copy.deepcopy(found.method.net).train(), (found.batches[n] for n in ("source", "target"))
    t = net(target.x).logits
    expected = {
        "supervised": functional.cross_entropy(net(source.x).logits, source.y),
        "generated": 0.7 * functional.cross_entropy(net(x).logits, y),
    }
    if "entropy" in regulariser:
        expected["entropy"] = 0.2 * -(t.softmax(1) * t.log_softmax(1)).sum(1).mean()
    if "vat" in regulariser:
        expected["smoothness"] = 0.2 * virtual_adversarial(lambda x: net(x).logits, target.x, t, 1.5)
    torch.testing.assert_close(terms, {term: value.detach() for term, value in expected.items()})


def test_label2image_begins_as_source_only() -> None:
    """Its first phase ends with the weights that source-only has after as many steps."""
    found = caught("label2image-da", "draw", how=plan(steps=20), phases=(0.3, 0.4, 0.3), restat=False)
    method = start("source-only", how=plan(steps=6)).model.method
    learnt = dict(found.method.net.named_parameters())
    for name, value in method.net.named_parameters():
        torch.testing.assert_close(learnt[name], value)


# -- what they draw ---------------------------------------------------------------------------------------------------


@BOTH
def test_draws_images_of_labels_as_the_network_takes_them(name: str) -> None:
    model = start(name).model
    before = copy.deepcopy(model.method.state_dict())
    y = torch.arange(3).repeat(4)
    torch.manual_seed(7)
    images = model.method.generate(y)
    torch.manual_seed(7)
    assert torch.equal(model.method.generate(y), images)
    assert not torch.equal(model.method.generate(y), images)
    assert images.shape == (12, 3, toys.SIDE, toys.SIDE)
    assert not images.requires_grad
    assert images.min() >= -1
    assert images.max() <= 1
    assert_same(before, model.method.state_dict())
    torch.manual_seed(7)
    model.method.train()
    assert torch.equal(model.method.generate(y), images)  # never with the statistics of a batch
    assert_same(before, model.method.state_dict())
