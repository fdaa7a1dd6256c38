"""MIC against plain functions of PyTorch: its terms, its teacher, and who moves the statistics."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from runs import differs, network, plan, small, start
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from acclimate.engine.adapt import Adapted
from acclimate.engine.update import Updater
from acclimate.errors import UsageError
from acclimate.methods import find
from acclimate.methods.base import Train
from acclimate.networks.contract import Network
from acclimate.networks.norm import restat
from acclimate.plan import Optimiser

MIC = find("mic")
SETTINGS = {"block": 4, "threshold": 0.6, "decay": 0.9}


class Step:
    """What the last step of a run began with, what it updated, and what it left."""

    before: Any
    after: Any
    batches: dict[str, Any]
    random: Tensor
    terms: dict[str, Tensor]
    found: dict[str, Tensor]


def last(patch: pytest.MonkeyPatch, steps: int = 1, **settings: Any) -> Step:
    """The last of ``steps`` steps; ``after`` is before the teacher moves."""
    seen = Step()
    step, update = MIC.step, Updater.update

    def caught(self: Updater, terms: Any, players: Any) -> None:
        seen.terms = {term: value.detach().clone() for term, value in terms.items()}
        update(self, terms, players)

    @functools.wraps(step)
    def watched(self: Any, at: Any, **batches: Any) -> Any:
        conductor, self.conductor = self.conductor, None
        seen.before, seen.batches, seen.random = copy.deepcopy(self), batches, torch.get_rng_state()
        self.conductor = conductor
        seen.found = step(self, **batches, at=at)
        self.conductor = None
        seen.after = copy.deepcopy(self)
        self.conductor = conductor
        return seen.found

    with patch.context() as here:
        here.setattr(Updater, "update", caught)
        here.setattr(MIC, "step", watched)
        run(steps=steps, **settings)
    return seen


def run(steps: int = 1, net: Network | None = None, **settings: Any) -> Adapted:
    return start(MIC, how=plan(steps=steps), net=net or network("segmentation"), **{**SETTINGS, **settings})


def moments(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items() if "running" in name}


def taught(seen: Step, threshold: float) -> tuple[Tensor, float]:
    """The teacher's labels of the weak target images, each normalised by their batch, and q."""
    teacher = copy.deepcopy(seen.before.teacher)
    teacher.train()
    p = teacher(seen.batches["target"].x).logits.detach().softmax(1)
    return p.argmax(1), (p.max(1).values >= threshold).double().mean().item()


def drawn(seen: Step, classes: int, blocks: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The step's random numbers in their order: one for each class of an image, then one for each block."""
    torch.set_rng_state(seen.random)
    n = len(seen.batches["source"].x)
    return torch.rand(n, classes), torch.rand(n, 1, *blocks)


@pytest.mark.parametrize("steps", [1, 4])
def test_terms_are_those_of_the_formula(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = last(monkeypatch, steps, masked=0.5)
    source, target = seen.batches["source"], seen.batches["target"]
    label, q = taught(seen, 0.6)
    assert 0 < q < 1
    assert_close(seen.found["sure"].item(), q, rtol=1e-5, atol=0)
    scores, blocks = drawn(seen, 2, (4, 4))

    x, y, w = target.views["strong"].clone(), label.clone(), torch.full(label.shape, q)
    for i, score in enumerate(scores):
        present = source.y[i].unique().tolist()
        order = sorted(present, key=lambda c: score[c])
        for c in order[: (len(order) + len(order) % 2) // 2]:
            here = source.y[i] == c
            x[i][:, here] = source.views["strong"][i][:, here]
            y[i][here], w[i][here] = c, 1.0
    hidden = target.views["strong"] * (blocks >= 0.7).float().repeat_interleave(4, 2).repeat_interleave(4, 3)

    net = copy.deepcopy(seen.before.net)
    net.train()
    each = functional.cross_entropy(net(x).logits, y, reduction="none")
    assert seen.terms.keys() == {"supervised", "mixed", "masked"}
    assert_close(seen.terms["supervised"], functional.cross_entropy(net(source.x).logits, source.y))
    assert_close(seen.terms["mixed"], (each * w).mean())
    assert_close(seen.terms["masked"], 0.5 * q * functional.cross_entropy(net(hidden).logits, label))


def test_views_differ_in_colour_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pseudo-label of the weak view holds for the strong one, pixel by pixel."""
    seen = last(monkeypatch)
    for batch in seen.batches.values():
        weak, strong = batch.x, batch.views["strong"]
        assert not torch.equal(weak, strong)
        a, b = ((v - v.mean((1, 2, 3), keepdim=True)).flatten(1) for v in (weak, strong))
        assert (functional.cosine_similarity(a, b) > 0.8).all()


@pytest.mark.parametrize(
    ("settings", "terms"),
    [({"masked": 0}, {"supervised", "mixed"}), ({"mix": False}, {"supervised", "masked"})],
)
def test_each_half_can_be_left_out(settings: dict[str, Any], terms: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert last(monkeypatch, **settings).terms.keys() == terms


def test_without_both_halves_it_is_refused() -> None:
    with pytest.raises(UsageError, match="source-only; set mix=True"):
        run(mix=False, masked=0)


# -- the teacher ------------------------------------------------------------------------------------------------------


def test_teacher_starts_as_the_given_network_and_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = last(monkeypatch)
    start_, end = seen.before, run().model.method
    for w0, w1, mean in zip(start_.net.parameters(), end.net.parameters(), end.teacher.parameters()):
        assert_close(mean, 0.5 * w0 + 0.5 * w1)  # decay .9, but at first a plain mean
    for w0, mean in zip(start_.net.parameters(), start_.teacher.parameters()):
        assert torch.equal(w0, mean)


def test_teacher_has_no_statistics_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its passes move nothing; what it holds is a copy of the student's."""
    seen = last(monkeypatch, 5)
    assert not differs(moments(seen.after.teacher), moments(seen.before.teacher))
    assert not differs(moments(seen.before.teacher), moments(seen.before.net))
    assert differs(moments(seen.after.net), moments(seen.before.net))


def test_teacher_and_only_the_teacher_rests_its_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    torch.manual_seed(0)
    seen = last(monkeypatch, net=Network(Dropping(), head="head", input_shape=(1, 16, 16)))
    modes = [
        {type(m).__name__: m.training for m in net.modules() if isinstance(m, nn.Dropout | nn.BatchNorm2d)}
        for net in (seen.before.net, seen.before.teacher)
    ]
    assert modes == [{"BatchNorm2d": True, "Dropout": True}, {"BatchNorm2d": True, "Dropout": False}]


def test_the_student_predicts() -> None:
    adapted = run(3).model.method
    x = torch.randn(2, 1, 32, 32)
    adapted.eval()
    assert torch.equal(adapted.predict(x), adapted.net(x).logits)
    assert not torch.equal(adapted.predict(x), adapted.teacher(x).logits)


# -- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "passes"), [("target", (1, 2)), ("separate", (0, 1, 2)), ("frozen", ())])
def test_policy_says_which_passes_move_the_running_statistics(
    norm: str, passes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[Tensor] = []
    forward = Network.forward

    def noted(self: Network, x: Tensor) -> Any:
        if any(p.requires_grad for p in self.parameters()) and torch.is_grad_enabled():
            inputs.append(x.detach().clone())
        return forward(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "forward", noted)
        seen = last(monkeypatch, norm=norm, restat=False)
    assert len(inputs) == 3  # source, mixed, masked
    assert torch.equal(inputs[0], seen.batches["source"].x)
    expected = copy.deepcopy(seen.before.net)
    for number in passes:
        expected(inputs[number])
    assert_close(moments(seen.after.net), moments(expected))


def test_last_pass_re_estimates_the_statistics_on_the_target() -> None:
    with_it, without = run(3).model.method.net, run(3, restat=False).model.method.net
    assert all(torch.equal(a, b) for a, b in zip(with_it.parameters(), without.parameters()))
    assert differs(moments(with_it), moments(without))
    target = torch.stack([torch.from_numpy(image) for image in small("segmentation")[1].images])
    restat(without, [target.movedim(-1, 1) / 127.5 - 1])
    assert_close(moments(with_it), moments(without))


def test_frozen_statistics_stay_those_of_the_given_network() -> None:
    """Also those that the teacher uses, whose labels then are predictions."""
    net = network("segmentation")
    given = moments(net)
    ended = run(3, net=net, norm="frozen").model.method
    assert not differs(given, moments(ended.net))
    assert not differs(given, moments(ended.teacher))
    ended.train()
    assert not any(m.training for m in ended.teacher.modules() if isinstance(m, nn.BatchNorm2d))


# -- its stage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "classes"), [(0.01, {"source": 0.01}), (None, {})])
def test_rare_classes_of_the_source_are_sampled(temperature: float | None, classes: dict[str, float]) -> None:
    stages = run(rare_class_temperature=temperature).model.method.stages()
    assert [stage.rare_classes for stage in stages if isinstance(stage, Train)] == [classes]


def test_default_optimiser_is_the_papers() -> None:
    assert MIC.optimiser == Optimiser(
        kind="adamw", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01, schedule="poly", warmup=1500 / 40000
    )
