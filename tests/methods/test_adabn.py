"""AdaBN's variants as runs: passes, resume, what is kept, and what it reports."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import Killed, assert_same, differs, network, on_tick, plan, small, start, state

from acclimate import networks
from acclimate.engine.adapt import Adapted
from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.methods import find
from acclimate.networks import norm
from acclimate.networks.contract import Network
from acclimate.tasks import build


def unet(seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = networks.build("unet", classes=2, channels=1, size=32, width=4, depth=2)
        for _, layer in norm.batch_norms(net):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return net


def run(**settings: Any) -> Adapted:
    return start("adabn", "segmentation", net=unet(), **settings)


def images() -> torch.Tensor:
    """The target as the network sees it."""
    x = torch.from_numpy(np.asarray(small("segmentation")[1].images)).permute(0, 3, 1, 2)
    return x / 127.5 - 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "exact"},
        {"mode": "ema", "momentum": 0.5},
        {"alpha": 0.5},
        {"prior": 8.0},
        {"mode": "exact", "prior": 8.0},
        {"layers": "encoder"},
        {"mode": "exact", "layers": ("down", "up.0")},
    ],
)
def test_a_run_does_what_the_function_does(settings: dict[str, Any]) -> None:
    """The target is one batch of twelve images here, so its order counts for nothing."""
    net = unet()
    changes = norm.restat(net, [images()], **settings)
    method = run(**settings).model.method
    for name, wanted in norm.statistics(net).items():
        found = norm.statistics(method.net)[name]
        torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.variance, wanted.variance, rtol=1e-4, atol=1e-5)
    assert [change.layer for change in method.changes()] == [change.layer for change in changes]
    for mine, theirs in zip(method.changes(), changes):
        torch.testing.assert_close(mine.shift, theirs.shift, rtol=1e-3, atol=1e-3)
        assert mine.images == theirs.images == 12


def test_layers_of_the_encoder_leave_the_decoder_alone() -> None:
    before = unet().state_dict()
    after = run(layers="encoder").model.method.net.state_dict()
    moved = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"down", "bottleneck"}


def test_exact_takes_one_pass_for_each_layer() -> None:
    stages = run(mode="exact").model.method.stages()
    assert [stage.name for stage in stages] == [f"statistics {i}" for i in range(1, 11)]
    assert len(run(mode="exact", layers="decoder").model.method.stages()) == 4
    assert len(run().model.method.stages()) == 1


@pytest.mark.parametrize("tick", [0, 1, 4, 9])
def test_exact_resumes_in_any_pass(tick: int, tmp_path: Path) -> None:
    """One batch to a pass: the tick is the pass that a crash cuts."""

    def interrupt(now: int) -> None:
        if now == tick:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, interrupt)
        with contextlib.suppress(Killed):
            run(mode="exact", folder=tmp_path)
    passes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, passes.append)
        again = run(mode="exact", folder=tmp_path)
    assert len(passes) == 10 - tick
    assert_same(state(again), state(run(mode="exact")))


def test_source_statistics_come_back_bit_by_bit() -> None:
    method = run().model.method
    assert differs(method.net.state_dict(), unet().state_dict())
    method.restore()
    assert_same(method.net.state_dict(), unet().state_dict())
    assert {change.mean_shift for change in method.changes()} == {0.0}


@pytest.mark.parametrize("settings", [{}, {"mode": "exact", "layers": ("down", "up.0")}, {"layers": "encoder"}])
def test_report_and_source_travel_in_the_file(settings: dict[str, Any], tmp_path: Path) -> None:
    model = run(**settings).model
    model.save(tmp_path)
    loaded = Model.load(tmp_path)
    assert_same(loaded.method.state_dict(), model.method.state_dict())
    assert loaded.description() == model.description()
    for mine, theirs in zip(loaded.method.changes(), model.method.changes(), strict=True):
        assert (mine.layer, mine.images) == (theirs.layer, theirs.images)
        assert torch.equal(mine.shift, theirs.shift)
        assert mine.mean_shift > 0
    loaded.method.restore()
    assert_same(loaded.method.net.state_dict(), unet().state_dict())


def test_report_names_every_layer_with_its_shift_and_spread() -> None:
    method = run().model.method
    rows = method.report()
    assert [row["layer"] for row in rows] == [name for name, _ in norm.batch_norms(method.net)]
    for row, change in zip(rows, method.changes()):
        ratio = np.sqrt((change.after.variance.numpy() + 1e-5) / (change.before.variance.numpy() + 1e-5))
        assert row["spread"] == pytest.approx(np.exp(np.log(ratio).mean()), rel=1e-5)
        assert row["mean shift"] == change.mean_shift
        assert row["images"] == len(small("segmentation")[1])
    assert start("dann").model.method.report() == ()


def test_a_copy_of_the_method_keeps_its_own_source() -> None:
    method = run().model.method
    copied = copy.deepcopy(method)
    copied.restore()
    assert differs(copied.net.state_dict(), method.net.state_dict())


def test_a_network_without_batch_norm_is_refused_before_the_run() -> None:
    with pytest.raises(UsageError, match=r"no BatchNorm.*dann or self-training"):
        start("adabn", net=network("classification", norm=False))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alpha": 0.5, "prior": 4}, "give one of them"),
        ({"mode": "ema", "alpha": 0.5}, "lower momentum"),
        ({"layers": ("botleneck",)}, "did you mean"),
        ({"alpha": 2}, "alpha"),
    ],
)
def test_bad_settings_are_refused_before_the_run(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        find("adabn")(unet(), build("segmentation", ("ground", "shape")), plan(), **settings)
