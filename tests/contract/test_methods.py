"""What every registered method promises; a new method inherits all of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import shutil
import signal
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import GAMES, METHODS, TASKS, Killed, assert_same, differs, few, network, on_tick, plan, small, start, state
from safetensors.torch import load_file

from acclimate import networks
from acclimate.data.streams import Stream
from acclimate.engine.adapt import Adapted, adapt
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.engine.optimisers import groups
from acclimate.engine.update import Updater
from acclimate.errors import Interrupted, UsageError
from acclimate.methods import Card, Method, Need, Train, find
from acclimate.plan import Optimiser, Plan
from acclimate.tasks import build

game = pytest.mark.parametrize(("name", "task"), GAMES)
method = pytest.mark.parametrize("name", METHODS)
SEEDS = (0, 1, 2)


def is_reference(name: str) -> bool:
    """Source-only and the oracles: what gains are measured against."""
    return name == "source-only" or Need.TARGET_LABELS in find(name).needs


def made(name: str, task: str, **settings: Any) -> Method:
    torch.manual_seed(0)
    settings = {**toys.SETTINGS.get(name, {}), **settings}
    return find(name)(network(task), build(task, small(task)[0].classes), plan(), **settings)


# -- it helps ---------------------------------------------------------------------------------------------------------


@functools.cache
def long_run(name: str, task: str, seed: int) -> Adapted:
    source, target, _ = toys.PAIRS[task](seed=10 * seed)
    how = Plan(steps=150, batch=32, seed=seed, precision="float32", optimiser=Optimiser(lr=0.02, schedule="dann"))
    net = network(task, seed)
    if Need.SOURCE_MODEL in find(name).needs:
        net = long_run("source-only", task, seed).model.method.net
    more = dict(toys.SETTINGS.get(name, {}))
    if Need.FEW_TARGET_LABELS in find(name).needs:
        more["labelled"] = few(target)
    return adapt(net, source, target, name, plan=how, preprocess=toys.PREPROCESS[task], device="cpu", **more)


@functools.cache
def score(name: str, task: str, seed: int) -> float:
    return evaluate(long_run(name, task, seed).model, toys.PAIRS[task](seed=10 * seed)[2]).value


@pytest.mark.parametrize(("name", "task"), [g for g in GAMES if not is_reference(g[0])])
def test_beats_source_only_by_two_points_and_twice_the_deviation(name: str, task: str) -> None:
    adapted, source_only = ([score(who, task, seed) for seed in SEEDS] for who in (name, "source-only"))
    gains = [a - s for a, s in zip(adapted, source_only)]
    assert statistics.mean(gains) >= max(0.02, 2 * statistics.stdev(gains)), (adapted, source_only)


@pytest.mark.parametrize(("name", "task"), [g for g in GAMES if not is_reference(g[0])])
def test_ends_with_other_weights_or_statistics_than_source_only(name: str, task: str) -> None:
    mine, reference = (long_run(who, task, 0).model.method.net.state_dict() for who in (name, "source-only"))
    assert differs(mine, reference)


@pytest.mark.parametrize(("name", "task"), [g for g in GAMES if not is_reference(g[0])])
def test_adaptation_term_has_a_gradient(name: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each term that is not the supervised one moves some weight of the network that predicts."""
    largest: dict[str, float] = {}
    update = Updater.update

    def watched(self: Updater, terms: Any, players: Any) -> None:
        parameters = [p for player in players for p in self.optimisers[player].parameters]
        for term, value in terms.items():
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            norms = [g.norm().item() for g in found if g is not None]
            largest[term] = max(largest.get(term, 0.0), *norms, 0.0)
        update(self, terms, players)

    monkeypatch.setattr(Updater, "update", watched)
    adapted = start(name, task)
    if not any(isinstance(stage, Train) for stage in adapted.model.method.stages()):
        assert differs(adapted.model.method.net.state_dict(), network(task).state_dict())  # free of gradients
        return
    adaptation = {term: norm for term, norm in largest.items() if term != "supervised"}
    assert adaptation
    assert all(norm > 0 for norm in adaptation.values()), largest


# -- who moves --------------------------------------------------------------------------------------------------------


@game
def test_only_named_players_move_and_every_player_moves(name: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    update = Updater.update

    def checked(self: Updater, terms: Any, players: Any) -> None:
        resting = [o for other, o in self.optimisers.items() if other not in players]
        before = [p.clone() for o in resting for p in o.parameters]
        update(self, terms, players)
        assert all(torch.equal(a, b) for a, b in zip(before, [p for o in resting for p in o.parameters]))

    monkeypatch.setattr(Updater, "update", checked)
    torch.manual_seed(3)
    fresh = network(task)
    seen: dict[str, list[torch.Tensor]] = {}

    def remember(report: Any) -> None:
        frame = inspect.currentframe()
        run = frame.f_back.f_locals["self"]  # type: ignore[union-attr]
        if not seen:
            for player, value in run.method.players().items():
                seen[player] = [p.detach().clone() for g in groups(value) for p in g["params"]]

    adapted = start(name, task, net=fresh, how=plan(log_every=1), observer=remember)
    final = adapted.model.method
    owned = {id(p) for value in final.players().values() for g in groups(value) for p in g["params"]}
    for player, value in final.players().items():
        after = [p for g in groups(value) for p in g["params"]]
        assert any(not torch.equal(a, b) for a, b in zip(seen[player], after)), f"{player} never moved"
    averaged = {id(p) for average in final.averages() for p in average.into.parameters()}
    for mine, theirs in zip(final.net.parameters(), fresh.parameters()):
        assert id(mine) in owned | averaged or torch.equal(mine, theirs)


# -- it can be planned, and resumed -----------------------------------------------------------------------------------


@game
def test_stages_are_pure(name: str, task: str) -> None:
    one = made(name, task)
    first = list(one.stages())
    assert first == list(one.stages()) == list(made(name, task).stages())
    with torch.no_grad():
        for value in one.state_dict().values():
            value.add_(1)
    assert list(one.stages()) == first
    repr([dataclasses.asdict(stage) for stage in first])


@game
def test_stages_name_functions_that_exist(name: str, task: str) -> None:
    for stage in (one := made(name, task)).stages():
        wanted = {*stage.streams, *(["at"] if isinstance(stage, Train) else [])}
        assert set(inspect.signature(getattr(one, stage.step)).parameters) == wanted


@functools.cache
def uninterrupted(name: str, task: str, folder: Path) -> tuple[dict[str, torch.Tensor], bytes, int]:
    ticks: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, ticks.append)
        final = state(start(name, task, folder=folder, how=often()))
    return final, (folder / "metrics.jsonl").read_bytes(), len(ticks)


def often() -> Plan:
    return plan(log_every=2, save_every=3, steps=6)


@pytest.fixture(scope="session")
def reference_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


@game
@given(data=st.data())
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
def test_resume_from_anywhere_is_bit_identical(
    name: str, task: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, reference_folder: Path
) -> None:
    final, metrics, ticks = uninterrupted(name, task, reference_folder / f"{name}-{task}")
    tick = data.draw(st.integers(0, ticks - 1), label="interrupted at")
    way = data.draw(st.sampled_from(["crash", "signal"]), label="by a")

    def interrupt(now: int) -> None:
        if now == tick:
            if way == "crash":
                raise Killed
            os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, interrupt)
        with contextlib.suppress(Killed, Interrupted):
            start(name, task, folder=folder, how=often())
    assert_same(state(start(name, task, folder=folder, how=often())), final)
    assert (folder / "metrics.jsonl").read_bytes() == metrics
    shutil.rmtree(folder)


@game
def test_one_step_more_is_another_state(name: str, task: str, tmp_path: Path) -> None:
    """The negative control of the test above: equality at tolerance 0 is not cheap to have."""
    stages = made(name, task).stages()
    first = next((i for i, stage in enumerate(stages) if isinstance(stage, Train)), None)
    if first is None:
        pytest.skip("no training step")
    start(name, task, folder=tmp_path, how=plan(steps=9, save_every=1, keep=99))
    places = [tmp_path / "checkpoints" / f"{first:03d}-{step:08d}" for step in (1, 2)]
    assert differs(*(load_file(place / "method.safetensors") for place in places))


@method
def test_two_equal_runs_are_byte_identical(name: str, tmp_path: Path) -> None:
    one, two = (start(name, folder=tmp_path / f"{i}") for i in range(2))
    assert_same(state(one), state(two))
    assert (tmp_path / "0/metrics.jsonl").read_bytes() == (tmp_path / "1/metrics.jsonl").read_bytes()


# -- what it may open -------------------------------------------------------------------------------------------------


class Poison(Sequence[Any]):
    """Raises on any look at an element."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("read what it must not read")

    def __iter__(self) -> Any:
        raise AssertionError("read what it must not read")


@pytest.mark.parametrize(("name", "task"), [g for g in GAMES if Need.TARGET_LABELS not in find(g[0]).needs])
def test_never_reads_target_labels(name: str, task: str, tmp_path: Path) -> None:
    source, target, _ = small(task)
    poisoned = dataclasses.replace(target, labels=Poison(len(target)))
    assert_same(state(start(name, task, pair=(source, poisoned), folder=tmp_path)), state(start(name, task)))


@pytest.mark.parametrize(("name", "task"), GAMES)
def test_opens_no_domain_that_it_does_not_need(name: str, task: str) -> None:
    source, target, _ = small(task)
    needs = find(name).needs
    closed = dataclasses.replace(source, images=Poison(len(source)), labels=Poison(len(source)))
    if Need.SOURCE not in needs:
        assert_same(state(start(name, task, pair=(None, target))), state(start(name, task, pair=(closed, target))))
    if Need.TARGET not in needs:
        start(name, task, pair=(source, None))
        start(name, task, pair=(source, closed))


@method
def test_says_which_domain_is_missing(name: str) -> None:
    source, target, _ = small(find(name).card.tasks[0])
    for need, pair in ((Need.SOURCE, (None, target)), (Need.TARGET, (source, None))):
        if need in find(name).needs:
            with pytest.raises(UsageError, match=f"{name} needs a"):
                start(name, pair=pair)


@pytest.mark.parametrize(("name", "task"), [(n, t) for n in METHODS for t in TASKS if (n, t) not in GAMES])
def test_refuses_a_task_that_its_card_does_not_name(name: str, task: str) -> None:
    with pytest.raises(UsageError, match=f"{name}.*{task}.*choose"):
        start(name, task)


# -- it predicts, and can be kept -------------------------------------------------------------------------------------


@game
def test_predicts_deterministically_and_does_not_change(name: str, task: str) -> None:
    model = start(name, task).model
    before = {key: value.clone() for key, value in state_of(model).items()}
    one, two = ([logits for _, logits in model.logits(small(task)[2])] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(torch.isfinite(a).all() for a in one)
    assert_same(before, state_of(model))


def state_of(model: Model) -> dict[str, torch.Tensor]:
    return model.method.state_dict()


@game
def test_state_survives_a_file(name: str, task: str, tmp_path: Path) -> None:
    classes, size = len(small(task)[0].classes), 16 if task == "classification" else 32
    recipe = {"classification": ("dtn", 3), "segmentation": ("unet", 1)}[task]
    if task == "classification":
        size = 32
    torch.manual_seed(0)
    net = networks.build(recipe[0], classes=classes, channels=recipe[1], size=size)
    preprocess = toys.PREPROCESS[task].replace(**({"size": (size, size)} if task == "classification" else {}))
    model = start(name, task, net=net, preprocess=preprocess, how=plan(steps=3)).model
    model.save(tmp_path)
    loaded = Model.load(tmp_path)
    assert_same(state_of(loaded), state_of(model))
    assert loaded.description() == model.description()
    one, two = ([logits for _, logits in m.logits(small(task)[2])] for m in (model, loaded))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(one, two, strict=True))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


# -- how it is written ------------------------------------------------------------------------------------------------


@method
def test_card_is_complete(name: str) -> None:
    kind = find(name)
    assert kind.name == name
    assert isinstance(kind.card, Card)
    assert isinstance(kind.card.deviations, tuple)
    assert all(isinstance(text, str) and text for text in kind.card.deviations)
    assert kind.card.tasks
    assert set(kind.card.tasks) <= {"classification", "segmentation"}
    assert all(getattr(kind.card, field) for field in ("title", "paper", "when", "fails"))
    if not is_reference(name):
        assert kind.card.year > 1990
        assert str(kind.card.year) in kind.card.bibtex
        assert kind.card.bibtex.startswith("@")


@method
def test_file_is_short_and_shows_the_formula(name: str) -> None:
    kind = find(name)
    lines = Path(inspect.getfile(kind)).read_text().splitlines()
    assert len(lines) <= 120
    formula = inspect.getdoc(kind) or ""
    assert any(sign in formula for sign in ("=", "min_", "minimises"))


@method
def test_unknown_setting_names_the_nearest(name: str) -> None:
    known = list(find(name).Settings.model_fields)
    wrong = f"{known[0]}x" if known else "weight"
    with pytest.raises(
        UsageError, match=f"unknown setting '{wrong}'" + (f".*did you mean '{known[0]}'" if known else "")
    ):
        start(name, **{wrong: 1})


@method
def test_settings_are_frozen(name: str) -> None:
    chosen = find(name).Settings()
    for field in type(chosen).model_fields:
        with pytest.raises(Exception, match="frozen"):
            setattr(chosen, field, 0)


@method
def test_no_stream_is_built_that_the_needs_do_not_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    original = Stream.__init__

    def watched(self: Stream, domain: Any, name: str, *arguments: Any, **more: Any) -> None:
        built.append(name)
        original(self, domain, name, *arguments, **more)

    monkeypatch.setattr(Stream, "__init__", watched)
    start(name)
    needs = find(name).needs
    known = (("source", Need.SOURCE), ("target", Need.TARGET), ("labelled", Need.FEW_TARGET_LABELS))
    assert set(built) == {name for name, need in known if need in needs}
