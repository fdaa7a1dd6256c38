"""The class-wise memory bank against values computed apart from it."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from typing import Any

import pytest
import torch
from runs import assert_same, differs, few, network, plan, small, start
from torch import Tensor
from torch.nn import functional

from acclimate.engine.adapt import adapt
from acclimate.errors import UsageError
from acclimate.methods import Train, find
from acclimate.methods.base import Progress
from acclimate.networks.norm import held
from acclimate.networks.teacher import Teacher

BANK, FEW = find("memory-bank"), find("memory-bank-few")


def first(kind: Any, fraction: float, stage: str = "adapt", **settings: Any) -> tuple[Any, dict[str, Any], Any]:
    """The first step of a run, told that it stands at ``fraction``: the method before it, its batches, its update."""
    seen: list[Any] = []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def learn(self, *arguments: Any) -> Any:
            torch.manual_seed(5)
            return super().learn(*arguments[:-1], Progress(stage, round(1000 * fraction), 1000))

        def update(self, terms: Any, *players: str) -> None:
            seen.append((players, {name: term.detach().clone() for name, term in terms.items()}))
            raise StopIteration

    original = Watched.step

    def step(self: Any, at: Any, **batches: Any) -> Any:
        seen.extend([copy.deepcopy(self, {id(self.conductor): None}), batches])
        return original(self, **batches, at=at)

    step.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    Watched.step = step  # type: ignore[assignment]
    with pytest.raises(StopIteration):
        start(Watched, **settings)
    return seen[0], seen[1], seen[2]


def weighted(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (functional.cross_entropy(logits, labels, reduction="none") * weights).mean()


@pytest.mark.parametrize(("fraction", "t"), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.8, 1.0)])
def test_terms_are_those_of_the_formula(fraction: float, t: float) -> None:
    method, batches, (players, terms) = first(BANK, fraction, "fill", ramp=0.1)
    assert players == ("net",)
    source, target = batches["source"], batches["target"]
    teacher = copy.deepcopy(method.net)  # equal at the first step
    with torch.no_grad():
        p, y = teacher(target.x).logits.softmax(1).max(1)
        s, strong = method.net(source.x).logits, method.net(target.views["strong"]).logits
    torch.testing.assert_close(terms["supervised"], functional.cross_entropy(s, source.y, ignore_index=-1))
    torch.testing.assert_close(terms["pseudo-label"], math.exp(-5 * (1 - t) ** 2) * weighted(strong, y, p**6))
    entropy = torch.distributions.Categorical(probs=strong.softmax(1).movedim(1, -1)).entropy().mean()
    torch.testing.assert_close(terms["entropy"], 0.01 * entropy / math.log(2))


@pytest.mark.parametrize("kind", [BANK, FEW])
def test_contrast_pulls_all_pixels_to_what_the_memory_holds(kind: Any) -> None:
    """With samples for every pixel nothing is left to chance: the mean of all pairs of a class, weighted by attention."""
    method, batches, (players, terms) = first(kind, 0.5, samples=10_000, size=4, images=4, contrast=0.7)
    assert players == ("net", "heads")
    bank, net, target = method.bank, method.net, batches["target"]
    known = batches["labelled" if kind is FEW else "source"]
    with torch.no_grad():
        memory: list[list[Tensor]] = [[], []]
        sources = [(known.x, known.y)] if kind is FEW else [(known.x, known.y), (target.x, None)]
        for x, y in sources:
            out = net(x)
            sure, label = out.logits.softmax(1).max(1)
            y = label if y is None else y
            z = bank.projection(out.features.movedim(1, -1))
            for n in range(len(x)):
                for c in range(2):
                    mine = z[n][(label[n] == c) & (y[n] == c) & (sure[n] > 0.5)]
                    if len(mine):
                        memory[c].append(mine[bank.memory_attention.scores[c](mine)[:, 0].argmax()])
        strong = target.views["strong"]
        label = net(target.x).logits.argmax(1)
        if kind is FEW:
            out = net(torch.cat([known.x, strong])).features
            pairs = [(out[: len(known.x)], known.y), (out[len(known.x) :], label)]
        else:
            pairs = [(net(known.x).features, known.y), (net(strong).features, label)]
        expected = 0.0
        for features, labels in pairs:
            p = bank.predictor(bank.projection(features.movedim(1, -1)))
            for c in range(2):
                kept = torch.stack(memory[c])[: 4 if kind is FEW else None]
                held_now = _first_in_first_out(memory[c], len(known.x), 4) if kind is BANK else kept[:4]
                mine = p[labels == c]
                s_p = bank.attention.scores[c](mine)
                s_z = bank.memory_attention.scores[c](held_now)
                distances = 1 - functional.normalize(mine) @ functional.normalize(held_now).T
                weights = (len(mine) * s_p / s_p.sum()) @ (len(held_now) * s_z / s_z.sum()).T
                expected += float((weights * distances).mean()) / 2
    assert terms["contrast"].item() == pytest.approx(0.7 * expected, rel=1e-4)


def _first_in_first_out(vectors: list[Tensor], source_images: int, size: int) -> Tensor:
    """Two insertions, of which each puts in its first ``size`` at most."""
    return torch.stack([*vectors[:source_images][:size], *vectors[source_images:][:size]][-size:])


def test_memory_fills_before_the_contrast_begins_and_is_empty_at_the_end() -> None:
    terms: list[tuple[str, set[str], float]] = []

    class Watched(BANK):  # type: ignore[misc, valid-type]
        def learn(self, *arguments: Any) -> Any:
            self.stage = arguments[-1].stage
            return super().learn(*arguments)

        def update(self, found: Any, *players: str) -> None:
            terms.append((self.stage, set(found), float(self.bank.memory.there.float().mean())))
            super().update(found, *players)

    method = start(Watched, how=plan(steps=10), ramp=0.3, size=40).model.method
    assert [stage for stage, _, _ in terms] == ["fill"] * 3 + ["adapt"] * 7
    assert all(("contrast" in found) == (stage == "adapt") for stage, found, _ in terms)
    assert terms[3][2] > 0
    assert not method.bank.memory.vectors.any()
    assert not method.bank.memory.there.any()


@pytest.mark.parametrize("steps", [1, 2, 9, 100])
def test_stages_share_one_schedule(steps: int) -> None:
    made = BANK(network("segmentation"), start("source-only", "segmentation").model.method.task, plan(steps=steps))
    train = [stage for stage in made.stages() if isinstance(stage, Train)]
    assert sum(stage.steps for stage in train) == steps
    assert train[0].part[0] == 0
    assert train[-1].part[1] == 1
    assert all(a.part[1] == b.part[0] for a, b in itertools.pairwise(train))


def test_a_network_that_is_never_sure_leaves_the_memory_empty_and_is_warned_of() -> None:
    run = start(BANK, confidence=0.999)
    assert "lower confidence" in run.warnings[0]
    assert all(row.get("contrast", 0.0) == 0 for row in run.history)


def test_the_few_labels_alone_fill_the_memory_in_their_paper() -> None:
    """Without labels that count on the labelled images nothing enters, whatever source and target show."""
    target = small("segmentation")[1]
    nothing = few(target)
    blank = type(nothing)(**{**vars(nothing), "labels": [label * 0 - 1 for label in nothing.labels]})  # type: ignore[union-attr]
    run = start(FEW, labelled=blank, how=plan(log_every=1))
    assert all(row["memory"] == 0 for row in run.history)
    assert any(row["memory"] > 0 for row in start(FEW, how=plan(log_every=1)).history)


def test_few_labels_are_asked_for() -> None:
    source, target, _ = small("segmentation")
    with pytest.raises(UsageError, match="labelled"):
        adapt(network("segmentation"), source, target, "memory-bank-few", plan=plan(), device="cpu")


def floating(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point()}


def test_teacher_rests_but_for_the_average_and_leaves_statistics() -> None:
    teacher = Teacher(network("segmentation"))
    teacher.train()
    before = copy.deepcopy(floating(teacher))
    x = torch.randn(3, 1, 16, 16)
    out, label, sure = teacher(x)
    assert_same(floating(teacher), before)
    net = network("segmentation")
    with held(net):
        expected = net(x).logits
    torch.testing.assert_close(out.logits, expected)
    torch.testing.assert_close(sure, expected.softmax(1).amax(1))
    assert torch.equal(label, expected.argmax(1))
    assert not out.logits.requires_grad
    frozen = Teacher(network("segmentation"), frozen=True)
    frozen.train()
    torch.testing.assert_close(frozen(x).out.logits, network("segmentation").eval()(x).logits)
    run = start(BANK).model.method
    assert differs(run.teacher.net.state_dict(), run.net.state_dict())


def test_statistics_at_the_end_are_those_of_the_plain_target() -> None:
    method = start(BANK, how=plan(steps=3)).model.method
    again = start("adabn", net=method.net, task="segmentation").model.method.net
    for (name, mine), theirs in zip(method.net.state_dict().items(), again.state_dict().values()):
        torch.testing.assert_close(mine, theirs, msg=name)
