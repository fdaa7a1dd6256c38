"""VADA, DIRT-T and SHOT against values computed apart from them."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from runs import assert_same, differs, network, plan, small, start
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.nn import functional

from acclimate.engine.update import Updater
from acclimate.methods import find
from acclimate.networks.contract import Network, Output
from acclimate.plan import Optimiser

VADA, DIRTT, SHOT = find("vada"), find("dirt-t"), find("shot")


class Step:
    """What one call of a step function began with and what it updated."""

    method: Any
    batches: dict[str, Any]
    updates: list[tuple[tuple[str, ...], dict[str, Tensor]]]
    after: Any


def copied(method: Any) -> Any:
    """The method without the run that carries it."""
    return copy.deepcopy(method, {id(method.conductor): None})


def first(kind: type, name: str, patch: pytest.MonkeyPatch, **settings: Any) -> Step:
    """The first call of the step function ``name`` in a short run."""
    seen = Step()
    original, update = getattr(kind, name), Updater.update

    def caught(self: Updater, terms: Any, players: Any) -> None:
        if hasattr(seen, "updates"):
            seen.updates.append((tuple(players), {term: value.detach().clone() for term, value in terms.items()}))
        update(self, terms, players)

    @functools.wraps(original)
    def watched(self: Any, at: Any, **batches: Any) -> Any:
        seen.method, seen.batches, seen.updates = copied(self), batches, []
        original(self, **batches, at=at)
        seen.after = copied(self)
        raise StopIteration

    patch.setattr(Updater, "update", caught)
    patch.setattr(kind, name, watched)
    with pytest.raises(StopIteration):
        start(kind, **settings)
    return seen


def statistics(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items() if "running" in name}


def mean_entropy(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits).entropy().mean()


# -- VADA -------------------------------------------------------------------------------------------------------------


def test_vada_minimises_the_terms_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = first(VADA, "step", monkeypatch, lambda_d=0.2, lambda_s=0.5, lambda_t=0.3)
    (critics, told), (nets, terms) = seen.updates
    assert (critics, nets) == (("critic",), ("net",))
    assert set(terms) == {"supervised", "domain", "source smoothness", "target entropy", "target smoothness"}
    source, target = seen.batches["source"], seen.batches["target"]
    s, t = seen.method(source, target)
    bce = functional.binary_cross_entropy_with_logits
    zeros, ones = torch.zeros(8, 1), torch.ones(8, 1)
    for critic, term, (one, other), weight in (
        (seen.method.critic, told["critic"], (s, t), 1.0),  # the critic as it was; source is 1
        (seen.after.critic, terms["domain"], (t, s), 0.2),  # the critic that has just learnt; labels turned round
    ):
        expected = (bce(critic(one.features), ones) + bce(critic(other.features), zeros)) / 2
        torch.testing.assert_close(term, weight * expected)
    torch.testing.assert_close(terms["supervised"], functional.cross_entropy(s.logits, source.y))
    torch.testing.assert_close(terms["target entropy"], 0.3 * mean_entropy(t.logits))
    assert terms["source smoothness"] > 0
    assert terms["target smoothness"] > 0


@pytest.mark.parametrize(("of", "other"), [("lambda_s", "lambda_t"), ("lambda_t", "lambda_s")])
def test_smoothness_is_no_larger_than_within_its_ball_and_vanishes_with_it(
    of: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"lambda_s": "source smoothness", "lambda_t": "target smoothness"}[of]
    found = []
    for radius in (1e-4, 0.5, 4.0):
        with monkeypatch.context() as patch:
            seen = first(VADA, "step", patch, **{of: 1.0, other: 0.0}, lambda_d=0, radius=radius)
        found.append(seen.updates[-1][1][name].item())
    assert 0 <= found[0] < 1e-5 < found[1] < found[2]


def test_only_the_clean_pass_of_the_target_moves_running_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = first(VADA, "step", monkeypatch)
    expected = copy.deepcopy(seen.method.net)
    expected(seen.batches["target"].x)
    torch.testing.assert_close(statistics(seen.after.net), statistics(expected))
    assert differs(statistics(expected), statistics(seen.method.net))


@pytest.mark.parametrize(
    ("settings", "passes", "players"),
    [
        ({}, 6, {"net", "critic"}),
        ({"lambda_s": 0}, 4, {"net", "critic"}),
        ({"lambda_s": 0, "lambda_t": 0}, 2, {"net", "critic"}),
        ({"lambda_d": 0}, 6, {"net"}),
    ],
)
def test_a_weight_of_zero_saves_its_passes(
    settings: dict[str, float], passes: int, players: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    forward = Network.forward

    def counted(self: Network, x: Tensor) -> Output:
        nonlocal count
        count += 1
        return forward(self, x)

    monkeypatch.setattr(Network, "forward", counted)
    run = start(VADA, how=plan(steps=3), **settings)
    assert count == 3 * passes
    assert set(run.model.method.players()) == players


def test_averaged_weights_predict() -> None:
    """0.9 of the average and 0.1 of the weights after each step, from the first weights; the network becomes it."""
    weights: list[Tensor] = []

    class Watched(VADA):  # type: ignore[misc, valid-type]
        def update(self, terms: Any, *players: str) -> None:
            super().update(terms, *players)
            if players == ("net",):
                weights.append(self.net.head.weight.detach().clone())

    net = network("classification")
    method = start(Watched, net=net, decay=0.9).model.method
    expected = net.head.weight.detach().double()
    for value in weights:
        expected = 0.9 * expected + 0.1 * value
    torch.testing.assert_close(method.net.head.weight.detach().double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(method.net.head.weight, weights[-1])
    assert_same(method.net.state_dict(), method.average.state_dict())


# -- DIRT-T -----------------------------------------------------------------------------------------------------------


def test_dirt_t_minimises_the_terms_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = first(DIRTT, "refine", monkeypatch, beta=0.7, lambda_t=0.2)
    ((players, terms),) = seen.updates
    assert players == ("net",)
    assert set(terms) == {"teacher", "target entropy", "target smoothness"}
    x, method = seen.batches["target"].x, seen.method
    assert_same(method.net.state_dict(), method.teacher.state_dict())  # both start as VADA's average
    teacher = copy.deepcopy(method.net).eval()(x).logits
    student = method.net(x).logits  # of its own batch's statistics
    kl = functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    torch.testing.assert_close(terms["teacher"], 0.7 * kl)
    torch.testing.assert_close(terms["target entropy"], 0.2 * mean_entropy(student))
    assert_same(seen.after.teacher.state_dict(), seen.method.teacher.state_dict())
    assert seen.after.critic[0].weight.equal(seen.method.critic[0].weight)


def test_teacher_is_the_average_of_the_round_before_and_rests() -> None:
    teachers: dict[str, list[Any]] = {}
    averages: dict[str, Any] = {}

    class Watched(DIRTT):  # type: ignore[misc, valid-type]
        def refine(self, target: Any, at: Any) -> Any:
            if at.step == 0:
                averages[at.stage] = copy.deepcopy(self.average.state_dict())
            found = super().refine(target, at)
            assert not self.teacher.training
            teachers.setdefault(at.stage, []).append(copy.deepcopy(self.teacher.state_dict()))
            return found

    start(Watched, how=plan(steps=12), interval=2)
    assert {stage: len(seen) for stage, seen in teachers.items()} == {f"refine {r}": 2 for r in (1, 2, 3)}
    for stage, seen in teachers.items():
        for state in seen:
            assert_same(state, averages[stage])
    assert differs(averages["refine 1"], averages["refine 2"])


def test_refinement_reads_no_source_and_has_an_optimiser_of_its_own() -> None:
    stages = start(DIRTT, how=plan(steps=12), interval=2, share=0.25).model.method.stages()
    assert next((s.name, s.streams) for s in stages if hasattr(s, "steps")) == ("vada", ("source", "target"))
    refinement = [s for s in stages if s.name.startswith("refine")]
    assert [s.steps for s in refinement] == [1, 2, 2, 2, 2]
    assert all(s.streams == ("target",) for s in refinement)
    assert [s.continues for s in refinement] == [False, True, True, True, True]


# -- SHOT -------------------------------------------------------------------------------------------------------------


def labels_by_hand(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Liang et al., eq. 4 to 6, with SciPy's cosine distance; a class that nobody has is left out."""
    f = np.concatenate([features, np.ones((len(features), 1))], 1)
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    p = np.exp(logits - logits.max(1, keepdims=True))
    weights, labels = p / p.sum(1, keepdims=True), p.argmax(1)
    for _ in range(2):
        there = np.unique(labels)
        centroids = (weights.T @ f)[there] / weights.sum(0)[there, None]
        labels = there[cdist(f, centroids, "cosine").argmin(1)]
        weights = np.eye(weights.shape[1])[labels]
    return labels


@pytest.mark.parametrize("absent", [None, 0, 2])
def test_pseudo_labels_are_those_of_the_formula(absent: int | None) -> None:
    """Also where no image is predicted to be of one class."""
    net = network("classification")
    torch.manual_seed(1)
    with torch.no_grad():
        net.head.weight.mul_(30)
        if absent is not None:
            net.head.bias[absent] = -1e4
    found: list[tuple[Tensor, Tensor]] = []
    expected: list[np.ndarray] = []

    class Watched(SHOT):  # type: ignore[misc, valid-type]
        def label(self, target: Any) -> None:
            batches = list(target)
            out = [self.net(b.x) for b in batches]
            whole = [torch.cat([getattr(o, part) for o in out]).double().numpy() for part in ("features", "logits")]
            expected.append(labels_by_hand(*whole)[torch.cat([b.index for b in batches]).argsort().numpy()])
            super().label(iter(batches))

        def adapt(self, target: Any, at: Any) -> Any:
            found.append((target.index, target.columns["label"]))
            return super().adapt(target, at)

    start(Watched, how=plan(steps=10), net=net, refreshes=2)
    assert len(expected) == 2
    for k, (index, label) in enumerate(found):
        assert label.tolist() == expected[k // 5][index.numpy()].tolist()
    if absent is not None:
        assert absent not in expected[0]
    assert len(np.unique(expected[0])) >= 2
    prediction = np.concatenate([label.numpy() for _, label in found])
    assert len(np.unique(prediction)) >= 2


def test_shot_minimises_the_terms_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = first(SHOT, "adapt", monkeypatch, gamma=0.3, diversity=0.8)
    ((players, terms),) = seen.updates
    assert players == ("features",)
    batch = seen.batches["target"]
    before = statistics(seen.method.net)
    logits = seen.method.net(batch.x).logits  # with the batch's own statistics: "implicit AdaBN"
    torch.testing.assert_close(terms["entropy"], mean_entropy(logits))
    whole = torch.distributions.Categorical(probs=logits.softmax(1).mean(0)).entropy()
    torch.testing.assert_close(terms["diversity"], -0.8 * whole)
    label = batch.columns["label"]
    torch.testing.assert_close(terms["pseudo-label"], 0.3 * functional.cross_entropy(logits, label))
    assert differs(statistics(seen.after.net), before)


def test_first_labels_come_from_the_statistics_of_the_source() -> None:
    states: list[dict[str, Tensor]] = []

    class Watched(SHOT):  # type: ignore[misc, valid-type]
        def label(self, target: Any) -> None:
            assert not any(module.training for module in self.modules())
            states.append(copy.deepcopy(self.net.state_dict()))
            super().label(target)

    net = network("classification")
    start(Watched, net=net)
    assert_same(states[0], net.state_dict())
    assert all(differs(statistics_of, states[0]) for statistics_of in states[1:])


class Normalised(nn.Module):
    """A head that dropout and BatchNorm would make another function at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(36, 3), nn.BatchNorm1d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_hypothesis_stays_one_function() -> None:
    modes: list[bool] = []

    class Watched(SHOT):  # type: ignore[misc, valid-type]
        def adapt(self, target: Any, at: Any) -> Any:
            modes.extend([self.net.head.training, self.net.module.body.training])
            return super().adapt(target, at)

    torch.manual_seed(0)
    net = Network(Normalised(), "head", input_shape=(3, 16, 16))
    method = start(Watched, net=net).model.method
    assert modes == [False, True] * 9
    assert_same(method.net.head.state_dict(), net.head.state_dict())
    assert differs(method.net.module.body.state_dict(), net.module.body.state_dict())


def test_rate_falls_through_all_labellings() -> None:
    rates: list[float] = []

    class Watched(SHOT):  # type: ignore[misc, valid-type]
        def adapt(self, target: Any, at: Any) -> Any:
            optimiser = self.conductor.updater.optimisers["features"].optimiser  # type: ignore[union-attr]
            rates.append(optimiser.param_groups[0]["lr"])
            return super().adapt(target, at)

    start(Watched, how=plan(steps=8, optimiser=Optimiser(lr=0.01, schedule="dann")), refreshes=3)
    assert rates == pytest.approx([0.01 * (1 + 10 * k / 8) ** -0.75 for k in range(8)])


def test_shot_needs_no_source_and_starts_from_the_model_given() -> None:
    target = small("classification")[1]
    net = network("classification", seed=3)
    method = start(SHOT, net=net, pair=(None, target)).model.method
    assert torch.equal(method.net.head.weight, net.head.weight)
