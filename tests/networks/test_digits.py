"""The small networks have the sizes that their papers give."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from acclimate.networks import build
from acclimate.networks.digits import GaussianNoise


def dense(*widths: int) -> int:
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


def convolutions(*layers: tuple[int, int, int], bias: bool = True) -> int:
    return sum(a * b * k * k + bias * b for a, b, k in layers)


COUNTS = [
    ("dann-mnist", {}, 768, convolutions((3, 32, 5), (32, 48, 5)) + dense(768, 100, 100, 10)),
    ("dann-mnist", {"padding": "same"}, 2352, convolutions((3, 32, 5), (32, 48, 5)) + dense(2352, 100, 100, 10)),
    (
        "dann-mnist",
        {"norm": "batch"},
        768,
        convolutions((3, 32, 5), (32, 48, 5), bias=False) + 2 * (32 + 48) + dense(768, 100, 100, 10),
    ),
    (
        "dann-svhn",
        {},
        8192,
        convolutions((3, 64, 5), (64, 64, 5), (64, 128, 5)) + dense(8192, 3072, 2048, 10),
    ),
    (
        "dann-gtsrb",
        {},
        6400,
        convolutions((3, 96, 5), (96, 144, 3), (144, 256, 5)) + dense(6400, 512, 10),
    ),
    ("lenet", {"channels": 1}, 500, convolutions((1, 20, 5), (20, 50, 5)) + dense(800, 500, 10)),
    (
        "dtn",
        {},
        512,
        convolutions((3, 64, 5), (64, 128, 5), (128, 256, 5), bias=False)
        + 2 * (64 + 128 + 256)
        + (4096 * 512 + 2 * 512)
        + dense(512, 10),
    ),
    (
        "vada-small",
        {},
        64,
        convolutions((3, 64, 3), *[(64, 64, 3)] * 8, bias=False) + 9 * 2 * 64 + 64 * 10 + 2 * 10,
    ),
]


@pytest.mark.parametrize(("name", "settings", "features", "count"), COUNTS)
def test_features_and_weights_as_published(name, settings, features, count):
    net = build(name, classes=10, **settings)
    assert net.shapes["features"] == (features,)
    assert sum(p.numel() for p in net.parameters()) == count


def test_vada_aligns_after_the_second_noise_layer():
    net = build("vada-small", classes=10)
    assert net.align == "low"
    assert net.shapes["low"] == (4096,)
    low = list(net.module.low)
    assert sum(isinstance(layer, GaussianNoise) for layer in low) == 2
    assert isinstance(low[-2], GaussianNoise)
    assert isinstance(net.head[-1], nn.BatchNorm1d)


def test_instance_norm_forgets_the_contrast_of_an_image():
    torch.manual_seed(0)
    x = torch.rand(4, 3, 32, 32)

    def moved(instance_norm: bool) -> float:
        net = build("vada-small", classes=10, width=8, instance_norm=instance_norm).eval()
        before, after = net(x).logits, net(3 * x + 1).logits
        return ((before - after).abs().max() / before.abs().max()).item()

    assert moved(True) < 0.05 < 0.5 < moved(False)


def test_noise_acts_while_training_only():
    noise, x = GaussianNoise(2.0), torch.zeros(100_000)
    assert torch.equal(noise.eval()(x), x)
    assert noise.train()(x).std().item() == pytest.approx(2.0, rel=0.02)


def test_batch_norm_of_dann_is_where_adaptation_needs_it():
    layers = [type(layer).__name__ for layer in build("dann-mnist", classes=2, norm="batch").module.body]
    assert layers == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 2 + ["Flatten"]
