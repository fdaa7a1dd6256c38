from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import runs
import torch

from acclimate.data.domain import Domain
from acclimate.engine import seeing
from acclimate.errors import UsageError
from acclimate.networks.norm import batch_norms
from acclimate.selection.see import PIXELS, apart, drawn, see, with_consensus


class Poisoned:
    """Labels that must not be opened."""

    def __len__(self) -> int:
        return len(self.of)

    def __init__(self, of) -> None:
        self.of = of

    def __getitem__(self, index):
        raise AssertionError("a target label was read")


def poisoned(domain: Domain) -> Domain:
    return dataclasses.replace(domain, labels=Poisoned(domain.labels))


@pytest.fixture(scope="module", params=runs.TASKS)
def case(request):
    task = request.param
    source, target, test = runs.small(task)
    return task, runs.start("adabn", task).model, source, target, test


def test_rows_are_the_models_own_predictions(case) -> None:
    task, model, source, target, _ = case
    seen = see(model, poisoned(target), source, source)
    target = drawn(target, 1000, 0)
    every = {i: z for index, logits in model.logits(target) for i, z in zip(index, logits)}
    if task == "classification":
        assert torch.equal(seen.image_t, torch.arange(len(target)))
        torch.testing.assert_close(seen.zt, torch.stack([every[i] for i in range(len(target))]))
        x = next(iter(model_inputs(model, target)))
        torch.testing.assert_close(seen.ft[:1], model.method.net.features(x[:1]).flatten(1).detach())
    else:
        assert len(seen.zt) == PIXELS // len(target) * len(target)
        maps = [every[i].argmax(0) for i in range(len(target))]
        assert all(torch.equal(mask.long(), map_) for mask, map_ in zip(seen.masks_t, maps))
        for i in (0, len(target) - 1):  # each row is a pixel of its image
            pixels = every[i].flatten(1).T
            rows = seen.zt[seen.image_t == i][:20]
            assert all((pixels - row).abs().amax(1).min() < 1e-5 for row in rows)


def model_inputs(model, domain):
    from acclimate.engine.seeing import inputs

    return (x for _, x in inputs(model, domain, "target"))


def test_source_labels_stand_beside_their_rows(case) -> None:
    """Source-only, trained on this source: its predictions agree with the labels that are said to be theirs."""
    task, _, source, target, _ = case
    model = runs.start("source-only", task, how=runs.plan(steps=150)).model
    seen = see(model, target, source, source)
    counted = seen.ys >= 0
    assert (seen.zs.argmax(1) == seen.ys)[counted].float().mean() > 0.8
    assert len(seen.fs) == len(seen.zs) == len(seen.ys) == len(seen.image_s)
    if task == "segmentation":
        assert all(
            torch.equal(a.long(), torch.as_tensor(b).long())
            for a, b in zip(seen.masks_s, drawn(source, 1000, 0).labels)
        )


def test_the_source_is_seen_under_its_own_statistics(case) -> None:
    _, model, source, target, _ = case
    before = [layer.running_mean.clone() for _, layer in batch_norms(model.method.net)]
    seen = see(model, target, source, source)
    assert all(torch.equal(a, layer.running_mean) for a, (_, layer) in zip(before, batch_norms(model.method.net)))
    as_target = see(model, source)
    assert not torch.allclose(seen.fs, as_target.ft, atol=1e-3)


def test_the_same_rows_each_time_and_for_each_model(case) -> None:
    task, model, _, target, _ = case
    other = runs.start("source-only", task).model
    a, b, c = see(model, target), see(model, target), see(other, target)
    assert torch.equal(a.zt, b.zt)
    assert torch.equal(a.image_t, c.image_t)
    mean = torch.stack([a.zt.softmax(1), c.zt.softmax(1)]).mean(0)
    torch.testing.assert_close(with_consensus([a, c])[1].consensus, mean)
    assert a.fs is None
    assert a.masks_s is None


def test_models_that_see_other_pixels_have_no_consensus(case) -> None:
    _, model, _, target, _ = case
    a, b = see(model, target), see(model, target.subset(range(5)))
    with pytest.raises(UsageError, match="trained alike"):
        with_consensus([a, b])


def test_a_group_of_images_leaves_with_all_its_rows(case) -> None:
    task, model, source, target, _ = case
    seen = see(model, target, source, source).without(1, 4)
    assert set(seen.image_t.tolist()) == {i for i in range(len(target)) if i % 4 != 1}
    assert set(seen.image_s.tolist()) == {i for i in range(len(source)) if i % 4 != 1}
    assert len(seen.ys) == len(seen.fs) == len(seen.zs)
    if task == "segmentation":
        assert len(seen.masks_t) == len(set(seen.image_t.tolist()))


def test_images_come_in_a_drawn_order_that_is_the_same_each_time() -> None:
    target = runs.small("classification")[1]
    names = list(drawn(target, 1000, 0).names)
    assert sorted(names) == sorted(target.names)
    assert names != list(target.names)
    assert names == list(drawn(target, 1000, 0).names)


def test_pixels_do_not_depend_on_the_pieces_or_on_the_scale(monkeypatch) -> None:
    """A gradient as an image, and a network that hands it on: each row says where it was taken."""
    size = 60
    ramp = np.broadcast_to(np.linspace(0, 255, size)[:, None], (size, size))
    images = np.stack([ramp, ramp.T] * 2).astype(np.uint8)[..., None]
    domain = Domain("ramps", "segmentation", ("ground", "shape"), images, None, list("abcd"))
    model = runs.start("source-only", "segmentation").model
    monkeypatch.setattr(type(model.method), "predict", lambda self, x: x.repeat(1, 2, 1, 1))
    whole = see(model, domain)
    half = see(dataclasses.replace(model, preprocess=model.preprocess.replace(scale=0.5)), domain)
    assert (whole.zt - half.zt).abs().max() < 0.1  # of a range of 2, in normalised grey levels
    monkeypatch.setattr(seeing, "PIECE", 25)
    in_pieces = see(model, domain)
    torch.testing.assert_close(in_pieces.zt, whole.zt)
    assert torch.equal(in_pieces.image_t, whole.image_t)
    assert all(torch.equal(a, b) for a, b in zip(in_pieces.masks_t, whole.masks_t))


def test_only_networks_that_normalised_the_domains_apart_see_the_source_so() -> None:
    assert apart(runs.start("adabn", "classification").model.method)
    assert apart(runs.start("dann", "classification", norm="separate").model.method)
    assert not apart(runs.start("dann", "classification", norm="frozen").model.method)
    assert not apart(runs.start("source-only", "classification").model.method)
