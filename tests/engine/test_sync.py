"""No step waits for the device: nothing is read on the host between two log intervals."""

from __future__ import annotations

import collections
import functools
from typing import Any

import pytest
import torch
import toys
from games import Supervised
from runs import GAMES, plan, start
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from acclimate.data.streams import Column
from acclimate.methods import find
from acclimate.methods.base import Train
from acclimate.transforms.augment import Geometry

WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "unique", "masked_select", "equal")


class Waits(TorchDispatchMode):
    """Counts operations that make the host wait for a value of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: collections.Counter[str] = collections.Counter()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        self.operations += 1
        indexed = name in ("index", "index_put_", "index_put") and any(
            isinstance(a, torch.Tensor) and a.dtype == torch.bool for a in arguments[1] or ()
        )
        if name in WAITS or indexed:
            self.found[name] += 1
        return function(*arguments, **(keywords or {}))


def watch(method: Any, task: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Waits:
    """Operations of all training steps between the first update and the last of the first training stage."""
    waits, kind = Waits(), find(method) if isinstance(method, str) else method
    steps = 5
    read = Column.map

    def unwatched(self: Column, i: int) -> torch.Tensor:
        with _disable_current_modes():  # safetensors reads an offset of a file on the host, whatever the device
            return read(self, i)

    monkeypatch.setattr(Column, "map", unwatched)
    for name in {s.step for s in start(method, task).model.method.stages() if isinstance(s, Train)}:
        original = getattr(kind, name)

        def watched(self: Any, *arguments: Any, _original: Any = original, at: Any, **batches: Any) -> Any:
            if at.step == 1:
                waits.__enter__()
            if at.step == at.steps - 1:
                waits.__exit__(None, None, None)
            return _original(self, *arguments, at=at, **batches)

        monkeypatch.setattr(kind, name, functools.wraps(original)(watched))
    preprocess = toys.PREPROCESS[task].replace(
        geometry=Geometry(flips="dihedral", rotate=20, scale=(0.8, 1.2), shift=0.1),
        views={"weak": toys.PREPROCESS[task].views["strong"], "strong": toys.PREPROCESS[task].views["strong"]},
    )
    start(method, task, how=plan(steps=3 * steps, log_every=1000), preprocess=preprocess, **more)
    return waits


@pytest.mark.parametrize(("name", "task"), GAMES)
def test_steps_do_not_wait_for_the_device_even_with_strong_augmentation(
    name: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = watch(name, task, monkeypatch)
    if any(isinstance(stage, Train) for stage in start(name, task).model.method.stages()):
        assert waits.operations > 500
    assert not waits.found


def test_a_step_that_reads_a_value_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader(Supervised):
        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            float(source.x.sum())
            return super().step(source, at)

    assert watch(Reader, "classification", monkeypatch).found["_local_scalar_dense"]
