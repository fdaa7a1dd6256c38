"""SUIT, the game of translation and the average of weights: against plain functions of the same batch."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from runs import Killed, assert_same, network, on_tick, plan, small, start, state
from torch.nn import functional

from acclimate.engine.translate import translate
from acclimate.methods import Train, find
from acclimate.plan import Optimiser
from acclimate.tasks import build

SMALL = toys.SETTINGS["suit"]


def caught(at: int = 4, **more: Any) -> tuple[Any, dict[str, Any], list[Any]]:
    """Step ``at`` of the translation: the method before it, its batches, and (terms, players, method before) per update."""
    kind, found, updates, calls = find("suit"), {}, [], iter(range(100))

    class Watched(kind):  # type: ignore[misc, valid-type]
        def adapt(self, source: Any, target: Any, at: Any) -> Any:
            if next(calls) == wanted:
                found.update(method=copy.deepcopy(self), source=source, target=target, at=at)
                super().adapt(source, target, at)
                raise StopIteration
            return super().adapt(source, target, at)

        def update(self, terms: Any, *players: str) -> None:
            if found:
                values = {name: value.detach().clone() for name, value in terms.items()}
                updates.append((values, players, copy.deepcopy(self)))
            super().update(terms, *players)

    wanted = at
    with pytest.raises(StopIteration):
        start(Watched, "segmentation", how=plan(steps=20), **more)
    return found.pop("method"), found, updates


@pytest.mark.parametrize("form", ["vanilla", "least-squares"])
def test_each_player_minimises_its_formula(form: str) -> None:
    """Step 10 of 20, with a warm-up of 0.3 and a ramp of 0.5: lambda_s stands at (0.5 - 0.3) / 0.5."""
    more = {"form": form, "semantic": 0.7, "content": 0.4, "ramp": 0.5}
    method, batches, updates = caught(**more)
    xs, ys, xt = batches["source"].x, batches["source"].y, batches["target"].x
    assert batches["at"].fraction == pytest.approx(0.5)
    assert [players for _, players, _ in updates] == [("critic",), ("generator",), ("net",)]
    x = method.generator(xs)
    real, fake = (method.critic(images) for images in (xt, x))
    bce, mse = functional.binary_cross_entropy_with_logits, functional.mse_loss
    gap = bce if form == "vanilla" else mse
    expected = (gap(real, torch.ones_like(real)) + gap(fake, torch.zeros_like(fake))) / 2
    torch.testing.assert_close(updates[0][0], {"critic": expected.detach()})
    moved = updates[1][2]
    judge = copy.deepcopy(moved.net).train()
    fa, fb = (functional.instance_norm(moved.extractor(images).features) for images in (x, xs))
    fake = copy.deepcopy(moved).critic.eval()(x)  # its estimates are those that the critic's last call has refined
    torch.testing.assert_close(
        updates[1][0],
        {
            "adversarial": gap(fake, torch.ones_like(fake)).detach(),
            "semantic": 0.4 * 0.7 * functional.cross_entropy(judge(x).logits, ys).detach(),
            "content": 0.4 * mse(fa, fb).detach(),
        },
    )
    losses = [functional.cross_entropy(judge(images).logits, ys).detach() for images in (xs, x)]
    torch.testing.assert_close(updates[2][0], dict(zip(("supervised", "translated"), losses)))


def test_the_translated_image_is_drawn_before_the_generator_moves_and_leaves_it_alone() -> None:
    """The network's update reaches no weight of the generator; each update moves its own player only."""
    method, _, updates = caught()
    states = [one.state_dict() for _, _, one in updates]
    moved = [
        {n.split(".")[0] for n, _ in method.named_parameters() if not torch.equal(a[n], b[n])}
        for a, b in itertools.pairwise(states)
    ]
    assert moved == [{"critic"}, {"generator"}]


def test_content_is_told_by_the_network_as_the_warm_up_left_it() -> None:
    method, *_ = caught()
    trained = dict(start("source-only", "segmentation", how=plan(steps=6)).model.method.net.named_parameters())
    assert not method.extractor.training
    for name, value in method.extractor.named_parameters():
        torch.testing.assert_close(value, trained[name])
        assert not torch.equal(value, dict(method.net.named_parameters())[name])


def test_without_warm_up_it_begins_from_the_network_that_is_given() -> None:
    net = network("segmentation", seed=5)
    method, *_ = caught(at=0, net=net, warm_up=0.0)
    for name, value in net.named_parameters():
        assert torch.equal(value, dict(method.extractor.named_parameters())[name])
        assert torch.equal(value, dict(method.net.named_parameters())[name])


@pytest.mark.parametrize("restat", ["target", "translated", "none"])
def test_ends_with_the_statistics_that_are_asked_for(restat: str) -> None:
    method = start("suit", how=plan(steps=6), restat=restat).model.method
    source, target, _ = small("segmentation")
    conv, norm = method.net.module.body[:2]
    images = torch.from_numpy(np.asarray((target if restat == "target" else source).images)).permute(0, 3, 1, 2)
    x = images / 127.5 - 1
    z = conv(method.generator(x) if restat == "translated" else x).transpose(0, 1).flatten(1)
    same = torch.allclose(norm.running_mean, z.mean(1), rtol=1e-3, atol=1e-4)
    assert same == (restat != "none")


def test_translates_a_domain_of_whole_images() -> None:
    model = start("suit", how=plan(steps=20)).model
    source = small("segmentation")[0]
    drawn = translate(model, source)
    x = torch.from_numpy(np.asarray(source.images)).permute(0, 3, 1, 2) / 127.5 - 1
    v = (model.method.generator(x) + 1) * 127.5
    assert np.abs(np.stack(list(drawn.images)) - v.permute(0, 2, 3, 1).detach().numpy()).max() <= 0.51
    assert not np.array_equal(np.stack(list(drawn.images)), np.asarray(source.images))
    assert not model.method.translate(x).requires_grad
    joined = source.joined(drawn)
    run = start("source-only", "segmentation", how=plan(steps=3), pair=(joined, None))
    assert len(joined) == 24
    assert np.isfinite(run.history[-1]["supervised"])


def test_translated_images_come_nearer_to_the_target() -> None:
    """The toy's target is darker: means of 0.48 and 0.23; the generator has only the critic to learn that from."""
    source, target, _ = toys.segmentation(24)
    how = plan(steps=120, optimiser=Optimiser(lr=0.02))
    model = start("suit", how=how, pair=(source, target), warm_up=0.1, generator_lr=5e-3, critic_lr=5e-3).model
    drawn = translate(model, source)
    there, before, after = (np.mean([np.mean(image) for image in d.images]) for d in (target, source, drawn))
    assert abs(after - there) < 0.5 * abs(before - there)


# -- averages ---------------------------------------------------------------------------------------------------------


def trajectory(**more: Any) -> tuple[dict[int, torch.Tensor], Any]:
    """A weight of the network after each step of the whole run, and the method at the end."""
    kind, seen = find("suit"), {}

    class Watched(kind):  # type: ignore[misc, valid-type]
        def update(self, terms: Any, *players: str) -> None:
            super().update(terms, *players)
            if "net" in players:
                seen[len(seen) + 1] = self.net.module.head.weight.detach().clone()

    return seen, start(Watched, "segmentation", how=plan(steps=20), **more).model.method


def test_without_an_average_the_last_weights_predict() -> None:
    seen, method = trajectory()
    assert torch.equal(method.net.module.head.weight, seen[20])


def test_a_running_mean_begins_with_the_weights_where_it_is_said_to() -> None:
    """Steps 7..20 translate; from their middle, after step 13, a <- .8 a + .2 theta."""
    seen, method = trajectory(average="ema", decay=0.8)
    mean = seen[13].clone()
    for step in range(14, 21):
        mean = 0.8 * mean + 0.2 * seen[step]
    torch.testing.assert_close(method.net.module.head.weight, mean)


def test_snapshots_are_averaged_evenly() -> None:
    """Three of them: after steps 13, 16 (13 + 7 // 2) and 20."""
    seen, method = trajectory(average="swa", snapshots=3)
    torch.testing.assert_close(method.net.module.head.weight, (seen[13] + seen[16] + seen[20]) / 3)


def test_averaging_changes_no_step() -> None:
    plain, ema, swa = (trajectory(average=how)[0] for how in ("none", "ema", "swa"))
    for step in plain:
        torch.testing.assert_close(ema[step], plain[step])
        torch.testing.assert_close(swa[step], plain[step])


@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_stages_share_the_steps_in_one_schedule(average: str) -> None:
    task = build("segmentation", small("segmentation")[0].classes)
    for steps in (1, 2, 3, 9, 77, 1000):
        method = find("suit")(network("segmentation"), task, plan(steps=steps), **SMALL, average=average)
        trains = [stage for stage in method.stages() if isinstance(stage, Train)]
        assert sum(stage.steps for stage in trains) == steps
        assert min(stage.steps for stage in trains) >= 1
        assert (trains[0].part[0], trains[-1].part[1]) == (0, 1)
        assert all(a.part[1] == b.part[0] and b.continues for a, b in itertools.pairwise(trains))
        assert len({stage.name for stage in method.stages()}) == len(method.stages())


@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("at", [20, 28])
def test_an_average_survives_a_crash(average: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 steps, 4 of which warm up with one update each; the average begins after step 8."""
    more = {"average": average, "snapshots": 3, "decay": 0.5, "how": plan(steps=12, save_every=2)}

    def crash(tick: int) -> None:
        if tick == at:
            raise Killed

    with monkeypatch.context() as patch:
        on_tick(patch, crash)
        with pytest.raises(Killed):
            start("suit", folder=tmp_path, **more)
    assert_same(state(start("suit", folder=tmp_path, **more)), state(start("suit", **more)))
