"""Label2Image-DA where each pixel has a label: its updates against plain functions of the same batch and noise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import toys
from runs import network, plan, small, start
from torch.nn import functional

from acclimate.engine.generated import generated_grid
from acclimate.methods import Sweep, Train, find
from acclimate.networks.generators import Generator
from acclimate.networks.translators import LabelGenerator
from acclimate.tasks import build

bce = functional.binary_cross_entropy_with_logits


def caught(step: str, **more: Any) -> tuple[Any, dict[str, Any], torch.Tensor, list[Any]]:
    """The first call of ``step``: the method before it, its batches, the random state, and what each update was given."""
    kind, found, updates = find("label2image-da"), {}, []

    def watched(self: Any, **given: Any) -> Any:
        found.update(method=copy.deepcopy(self), random=torch.get_rng_state(), batches=given)
        getattr(kind, step)(self, **given)
        raise StopIteration

    def catch_draw(self: Any, source: Any, target: Any, at: Any) -> Any:
        return watched(self, source=source, target=target, at=at)

    def update(self: Any, terms: Any, *players: str) -> None:
        if found:
            values = {name: value.detach().clone() for name, value in terms.items()}
            updates.append((values, players, copy.deepcopy(self)))
        kind.update(self, terms, *players)

    with pytest.raises(StopIteration):
        start(type("Watched", (kind,), {step: catch_draw, "update": update}), "segmentation", **more)
    return found["method"], found["batches"], found["random"], updates


@pytest.mark.parametrize("step", ["draw_maps", "adapt"])
def test_critic_and_generator_play_over_patches_of_the_source_s_label_maps(step: str) -> None:
    method, batches, random, updates = caught(step, semantic=0.3)
    y = batches["source"].y
    assert y.shape == (8, toys.SIDE, toys.SIDE)
    torch.set_rng_state(random)
    x = method.generator(y)
    real, fake = method.critic(batches["target"].x), method.critic(x)
    expected = (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))) / 2
    assert updates[0][1] == ("critic",)
    torch.testing.assert_close(updates[0][0], {"critic": expected.detach()})
    moved = updates[1][2].eval()
    assert updates[1][1] == ("generator",)
    torch.testing.assert_close(
        updates[1][0],
        {
            "adversarial": bce(moved.critic(x), torch.ones_like(fake)).detach(),
            "semantic": 0.3 * functional.cross_entropy(moved.net(x).logits, y).detach(),
        },
    )


def test_the_network_learns_from_the_drawn_pairs() -> None:
    method, batches, random, updates = caught("adapt", generated=0.7, regulariser="none")
    torch.set_rng_state(random)
    source = batches["source"]
    x, net = method.generator(source.y), copy.deepcopy(method.net).train()
    expected = {
        "supervised": functional.cross_entropy(net(source.x).logits, source.y),
        "generated": 0.7 * functional.cross_entropy(net(x).logits, source.y),
    }
    assert updates[2][1] == ("net",)
    torch.testing.assert_close(updates[2][0], {name: value.detach() for name, value in expected.items()})


def test_ignored_pixels_count_nowhere() -> None:
    method, batches, *_ = caught("draw_maps")
    y = batches["source"].y.clone()
    y[:, :8] = -1
    seen: list[dict[str, Any]] = []
    method.update = lambda terms, *players: seen.append(dict(terms))
    torch.manual_seed(0)
    x, _, watched = method.play(batches["target"].x, y)
    logits = copy.deepcopy(method.net).eval()(x).logits
    torch.testing.assert_close(
        seen[1]["semantic"], method.settings.semantic * functional.cross_entropy(logits[:, :, 8:], y[:, 8:])
    )
    torch.testing.assert_close(watched["drawn as asked"], (logits.argmax(1) == y)[:, 8:].float().mean())


def test_streams_and_networks_follow_the_task() -> None:
    def made(task: str) -> Any:
        parts = (network(task), build(task, small(task)[0].classes), plan(steps=10))
        return find("label2image-da")(*parts, **toys.SETTINGS["label2image-da"])

    maps, classes = made("segmentation"), made("classification")
    assert isinstance(maps.generator, LabelGenerator)
    assert isinstance(classes.generator, Generator)
    streams = {
        kind: [(stage.step, stage.streams) for stage in method.stages()]
        for kind, method in (("maps", maps), ("classes", classes))
    }
    assert streams["classes"][2] == ("draw", ("target",))
    assert streams["maps"][2] == ("draw_maps", ("source", "target"))
    assert streams["maps"][:2] + streams["maps"][3:] == streams["classes"][:2] + streams["classes"][3:]
    assert [type(stage) for stage in maps.stages()] == [Train, Sweep, Train, Train]


def test_draws_images_of_label_maps_and_none_of_a_class() -> None:
    model = start("label2image-da", "segmentation").model
    y = torch.as_tensor(small("segmentation")[0].labels[:3]).long()
    images = model.method.generate(y)
    assert images.shape == (3, 1, *y.shape[1:])
    assert not images.requires_grad
    assert images.abs().max() <= 1
    assert model.method.generate(torch.tensor([0, 1])) is None
    assert generated_grid(model) is None
