"""Networks by name: every one that needs no further setting keeps the contract."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from acclimate import registry
from acclimate.errors import UsageError
from acclimate.networks import Network, build, card

SMALL = ["dann-mnist", "dann-gtsrb", "lenet", "dtn", "vada-small", "unet"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_keeps_the_contract(name, channels):
    torch.manual_seed(0)
    net = build(name, classes=5, channels=channels)
    side = card(name).size
    x = torch.randn(2, channels, side, side)
    output = net(x)
    spatial = (side, side) if card(name).task == "segmentation" else ()
    assert output.logits.shape == (2, 5, *spatial)
    assert output.features.shape == (2, *net.shapes["features"])
    assert {tap: tuple(value.shape[1:]) for tap, value in output.taps.items()}.items() <= net.shapes.items()
    assert net.aligned(output).shape[1:] == net.shapes[net.align]
    output.logits.square().mean().backward()
    # A bias in front of BatchNorm would have a gradient of zero: no network shall have such dead weights.
    assert [key for key, p in net.named_parameters() if p.grad is None] == []
    assert net.input_shape == (channels, side, side)


@pytest.mark.parametrize("name", SMALL)
def test_the_recipe_makes_the_same_architecture(name):
    net = build(name, classes=3, channels=1)
    recipe = json.loads(json.dumps(net.recipe))
    again = build(recipe["name"], **recipe["settings"])
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, *net.input_shape)
    torch.testing.assert_close(again.eval()(x).logits, net.eval()(x).logits)
    assert again.recipe == net.recipe
    assert copy.deepcopy(net).recipe == net.recipe


def test_the_recipe_holds_defaults():
    assert build("dann-mnist", classes=10, padding="same").recipe == {
        "name": "dann-mnist",
        "settings": {"classes": 10, "channels": 3, "size": [28, 28], "padding": "same", "norm": "none"},
    }


def test_sizes_other_than_square():
    net = build("unet", classes=2, channels=1, size=(32, 48), width=2, depth=2)
    assert net.shapes["logits"] == (2, 32, 48)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build("unett", classes=2), "did you mean 'unet'"),
        (lambda: build("unet", classes=2, widht=8), "'widht' of network 'unet'; did you mean 'width'"),
        (lambda: build("unet", classes=0), "at least one class"),
        (lambda: build("unet", classes=2, size=(1, 2, 3)), "height, width"),
        (lambda: build("unet", classes=2, norm="layer"), "norm is one of"),
        (lambda: build("dann-mnist", classes=2, padding="full"), "padding is one of valid, same"),
        (lambda: build("dann-mnist", classes=2, size=8), "too small"),
        (lambda: build("lenet", classes=2, size=8), "too small"),
        (lambda: build("unet", classes=2, size=8, depth=4), "too small"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_every_registered_network_has_a_card():
    for name in registry.names("networks"):
        found = card(name)
        assert found.summary.endswith("."), name
        assert found.size >= 28


def test_networks_are_networks():
    assert isinstance(build("lenet", classes=2), Network)
