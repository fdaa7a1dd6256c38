"""Histogram matching as a method: what it counts, what the network is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import toys
from runs import network, plan, small, start, state
from torch.nn import functional

from acclimate.data.preprocess import Preprocess
from acclimate.methods import Sweep, find
from acclimate.plan import Optimiser
from acclimate.tasks import build
from acclimate.transforms.histogram import LOWEST

REFERENCES = ("domain", "image-to-domain", "image")


def map_of(source: np.ndarray, target: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The levels ``x`` under the monotone map of all of ``source`` to all of ``target``."""
    levels, counts = np.unique(source, return_counts=True)
    wanted, template = np.unique(target, return_counts=True)
    map_ = np.interp(np.cumsum(counts) / source.size, np.cumsum(template) / target.size, wanted)
    return np.interp(x, levels, map_)


def trained_on(**more: Any) -> tuple[Any, list[tuple[Any, Any, torch.Tensor, torch.Tensor]]]:
    """The method after a run, and for each step: source batch, target batch or None, the network's input, the loss."""
    kind = find("histogram-matching")
    seen: list[Any] = []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def step(self, source: Any, at: Any) -> Any:
            seen.append([source, None])
            return super().step(source, at)

        def step_pairs(self, source: Any, target: Any, at: Any) -> Any:
            seen.append([source, target])
            return super().step_pairs(source, target, at)

        def update(self, terms: Any, *players: str) -> None:
            assert set(terms) == {"translated"}
            assert players == ("net",)
            seen[-1].append(terms["translated"].detach())
            super().update(terms, *players)

    def look(module: Any, inputs: Any) -> None:
        if seen and module.training:
            seen[-1].append(inputs[0].detach().clone())

    net = network("segmentation")
    with torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: look(module, inputs) if isinstance(module, toys.SmallSegmenter) else None
    ):
        adapted = start(Watched, "segmentation", net=net, **more)
    return adapted.model.method, [tuple(s) for s in seen]


def test_counts_every_pixel_of_both_domains() -> None:
    source, target, _ = small("segmentation")
    method, _ = trained_on(how=plan(steps=1))
    for domain, found in ((source, method.source_levels), (target, method.target_levels)):
        expected = np.bincount(np.asarray(domain.images).ravel(), minlength=256)
        assert found[0, -LOWEST : 256 - LOWEST].tolist() == expected.tolist()
        assert found.sum() == expected.sum()


def test_translates_by_the_map_of_the_whole_domains() -> None:
    source, target, _ = small("segmentation")
    method, steps = trained_on(how=plan(steps=1))
    levels = np.asarray(source.images)[:2]
    x = torch.from_numpy(levels).permute(0, 3, 1, 2) / 127.5 - 1
    expected = map_of(np.asarray(source.images), np.asarray(target.images), levels)
    np.testing.assert_allclose(127.5 * (method.translate(x)[:, 0].numpy() + 1), expected[..., 0], atol=1e-2)
    batch, _, seen, _ = steps[0]
    torch.testing.assert_close(seen, method.translate(batch.x))
    assert not torch.equal(seen, batch.x)


def test_a_crop_is_matched_to_the_target_crop_in_its_row() -> None:
    _, steps = trained_on(how=plan(steps=2), reference="image")
    for source, target, seen, _ in steps:
        for xs, xt, x in zip(source.x, target.x, seen):
            s, t = (127.5 * (v.numpy() + 1) for v in (xs, xt))
            np.testing.assert_allclose(127.5 * (x.numpy() + 1), map_of(s.round(), t.round(), s), atol=2e-2)


def test_an_image_on_its_own_is_matched_to_the_whole_target() -> None:
    target = np.asarray(small("segmentation")[1].images)
    _, steps = trained_on(how=plan(steps=1), reference="image-to-domain")
    source, _, seen, _ = steps[0]
    for xs, x in zip(source.x, seen):
        s = 127.5 * (xs.numpy() + 1)
        np.testing.assert_allclose(127.5 * (x.numpy() + 1), map_of(s.round(), target, s), atol=2e-2)


def test_the_loss_is_the_cross_entropy_of_matched_images() -> None:
    kind, caught = find("histogram-matching"), []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def update(self, terms: Any, *players: str) -> None:
            caught.append((terms["translated"].detach(), self.net(self.translate(self.batch.x)).logits.detach()))

        def step(self, source: Any, at: Any) -> Any:
            self.batch = source
            super().step(source, at)
            loss, logits = caught[0]
            torch.testing.assert_close(loss, functional.cross_entropy(logits, source.y, ignore_index=-1))
            raise StopIteration

    with pytest.raises(StopIteration):
        start(Watched, "segmentation")


def test_about_the_share_that_probability_says_is_matched() -> None:
    _, steps = trained_on(how=plan(steps=40), probability=0.25)
    same = [torch.equal(a, b) for source, _, seen, _ in steps for a, b in zip(source.x, seen)]
    assert 0.18 < 1 - sum(same) / len(same) < 0.32


def test_another_normalisation_of_the_images_gives_the_same_images() -> None:
    """The network believes in a mean and deviation of .5; the images come with those of ImageNet."""
    found = {}
    for mean, std in ((0.5, 0.5), (0.45, 0.22)):
        preprocess = Preprocess(crop=(16, 16), channels=1, mean=mean, std=std)
        method = start("histogram-matching", "segmentation", how=plan(steps=1), preprocess=preprocess).model.method
        v = torch.arange(60, 240).float().view(1, 1, 1, -1) / 255
        found[mean] = method.translate((v - mean) / std) * std + mean
    torch.testing.assert_close(found[0.45], found[0.5], atol=0.6 / 255, rtol=0)


def test_restat_gives_the_statistics_of_the_target_at_the_end() -> None:
    target = torch.from_numpy(np.asarray(small("segmentation")[1].images)).permute(0, 3, 1, 2) / 127.5 - 1
    for restat in (False, True):
        net = start("histogram-matching", "segmentation", restat=restat).model.method.net.module.body
        z = net[0](target).detach().transpose(0, 1).flatten(1).mean(1)
        assert torch.allclose(net[1].running_mean, z, atol=1e-4) is restat


def test_stages_are_those_that_the_reference_needs() -> None:
    task = build("segmentation", ("a", "b"))
    names = {
        reference: [(stage.name, stage.streams) for stage in made.stages()]
        for reference in REFERENCES
        for made in [
            find("histogram-matching")(network("segmentation"), task, plan(), reference=reference, restat=True)
        ]
    }
    of_target, last = ("target levels", ("target",)), ("statistics", ("target",))
    assert names == {
        "domain": [("source levels", ("source",)), of_target, ("adapt", ("source",)), last],
        "image-to-domain": [of_target, ("adapt", ("source",)), last],
        "image": [of_target, ("adapt", ("source", "target")), last],
    }
    plain = find("histogram-matching")(network("segmentation", norm=False), task, plan()).stages()
    assert not isinstance(plain[-1], Sweep)


def test_works_from_a_trained_network_and_ends_elsewhere() -> None:
    trained = start("source-only", "segmentation", how=plan(optimiser=Optimiser(lr=0.1))).model.method.net
    ended = state(start("histogram-matching", "segmentation", net=trained))
    assert any(not torch.equal(value, ended[f"net.{name}"]) for name, value in trained.state_dict().items())
