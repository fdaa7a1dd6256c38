"""Windows, scales and mirror images: equal to a plain pass, or to an average made by hand, where they have to be."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from runs import network
from torch import Tensor, nn
from torch.nn import functional

from acclimate import networks, tasks
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.inference import PLAIN, Inference, averaged, hann, slide, windows
from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.methods import find
from acclimate.networks.contract import Network
from acclimate.plan import Plan

SEGMENTATION = tasks.build("segmentation", ("a", "b", "c"))


def model(module: nn.Module, inference: Inference = PLAIN, **preprocess: Any) -> Model:
    """Source-only around a module that ends in a layer named "1"."""
    net = Network(module, head="1", input_shape=(1, 16, 16))
    method = find("source-only")(net, SEGMENTATION, Plan())
    return Model(method, Preprocess(channels=1, crop=(16, 16), **preprocess), torch.device("cpu"), inference)


def pointwise() -> nn.Module:
    """Each pixel by itself."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 8, 1), nn.Tanh()), nn.Conv2d(8, 3, 1))


def spatial() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh()), nn.Conv2d(8, 3, 3, padding=1))


def images(*sizes: tuple[int, int]) -> Domain:
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (*size, 1), np.uint8) for size in sizes]
    return Domain("d", "segmentation", ("a", "b", "c"), made, None, [str(size) for size in sizes])


def logits(asked: Model, domain: Domain) -> list[Tensor]:
    found = {i: z for index, zs in asked.logits(domain) for i, z in zip(index, zs)}
    return [found[i] for i in range(len(domain))]


@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("window", [(192, 192), (32, 48), (7, 300)])
def test_windows_change_nothing_where_a_network_sees_one_pixel(window, overlap):
    domain = images((200, 230), (64, 48), (31, 250))
    plain = logits(model(pointwise()), domain)
    slid = logits(model(pointwise(), Inference(window=window, overlap=overlap)), domain)
    for a, b in zip(plain, slid):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 131), (17, 400), (16, 16)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_windows_cover_an_image_and_lie_within_it(height, width, overlap):
    seen = np.zeros((height, width), int)
    corners = windows(height, width, (16, 24), overlap)
    for top, left in corners:
        assert 0 <= top <= height - 16
        assert 0 <= left <= max(0, width - 24)
        seen[top : top + 16, left : left + 24] += 1
    assert seen.min() >= 1
    assert len(set(corners)) == len(corners)
    starts = sorted({top for top, _ in corners})
    assert all(b - a <= max(1, 16 * (1 - overlap)) for a, b in itertools.pairwise(starts))


def test_overlapping_windows_are_averaged_by_hann_weights():
    """Two windows of four pixels over six, each saying its own number: weights sin^2(pi (i + 1/2) / 4) by hand."""
    answers = iter([10.0, 20.0])
    x = torch.zeros(1, 1, 1, 6)

    def predict(batch: Tensor) -> Tensor:
        return torch.stack([torch.full((2, 1, 4), next(answers)) for _ in batch])

    z = slide(predict, x, Inference(window=(1, 4), overlap=0.5))
    low, high = np.sin(np.pi / 8) ** 2, np.sin(3 * np.pi / 8) ** 2
    middle = [(high * 10 + low * 20) / (low + high), (low * 10 + high * 20) / (low + high)]
    np.testing.assert_allclose(z[0, 1, 0], [10, 10, *middle, 20, 20], rtol=1e-6)
    np.testing.assert_allclose(hann(4), [low, high, high, low], rtol=1e-6)


def test_windows_pass_in_small_batches(monkeypatch):
    monkeypatch.setattr("acclimate.engine.inference.WINDOW_PIXELS", 3 * 64)
    sizes = []

    def predict(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return batch

    x = torch.rand(1, 2, 32, 32)
    torch.testing.assert_close(slide(predict, x, Inference(window=(8, 8), overlap=0.0)), x)
    assert sum(sizes) == 16
    assert max(sizes) == 3


def test_an_image_within_one_window_passes_once():
    calls = []
    x = torch.rand(1, 1, 12, 20)
    slide(lambda batch: calls.append(batch) or batch, x, Inference(window=(16, 32)))
    assert len(calls) == 1
    assert torch.equal(calls[0], x)


def test_scales_average_probabilities_of_resized_images():
    x = torch.randn(1, 1, 20, 30)
    net = spatial()
    with torch.no_grad():
        found = averaged(net, x, Inference(scales=(0.5, 1.0, 1.2)), (20, 30))
        small = functional.interpolate(x, (10, 15), mode="bilinear", antialias=True, align_corners=False)
        large = functional.interpolate(x, (24, 36), mode="bilinear", align_corners=False)
        by_hand = sum(
            functional.interpolate(net(scaled), (20, 30), mode="bilinear", align_corners=False).softmax(1)
            for scaled in (small, x, large)
        )
    torch.testing.assert_close(found.softmax(1), by_hand / 3, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 20, 30))


def test_flip_averages_with_the_mirror_image():
    x = torch.randn(1, 1, 9, 14)
    net = spatial()
    with torch.no_grad():
        found = averaged(net, x, Inference(flip=True), (9, 14))
        by_hand = (net(x).softmax(1) + net(x.flip(-1)).flip(-1).softmax(1)) / 2
        mirrored = averaged(net, x.flip(-1), Inference(flip=True), (9, 14))
    torch.testing.assert_close(found.softmax(1), by_hand, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mirrored.flip(-1), found)


def test_flip_leaves_a_symmetric_network_as_it_is():
    net = spatial()
    for layer in (net[0][0], net[1]):
        layer.weight.data = (layer.weight.data + layer.weight.data.flip(-1)) / 2
    domain = images((18, 22))
    plain, flipped = (logits(model(net, how), domain)[0].softmax(0) for how in (PLAIN, Inference(flip=True)))
    torch.testing.assert_close(flipped, plain, atol=1e-6, rtol=1e-5)


def test_all_at_once_returns_to_each_images_own_size():
    """Two sizes that become one when halved stay apart, and the window is one of the scaled image."""
    domain = images((40, 40), (39, 39), (40, 39))
    asked = model(spatial(), Inference(window=(16, 16), scales=(0.9, 1.0), flip=True), scale=0.5)
    found = logits(asked, domain)
    assert [tuple(z.shape) for z in found] == [(3, 40, 40), (3, 39, 39), (3, 40, 39)]
    assert all(torch.isfinite(z).all() for z in found)


def test_a_model_predicts_at_the_targets_scale():
    domain = images((40, 40))
    pair, one = (logits(model(spatial(), scale=scale), domain)[0] for scale in ((0.25, 0.5), 0.5))
    assert torch.equal(pair, one)
    assert not torch.equal(pair, logits(model(spatial(), scale=0.25), domain)[0])


def test_classification_averages_mirror_images_only():
    task = tasks.build("classification", ("bar", "cross", "ring"))
    method = find("source-only")(network("classification"), task, Plan())
    plain = Model(method, Preprocess(size=(16, 16)), torch.device("cpu"))
    rng = np.random.default_rng(0)
    domain = Domain(
        "d", "classification", task.classes, rng.integers(0, 256, (5, 16, 16, 3), np.uint8), None, list("abcde")
    )
    mirror = dataclasses.replace(domain, images=domain.images[:, :, ::-1])
    flipped = dataclasses.replace(plain, inference=Inference(flip=True))
    by_hand = [(a.softmax(0) + b.softmax(0)) / 2 for a, b in zip(logits(plain, domain), logits(plain, mirror))]
    torch.testing.assert_close(torch.stack(logits(flipped, domain)).softmax(1), torch.stack(by_hand))
    for wrong in (Inference(window=(8, 8)), Inference(scales=(1.0, 2.0))):
        with pytest.raises(UsageError, match="for segmentation"):
            dataclasses.replace(plain, inference=wrong)


def test_a_model_remembers_how_it_predicts_and_old_files_still_load(tmp_path):
    net = networks.build("unet", classes=3, channels=1, size=16, width=2, depth=1)
    plain = Model(find("source-only")(net, SEGMENTATION, Plan()), Preprocess(channels=1), torch.device("cpu"))
    plain.save(tmp_path / "plain")
    facts = json.loads((tmp_path / "plain" / "model.json").read_text())
    assert "inference" not in facts
    assert Model.load(tmp_path / "plain").inference == PLAIN
    how = Inference(window=(16, 24), overlap=1 / 3, scales=(0.9, 1.0, 1.2), flip=True)
    dataclasses.replace(plain, inference=how).save(tmp_path / "slid")
    assert Model.load(tmp_path / "slid").inference == how


@pytest.mark.parametrize(
    "wrong",
    [{"window": (0, 16)}, {"overlap": 1.0}, {"overlap": -0.1}, {"scales": ()}, {"scales": (0.0,)}, {"flips": 1}],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        Inference(**wrong)
