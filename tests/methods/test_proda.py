"""ProDA's stages and terms against plain functions of the same batch."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from typing import Any

import pytest
import torch
from runs import assert_same, differs, network, plan, small, start
from scipy.special import rel_entr
from torch import Tensor, nn
from torch.nn import functional
from toys import PREPROCESS

from acclimate.data.streams import Stream
from acclimate.engine.update import Updater
from acclimate.errors import UsageError
from acclimate.losses import symmetric_cross_entropy
from acclimate.methods import Sweep, Train, find
from acclimate.networks.contract import Network
from acclimate.tasks import build
from acclimate.transforms.augment import Geometry

ProDA = find("proda")
ONCE = {"warm_up": 0.0, "distillations": 0}


class Step:
    """What one call of a step function began with, and what it updated."""

    method: Any
    batches: dict[str, Any]
    updates: list[tuple[tuple[str, ...], dict[str, Tensor], dict[str, Tensor]]]
    after: Any
    random: Tensor
    running: Any


def copied(method: Any) -> Any:
    """The method without the run that carries it."""
    return copy.deepcopy(method, {id(method.conductor): None})


def first(name: str, patch: pytest.MonkeyPatch, call: int = 0, **settings: Any) -> Step:
    """A call, by default the first, of the step function ``name`` in a short run."""
    seen, calls = Step(), iter(range(100))
    original, update = getattr(ProDA, name), Updater.update

    def caught(self: Updater, terms: Any, players: Any) -> None:
        if hasattr(seen, "updates"):
            values = {term: value.detach().clone() for term, value in terms.items()}
            seen.updates.append((tuple(players), values, copy.deepcopy(seen.running.state_dict())))
        update(self, terms, players)

    @functools.wraps(original)
    def watched(self: Any, at: Any, **batches: Any) -> Any:
        if next(calls) < call:
            return original(self, **batches, at=at)
        seen.method, seen.batches, seen.updates, seen.running = copied(self), batches, [], self
        seen.random = torch.get_rng_state()
        original(self, **batches, at=at)
        seen.after = copied(self)
        raise StopIteration

    with patch.context() as here:
        here.setattr(Updater, "update", caught)
        here.setattr(ProDA, name, watched)
        with pytest.raises(StopIteration):
            start(ProDA, **settings)
    return seen


def blank(x: Tensor, random: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """The strong view with its square, drawn again from the generator's state."""
    torch.set_rng_state(random)
    draws, (height, width) = torch.rand(len(x), 2), x.shape[2:]
    seen = torch.ones(len(x), height, width, dtype=torch.bool)
    for i, (down, across) in enumerate(draws.tolist()):
        top, left = (int(d * (n - round(n * side) + 1)) for d, n in ((down, height), (across, width)))
        seen[i, top : top + round(height * side), left : left + round(width * side)] = False
    return torch.where(seen[:, None], x, 0), seen


def omega_of(f: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """softmax_k -(||f - eta_k|| - min) / tau, written with one difference for each class."""
    distance = torch.stack([(f - eta.view(1, -1, 1, 1)).square().sum(1).sqrt() for eta in prototypes], 1)
    return (-(distance - distance.min(1, keepdim=True).values) / temperature).softmax(1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """``(N, h, w)`` of ``(N, K, h, w)``."""
    return torch.from_numpy(rel_entr(p.detach().double().numpy(), q.detach().double().numpy())).sum(1)


# -- stages -----------------------------------------------------------------------------------------------------------


def stages(**settings: Any) -> list[Any]:
    torch.manual_seed(0)
    task = build("segmentation", ("ground", "shape"))
    return list(ProDA(network("segmentation"), task, plan(steps=100), critic_width=4, **settings).stages())


def test_stages_are_those_of_the_paper() -> None:
    names = [stage.name for stage in stages()]
    assert names == [
        "warm-up", "statistics", "first labels", "denoise",
        "label 1", "distil 1", "statistics 1", "label 2", "distil 2", "statistics 2",
    ]  # fmt: skip
    trained = [stage for stage in stages() if isinstance(stage, Train)]
    assert [stage.steps for stage in trained] == [25, 25, 25, 25]
    assert not any(stage.continues for stage in trained)  # a student restarts with an optimiser of its own
    assert [stage.views for stage in trained] == [("weak",)] + 3 * [("weak", "strong")]
    assert all(stage.part == (0, 1) for stage in trained)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"warm_up": 0.0, "distillations": 0}, ["statistics", "first labels", "denoise"]),
        ({"warm_up": 0.5, "distillations": 0, "restat": False}, ["warm-up", "first labels", "denoise"]),
        (
            {"warm_up": 0.0, "distillations": 1, "norm": "frozen"},
            ["statistics", "first labels", "denoise", "label 1", "distil 1"],
        ),
    ],
)
def test_stages_follow_the_settings(settings: dict[str, Any], names: list[str]) -> None:
    found = stages(**settings)
    assert [stage.name for stage in found] == names
    assert sum(stage.steps for stage in found if isinstance(stage, Train)) == 100
    assert all(stage.streams == ("target",) for stage in found if isinstance(stage, Sweep))


def test_optimisers_are_fresh_in_each_stage() -> None:
    seen: dict[str, list[Any]] = {}

    class Watched(ProDA):  # type: ignore[misc, valid-type]
        def update(self, terms: Any, *players: str) -> None:
            optimiser = self.conductor.updater.optimisers["net"]  # type: ignore[union-attr]
            stage = "distil" if "pseudo-label" in terms and "structure" not in terms else "first"
            seen.setdefault(stage, []).append(optimiser)
            super().update(terms, *players)

    start(Watched, how=plan(steps=4), warm_up=0, distillations=1)
    assert len({id(o) for o in seen["first"]}) == len({id(o) for o in seen["distil"]}) == 1
    assert seen["first"][0] is not seen["distil"][0]


# -- warm-up ----------------------------------------------------------------------------------------------------------


def test_warm_up_minimises_the_terms_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = first("warm_up", monkeypatch, adversarial=0.2)
    (one, critic, _), (two, net, state) = seen.updates
    assert (one, two) == (("critic",), ("net",))
    source, target = seen.batches["source"], seen.batches["target"]
    s, t = seen.method(source, target)
    ps, pt = s.logits.softmax(1), t.logits.softmax(1)
    ds, dt = seen.method.critic(ps), seen.method.critic(pt)
    torch.testing.assert_close(critic["critic"], ((ds - 1).square().mean() + dt.square().mean()) / 2)
    moved = copy.deepcopy(seen.method)
    moved.load_state_dict(state)  # the critic has learnt by now
    fooled = 0.2 * (moved.critic(pt) - 1).square().mean()
    expected = {"supervised": functional.cross_entropy(s.logits, source.y), "adversarial": fooled}
    torch.testing.assert_close(net, {name: value.detach() for name, value in expected.items()})


def test_critic_has_the_optimiser_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    def watched(self: Updater, terms: Any, players: Any) -> None:
        found.append(self.optimisers)
        raise StopIteration

    monkeypatch.setattr(Updater, "update", watched)
    with pytest.raises(StopIteration):
        start(ProDA, how=plan(optimiser=None))
    critic, net = found[0]["critic"].settings, found[0]["net"].settings
    assert (critic.kind, critic.lr, critic.betas, critic.schedule) == ("adam", 1e-4, (0.9, 0.99), "poly")
    assert (net.kind, net.lr, net.momentum, net.weight_decay, net.schedule) == ("sgd", 1e-4, 0.9, 2e-4, "poly")


# -- first labels -----------------------------------------------------------------------------------------------------


class First(ProDA):  # type: ignore[misc, valid-type]
    """Remembers the images that it labels first."""

    seen: dict[int, Tensor]

    def first_labels(self, target: Any) -> None:
        batches = list(target)
        self.seen = {int(i): x for b in batches for i, x in zip(b.index, b.x)}
        super().first_labels(iter(batches))


@pytest.mark.parametrize("stride", [1, 4, 5])
def test_first_labels_and_prototypes_are_those_of_the_network(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = []
    columns: list[dict[int, Tensor]] = []
    original = ProDA.denoise

    def stop(self: Any, source: Any, target: Any, at: Any) -> Any:
        states.append(copied(self))
        column = self.conductor.streams["target"].columns["soft"]
        columns.append({i: column.map(i) for i in range(12)})
        raise StopIteration

    monkeypatch.setattr(ProDA, "denoise", functools.wraps(original)(stop))
    with pytest.raises(StopIteration):
        start(First, **ONCE, stride=stride)
    method, kept = states[0], columns[0]
    method.eval()
    assert_same(method.net.state_dict(), method.average.state_dict())
    sums, images = torch.zeros(2, 12), torch.zeros(2)
    for i, x in method.seen.items():
        out = method.net(x[None])
        p = out.logits.softmax(1)[0]
        side = math.ceil(32 / stride)
        assert kept[i].shape == (2, side, side)
        assert kept[i].dtype == torch.float16
        torch.testing.assert_close(kept[i].float(), functional.adaptive_avg_pool2d(p, side), atol=1e-3, rtol=1e-3)
        for k in range(2):
            mine = out.logits[0].argmax(0) == k
            if mine.sum() >= 10:
                sums[k] += out.features[0][:, mine].mean(1)
                images[k] += 1
    assert method.known.tolist() == (images > 0).tolist()
    torch.testing.assert_close(method.prototypes, sums / images.clamp_min(1)[:, None], rtol=1e-4, atol=1e-5)


# -- denoising --------------------------------------------------------------------------------------------------------


def rotated() -> Any:
    return PREPROCESS["segmentation"].replace(geometry=Geometry(rotate=40, flips="dihedral", shift=0.2))


@pytest.mark.parametrize("call", [0, 2])
def test_denoising_minimises_the_terms_of_its_formula(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"temperature": 0.7, "structure": 6.0, "regulariser": 0.3, "prototype_decay": 0.9, "cutout": 0.4}
    seen = first("denoise", monkeypatch, call, **ONCE, **settings, preprocess=rotated())
    ((players, terms, _),) = seen.updates
    assert players == ("net",)
    assert set(terms) == {"supervised", "pseudo-label", "structure", "regulariser"}
    source, target = seen.batches["source"], seen.batches["target"]
    assert differs(seen.method.net.state_dict(), seen.method.average.state_dict()) == bool(call)

    s, t = (copy.deepcopy(seen.method.net)(b.x) for b in (source, target))  # each by its own batch's statistics
    taught = copy.deepcopy(seen.method.average)(target.x)
    soft = target.columns["soft"]
    inside = soft.sum(1) > 0
    assert 0 < inside.float().mean() < 1
    omega = omega_of(taught.features, seen.method.prototypes, 0.7)
    label = torch.where(inside, (omega * soft).argmax(1), -1)
    first_label = torch.where(inside, soft.argmax(1), -1)
    assert not torch.equal(label, first_label)

    p, y = t.logits.softmax(1), functional.one_hot(label.clamp_min(0), 2).permute(0, 3, 1, 2).float()
    each = -(p.clamp_min(1e-7) * y.clamp_min(1e-4).log()).sum(1) - 0.1 * (y * p.log()).sum(1)
    x, uncovered = blank(target.views["strong"], seen.random, 0.4)
    strong = copy.deepcopy(seen.method.net)(x)
    z, mine = omega, omega_of(strong.features, seen.method.prototypes, 0.7)
    expected = {
        "supervised": functional.cross_entropy(s.logits, source.y, ignore_index=-1),
        "pseudo-label": each[inside].mean(),
        "structure": 6.0 * kl(z, mine)[inside & uncovered].mean().float() / 2,
        "regulariser": 0.3 * -t.logits.log_softmax(1).mean(1)[inside].mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value.detach(), rtol=2e-4, atol=1e-6)

    guess = torch.where(inside, taught.logits.argmax(1), -1)
    for k in range(2):
        mine = [f[:, g == k].mean(1) for f, g in zip(taught.features, guess) if (g == k).sum() >= 10]
        kept = 0.9 ** len(mine)
        expected_prototype = kept * seen.method.prototypes[k] + (1 - kept) * sum(mine) / len(mine)
        torch.testing.assert_close(seen.after.prototypes[k], expected_prototype, rtol=1e-4, atol=1e-5)
    assert not torch.equal(seen.after.prototypes, seen.method.prototypes)


@pytest.mark.parametrize(
    ("settings", "gone", "saved"),
    [
        ({}, set(), 0),
        ({"structure": 0}, {"structure"}, 1),
        ({"denoise": False}, set(), 0),
        ({"denoise": False, "structure": 0}, {"structure"}, 2),
        ({"regulariser": 0}, {"regulariser"}, 0),
        ({"symmetric": False}, set(), 0),
    ],
    ids=str,
)
def test_a_switch_removes_its_term_and_nothing_else(
    settings: dict[str, Any], gone: set[str], saved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, count = Network.forward, 0

    def counted(self: Network, x: Tensor) -> Any:
        nonlocal count
        count += 1
        return forward(self, x)

    monkeypatch.setattr(Network, "forward", counted)
    whole, all_passes = first("denoise", monkeypatch, **ONCE).updates[0][1], count
    seen = first("denoise", monkeypatch, **ONCE, **settings)
    assert all_passes - (count - all_passes) == saved
    ((_, terms, _),) = seen.updates
    assert set(terms) == set(whole) - gone
    changes = {"pseudo-label"} if {"denoise", "symmetric"} & set(settings) else set()
    for name in terms:
        assert torch.equal(terms[name], whole[name]) == (name not in changes), name
    target = seen.batches["target"]
    logits, label = copy.deepcopy(seen.method.net)(target.x).logits, target.columns["soft"].argmax(1)
    if settings == {"denoise": False}:
        torch.testing.assert_close(terms["pseudo-label"], symmetric_cross_entropy(logits, label).detach())
    if settings == {"symmetric": False}:
        omega = omega_of(copy.deepcopy(seen.method.average)(target.x).features, seen.method.prototypes, 1.0)
        label = (omega * target.columns["soft"]).argmax(1)
        torch.testing.assert_close(terms["pseudo-label"], functional.cross_entropy(logits, label).detach())
    if "denoise" in settings and "structure" in settings:
        assert torch.equal(seen.after.prototypes, seen.method.prototypes)


def test_first_probabilities_stay_while_network_and_prototypes_move() -> None:
    kept: list[dict[int, Tensor]] = []
    prototypes: list[Tensor] = []

    class Watched(ProDA):  # type: ignore[misc, valid-type]
        def denoise(self, source: Any, target: Any, at: Any) -> Any:
            column = self.conductor.streams["target"].columns["soft"]  # type: ignore[union-attr]
            kept.append({i: column.map(i).clone() for i in range(12)})
            prototypes.append(self.prototypes.clone())
            return super().denoise(source, target, at)

    start(Watched, how=plan(steps=5), **ONCE, prototype_decay=0.9)
    for now in kept[1:]:
        assert all(torch.equal(now[i], kept[0][i]) for i in range(12))
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(prototypes))


def test_only_the_weak_view_moves_running_statistics_while_denoising(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = first("denoise", monkeypatch, **ONCE)
    expected = copy.deepcopy(seen.method.net)
    expected(seen.batches["target"].x)

    def running(net: Any) -> dict[str, Tensor]:
        return {name: value for name, value in net.state_dict().items() if "running" in name}

    for name, value in running(expected).items():
        torch.testing.assert_close(running(seen.after.net)[name], value)
    assert differs(running(expected), running(seen.method.net))


def test_averaged_weights_follow_by_the_decay_and_take_the_buffers() -> None:
    weights: list[Tensor] = []

    class Watched(ProDA):  # type: ignore[misc, valid-type]
        def first_labels(self, target: Any) -> None:
            super().first_labels(target)
            weights.append(self.net.head.weight.detach().clone())

        def update(self, terms: Any, *players: str) -> None:
            super().update(terms, *players)
            weights.append(self.net.head.weight.detach().clone())

    method = start(Watched, how=plan(steps=5), **ONCE, restat=False, decay=0.8).model.method
    expected = weights[0].double()
    for value in weights[1:]:
        expected = 0.8 * expected + 0.2 * value
    torch.testing.assert_close(method.average.head.weight.double(), expected, rtol=1e-5, atol=1e-7)
    mine, theirs = dict(method.net.named_buffers()), dict(method.average.named_buffers())
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_class_that_nobody_sees_does_no_harm() -> None:
    net = network("segmentation")
    with torch.no_grad():
        net.head.bias[1] = -1e4
    run = start(ProDA, net=net, how=plan(steps=4, log_every=1), **ONCE)
    assert all(math.isfinite(v) for row in run.history for v in row.values() if isinstance(v, float))
    assert torch.isfinite(run.model.method.prototypes).all()


def test_features_of_lower_resolution_serve() -> None:
    """A head that up-samples: features at a quarter of the image."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 6, 3, 4, 1), nn.BatchNorm2d(6), nn.ReLU())
    module = nn.Sequential()
    module.add_module("body", body)
    module.add_module("head", nn.Conv2d(6, 2, 1))
    net = Network(module, "head", input_shape=(1, 32, 32))
    run = start(ProDA, net=net, how=plan(log_every=1))
    assert run.model.method.known.any()
    assert all(row["structure"] > 0 for row in run.history if row["stage"] == "denoise")


def test_features_that_are_no_maps_are_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 2 * 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)).view(-1, 2, 8, 8)

    with pytest.raises(UsageError, match=r"maps \(C, h, w\); name a head"):
        start(ProDA, net=Network(Flat(), "head", input_shape=(1, 8, 8)))


# -- distillation -----------------------------------------------------------------------------------------------------


def test_distillation_minimises_the_terms_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"warm_up": 0.0, "distil": 0.8, "confidence": 0.55, "cutout": 0.4, "preprocess": rotated()}
    seen = first("distil", monkeypatch, 1, **settings)
    ((players, terms, _),) = seen.updates
    assert players == ("net",)
    assert set(terms) == {"supervised", "pseudo-label", "distillation"}
    source, target = seen.batches["source"], seen.batches["target"]
    x, uncovered = blank(target.views["strong"], seen.random, 0.4)
    s, t = (copy.deepcopy(seen.method.net)(images) for images in (source.x, x))
    assert not seen.method.teacher.training
    taught = seen.method.teacher(x)
    column = target.columns["label"].long()  # -1 outside of the image, 2 where the teacher was not sure
    assert set(column.unique().tolist()) == {-1, 0, 1, 2}
    known = uncovered & (column >= 0)
    label = torch.where(known & (column < 2), column, -1)
    expected = {
        "supervised": functional.cross_entropy(s.logits, source.y, ignore_index=-1),
        "pseudo-label": functional.cross_entropy(t.logits, label, ignore_index=-1),
        "distillation": 0.8 * kl(taught.logits.softmax(1), t.logits.softmax(1))[known].mean().float() / 2,
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value.detach(), rtol=1e-4, atol=1e-7)


def test_a_student_without_distillation_learns_from_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, terms, _),) = first("distil", monkeypatch, warm_up=0.0, distil=0.0).updates
    assert set(terms) == {"supervised", "pseudo-label"}


class Watched(ProDA):  # type: ignore[misc, valid-type]
    """Remembers what it labelled, and its networks at the beginning of each distillation."""

    def label(self, target: Any) -> None:
        self.__dict__.setdefault("labelled", []).append(copy.deepcopy(self.net))
        super().label(target)

    def distil(self, source: Any, target: Any, at: Any) -> Any:
        if at.step == 0:
            found = self.__dict__.setdefault("begun", [])
            column = self.conductor.streams["target"].columns["label"]  # type: ignore[union-attr]
            labels = torch.stack([column.map(i) for i in range(12)])
            found.append((copy.deepcopy(self.net), copy.deepcopy(self.teacher.state_dict()), labels))
        result = super().distil(source, target, at)
        assert_same(self.teacher.state_dict(), self.begun[-1][1])
        return result


@pytest.mark.parametrize("student", ["stage-1", "supervised", "fresh"])
def test_a_student_begins_as_it_is_told_and_its_teacher_rests(student: str) -> None:
    net = network("segmentation", seed=4)
    method = start(Watched, net=net, warm_up=0.0, student=student).model.method
    assert len(method.begun) == len(method.labelled) == 2
    for (begun, teacher, _), labelled in zip(method.begun, method.labelled):
        assert_same(teacher, labelled.state_dict())
        if student == "stage-1":
            assert_same(begun.state_dict(), labelled.state_dict())
        elif student == "supervised":
            assert_same(begun.state_dict(), net.state_dict())
        else:
            assert all(not torch.equal(a, b) for a, b in zip(begun.head.parameters(), net.head.parameters()))
    if student == "fresh":
        assert_same(*(begun.state_dict() for begun, _, _ in method.begun))
    assert differs(method.begun[0][1], method.begun[1][1])


@pytest.mark.parametrize("flip", [False, True])
def test_labels_are_the_sure_predictions_of_the_teacher(flip: bool) -> None:
    method = start(Watched, how=plan(steps=4), warm_up=0.0, distillations=1, confidence=0.6, flip=flip).model.method
    labels = method.begun[0][2]
    images = Stream(
        small("segmentation")[1].unlabelled(), "target", "segmentation", rotated().replace(geometry=Geometry()), batch=4
    )
    (whole,) = list(images.sweep())
    teacher = method.labelled[0].eval()
    with torch.no_grad():
        p = teacher(whole.x).logits.softmax(1)
        if flip:
            p = (p + torch.flip(teacher(torch.flip(whole.x, [3])).logits.softmax(1), [3])) / 2
    largest, best = p.max(1)
    expected = torch.where(largest > 0.6, best, 2)[whole.index.argsort()]
    assert labels.dtype == torch.int16
    assert (labels == expected).float().mean() > 0.999
    assert set(labels.unique().tolist()) == {0, 1, 2}


def test_networks_of_stages_that_do_not_run_are_not_there() -> None:
    names = {name for name, _ in start(ProDA, **ONCE).model.method.named_children()}
    assert names == {"net", "average"}
    names = {name for name, _ in start(ProDA, student="fresh").model.method.named_children()}
    assert names == {"net", "average", "critic", "teacher", "student"}
