"""FCN-8s: VGG-16's numbers and file, and the paper's three scores against one convolution."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from acclimate.engine.optimisers import groups, lr_scales
from acclimate.errors import DataError, UsageError
from acclimate.networks import build
from acclimate.networks.fcn8s import LAYERS, FCN8s

SMALL = {"size": 64, "width": 1 / 16}


def test_number_of_parameters_is_vgg_s_and_three_scores():
    with torch.device("meta"):
        module = FCN8s(21, 3, 1.0, 0.5, (1.0, 1.0))
    vgg16, last = 138_357_544, 4096 * 1000 + 1000  # torchvision's documentation
    counted = sum(p.numel() for p in module.parameters())
    assert counted - sum(p.numel() for p in module.head.parameters()) == vgg16 - last
    assert counted == vgg16 - last + 21 * (4096 + 512 + 256) + 21
    assert len([m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]) == 13 + 2 + 1


def test_sizes():
    net = build("fcn8s", classes=21, size=(64, 128), width=1 / 16)
    assert net.shapes == {
        "pool3": (16, 8, 16),
        "pool4": (32, 4, 8),
        "fc7": (256, 2, 4),
        "features": (304, 8, 16),
        "logits": (21, 64, 128),
    }


def bilinear(classes, factor):
    """The weights with which the paper fills its transposed convolutions."""
    side = 2 * factor
    one = 1 - (torch.arange(side) - (side - 1) / 2).abs() / factor
    weight = torch.zeros(classes, classes, side, side)
    weight[range(classes), range(classes)] = one[:, None] * one[None]
    return weight


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.01, 0.0001), (0.5, 2.0)])
def test_is_the_sum_of_three_scores_as_in_the_paper(scales):
    torch.manual_seed(0)
    net = build("fcn8s", classes=4, **{**SMALL, "size": 128}, skip_scales=scales).eval()
    x = torch.randn(2, 3, 128, 128)
    out = net(x)
    weight, bias = net.head.weight, net.head.bias
    parts = weight.split([256, 32, 16], dim=1)
    fc7, pool4, pool3 = (out.taps[name] for name in ("fc7", "pool4", "pool3"))

    def up(scores, factor):
        return F.conv_transpose2d(scores, bilinear(4, factor), stride=factor, padding=factor // 2)

    scores = up(F.conv2d(fc7, parts[0]), 2) + F.conv2d(scales[0] * pool4, parts[1])
    scores = up(scores, 2) + F.conv2d(scales[1] * pool3, parts[2], bias)
    inner = slice(40, -40)  # a transposed convolution sees zeros beyond the border
    assert out.logits.std() > 0.01
    torch.testing.assert_close(out.logits[..., inner, inner], up(scores, 8)[..., inner, inner], rtol=1e-4, atol=1e-4)


def test_images_of_any_size_are_padded_and_cropped():
    net = build("fcn8s", classes=4, channels=1, **SMALL).eval()
    x = torch.randn(2, 1, 45, 61)
    padded = F.pad(x, (0, 3, 0, 19), mode="replicate")
    assert net(x).logits.shape == (2, 4, 45, 61)
    torch.testing.assert_close(net(x).logits, net(padded).logits[:, :, :45, :61])


def test_every_weight_learns():
    net = build("fcn8s", classes=3, **SMALL)
    net(torch.randn(2, 3, 64, 64)).logits.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of torchvision's convolutions
CHANNELS = (3, 4, 4, 8, 8, 16, 16, 16, 32, 32, 32, 32, 32, 32)  # a sixteenth


def vgg16():
    """A file as torchvision has it, a sixteenth as wide."""
    torch.manual_seed(1)
    found = {}
    for place, inputs, outputs in zip(PLACES, CHANNELS, CHANNELS[1:]):
        found[f"features.{place}.weight"] = torch.randn(outputs, inputs, 3, 3) / (4.5 * inputs) ** 0.5
        found[f"features.{place}.bias"] = torch.randn(outputs) / 10
    for place, inputs, outputs in ((0, 32 * 49, 256), (3, 256, 256), (6, 256, 1000)):
        found[f"classifier.{place}.weight"] = torch.randn(outputs, inputs) / (inputs / 2) ** 0.5
        found[f"classifier.{place}.bias"] = torch.randn(outputs) / 10
    return found


def test_weights_of_a_file_give_its_own_classifier_s_activations(tmp_path):
    w = vgg16()
    torch.save(w, tmp_path / "vgg16.pth")
    net = build("fcn8s", classes=5, **SMALL, weights=str(tmp_path / "vgg16.pth")).eval()
    x = torch.randn(1, 3, 224, 224)
    y = x
    for place in PLACES:
        y = F.relu(F.conv2d(y, w[f"features.{place}.weight"], w[f"features.{place}.bias"], padding=1))
        if place in (2, 7, 14, 21, 28):
            y = F.max_pool2d(y, 2)
    y = y.flatten(1)
    for name in ("classifier.0", "classifier.3"):
        y = F.relu(F.linear(y, w[f"{name}.weight"], w[f"{name}.bias"]))
    assert y.std() > 0.1
    torch.testing.assert_close(net(x).taps["fc7"][:, :, 3, 3], y, rtol=1e-3, atol=1e-4)
    assert net.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    found = groups(net, lr_scales(net))
    slow = {id(p) for group in found if group["lr_scale"] == 0.1 for p in group["params"]}
    assert slow == {id(p) for name in LAYERS for p in net.module.get_submodule(name).parameters()}
    assert {id(p) for p in net.head_parameters()}.isdisjoint(slow)


def test_grey_images_see_the_sum_of_the_filters(tmp_path):
    torch.save(vgg16(), tmp_path / "w.pth")
    nets = [build("fcn8s", classes=3, channels=c, **SMALL, weights=str(tmp_path / "w.pth")).eval() for c in (1, 3)]
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(nets[0].features(x), nets[1].features(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_the_recipe_needs_no_file_and_keeps_the_rates(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(vgg16(), path)
    net = build("fcn8s", classes=3, **SMALL, weights=str(path), skip_scales=(0.5, 0.25))
    path.unlink()
    recipe = json.loads(json.dumps(net.recipe))
    assert str(tmp_path) not in json.dumps(recipe)
    again = build(recipe["name"], **recipe["settings"])
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(again.eval()(x).logits, net.eval()(x).logits)
    assert (again.recipe, again.lr_scales) == (net.recipe, net.lr_scales)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda w: w.pop("features.14.bias"), {}, r"lacks features\.14\.bias"),
        (lambda w: w.update({"features.1.weight": torch.ones(4)}), {}, r"also has features\.1\.weight"),
        (lambda w: None, {"width": 1 / 8}, r"has another shape of features\.0\.weight and \d+ more"),
        (lambda w: None, {"channels": 4}, r"has another shape of features\.0\.weight; .* 3 or 1 channels"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, settings, message):
    given = vgg16()
    change(given)
    torch.save(given, tmp_path / "w.pth")
    with pytest.raises(DataError, match=message):
        build("fcn8s", **{"classes": 3, **SMALL, "weights": str(tmp_path / "w.pth"), **settings})


@pytest.mark.parametrize("settings", [{"width": 0.01}, {"skip_scales": (1.0,)}])
def test_mistakes_are_named(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        build("fcn8s", classes=2, **{**SMALL, **settings})
