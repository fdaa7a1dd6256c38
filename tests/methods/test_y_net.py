"""Y-Net's terms against plain functions of the same batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from runs import network, plan, start
from torch.nn import functional

from acclimate import networks
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.update import Updater
from acclimate.methods import find


def first_step(monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Any, Any, Any, dict[str, torch.Tensor], Any]:
    """The method before its first step, the step's batches, its terms and its players."""
    caught: list[Any] = []
    kind = find("y-net")

    class Watched(kind):  # type: ignore[misc, valid-type]
        def step(self, source: Any, target: Any, at: Any) -> Any:
            caught.extend([copy.deepcopy(self), source, target])
            return super().step(source, target, at)

    def catch(self: Updater, terms: Any, players: Any) -> None:
        caught.extend([dict(terms), players])
        raise StopIteration

    monkeypatch.setattr(Updater, "update", catch)
    with pytest.raises(StopIteration):
        start(Watched, **more)
    return tuple(caught)  # type: ignore[return-value]


@pytest.mark.parametrize("loss", ["cross-entropy", "dice"])
def test_minimises_the_terms_of_its_formula(monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    net = networks.build("unet", classes=2, channels=1, size=32, width=4, depth=2)
    method, source, target, terms, players = first_step(monkeypatch, net=net, loss=loss, weight=0.3)
    assert players == ("net", "decoder")
    module = method.net.module
    for x, name in ((source.x, "source"), (target.x, "target")):
        code = x
        for level in module.down:
            code = functional.max_pool2d(level(code), 2)
        code = torch.relu(module.bottleneck(code))
        image = method.decoder.head(method.decoder.body(code))  # 16 x 16 pixels: nothing to crop
        error = (image - x).square().mean()
        torch.testing.assert_close(terms[f"{name} reconstruction"], 0.15 * error)
    logits = module(source.x)
    expected = functional.cross_entropy(logits, source.y)
    if loss == "dice":
        p, y = logits.softmax(1)[:, 1].double(), (source.y == 1).double()
        expected = (1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)).float()
    torch.testing.assert_close(terms["supervised"], expected)
    assert set(terms) == {"supervised", "source reconstruction", "target reconstruction"}


def test_reconstruction_moves_the_encoder_and_not_the_segmentation_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    net = networks.build("unet", classes=2, channels=1, size=32, width=4, depth=2)
    kind = find("y-net")
    found: dict[str, bool] = {}

    class Watched(kind):  # type: ignore[misc, valid-type]
        def update(self, terms: Any, *players: str) -> None:
            both = terms["source reconstruction"] + terms["target reconstruction"]
            names, weights = zip(*self.net.module.named_parameters())
            grads = torch.autograd.grad(both, weights, retain_graph=True, allow_unused=True)
            found.update({name: g is not None and bool(g.norm() > 0) for name, g in zip(names, grads)})
            super().update(terms, *players)

    start(Watched, net=net, how=plan(steps=1))
    assert {name for name, moved in found.items() if moved} == {
        name for name in found if name.startswith(("down", "bottleneck"))
    }


def test_target_is_drawn_better_with_training() -> None:
    run = start("y-net", net=network("segmentation"), how=plan(steps=60, log_every=10), weight=1.0)
    errors = [row["target error"] for row in run.history]
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("size", [33, 38])
def test_odd_crops_and_three_classes_pass(size: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 48, 48, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, (6, 48, 48)).astype(np.int16)
    pair = tuple(
        Domain(name, "segmentation", ("ground", "cell", "wall"), images, labels, [f"{name}{i}" for i in range(6)])
        for name in ("source", "target")
    )
    net = networks.build("unet", classes=3, channels=3, size=size, width=4, depth=3)
    how = Preprocess(crop=(size, size - 4), channels=3)
    for method in ("y-net", "cellseguda"):
        run = start(method, net=net, pair=pair, preprocess=how, how=plan(steps=2, batch=2))
        assert np.isfinite([v for k, v in run.history[-1].items() if k != "stage"]).all()
