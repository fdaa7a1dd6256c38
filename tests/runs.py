"""Short runs on the toy pairs, shared by the tests of the engine and of the methods."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import toys
from torch import Tensor

from acclimate import registry
from acclimate.data.domain import Domain
from acclimate.data.streams import Stream
from acclimate.engine.adapt import Adapted, adapt
from acclimate.engine.update import Updater
from acclimate.methods import Method, Need, find
from acclimate.networks.contract import Network
from acclimate.plan import Optimiser, Plan

TASKS = ("classification", "segmentation")
SMALL = {"classification": 40, "segmentation": 12}
METHODS = registry.names("methods")
GAMES = [(name, task) for name in METHODS for task in TASKS if task in find(name).card.tasks]


def plan(**changes: Any) -> Plan:
    """A short run in float32."""
    return Plan(**{"steps": 9, "batch": 8, "precision": "float32", "optimiser": Optimiser(lr=0.02), **changes})


@functools.cache
def small(task: str) -> tuple[Domain, Domain, Domain]:
    return toys.PAIRS[task](count=SMALL[task])


def few(target: Domain) -> Domain:
    """Four labelled images of the target, for methods that ask for a few."""
    return target.subset(range(4))


def network(task: str, seed: int = 0, norm: bool = True) -> Network:
    """The toy network with the weights of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return toys.network(task, norm)


def start(
    method: str | type[Method],
    task: str | None = None,
    *,
    how: Plan | None = None,
    net: Network | None = None,
    pair: tuple[Domain | None, Domain | None] | None = None,
    **more: Any,
) -> Adapted:
    """A short run of a method on a small toy pair, of the first task on its card where none is named."""
    kind = find(method) if isinstance(method, str) else method
    task = task or kind.card.tasks[0]
    source, target = pair or small(task)[:2]
    options = {"preprocess": toys.PREPROCESS[task], "device": "cpu", **toys.SETTINGS.get(kind.name, {}), **more}
    if Need.FEW_TARGET_LABELS in kind.needs:
        options.setdefault("labelled", few(small(task)[1]))
    return adapt(net or network(task), source, target, method, plan=how or plan(), **options)


def state(adapted: Adapted) -> dict[str, Tensor]:
    return adapted.model.method.state_dict()


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Equal names and values, at tolerance 0."""
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"differ: {different}"


def differs(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return any(not torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    """Stands for a crash: the engine gets no chance to save."""


def on_tick(monkeypatch: pytest.MonkeyPatch, react: Callable[[int], None]) -> None:
    """Call ``react`` with a running number at each update and before each batch of a Sweep."""
    count = iter(range(1_000_000))
    update, sweep = Updater.update, Stream.sweep

    def counted_update(self: Updater, *arguments: Any) -> None:
        react(next(count))
        update(self, *arguments)

    def counted_sweep(self: Stream) -> Iterator[Any]:
        for batch in sweep(self):
            react(next(count))
            yield batch

    monkeypatch.setattr(Updater, "update", counted_update)
    monkeypatch.setattr(Stream, "sweep", counted_sweep)
