"""ResNets: torchvision's names and numbers, transformers' outputs, and files of weights that fit or are refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from acclimate.engine.optimisers import groups, lr_scales
from acclimate.errors import DataError, UsageError
from acclimate.networks import Network, build
from acclimate.networks.resnet import LAYERS, ResNet

# torchvision's documentation, for 1,000 classes
PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}


@pytest.mark.parametrize("depth", PARAMETERS)
def test_number_of_parameters_is_torchvision_s(depth):
    with torch.device("meta"):
        module = ResNet(depth, 1000)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[depth]


def test_names_are_torchvision_s():
    with torch.device("meta"):
        names = ResNet(50, 1000).state_dict()
    assert len(names) == 320
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer1.0.bn3.bias",
        "fc.weight",
    } <= names.keys()
    assert names["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert names["layer4.0.downsample.1.num_batches_tracked"].shape == ()
    assert "layer4.1.downsample.0.weight" not in names
    with torch.device("meta"):
        assert "layer1.0.downsample.0.weight" not in ResNet(18, 1000).state_dict()


def torchvision_name(name):
    """The name of one of transformers' tensors."""
    kind = {"convolution": "conv", "normalization": "bn"}
    place, _, tensor = name.rpartition(".")
    parts = place.split(".")
    if parts[0] == "classifier":
        return f"fc.{tensor}"
    if parts[1] == "embedder":
        return f"{kind[parts[3]]}1.{tensor}"
    stage, block, where = int(parts[3]), parts[5], parts[6]
    if where == "shortcut":
        return f"layer{stage + 1}.{block}.downsample.{list(kind).index(parts[7])}.{tensor}"
    return f"layer{stage + 1}.{block}.{kind[parts[8]]}{int(parts[7]) + 1}.{tensor}"


@pytest.mark.parametrize(
    ("depth", "kind", "widths"), [(18, "basic", [64, 128, 256, 512]), (50, "bottleneck", [256, 512, 1024, 2048])]
)
def test_outputs_are_those_of_transformers(depth, kind, widths):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        layer_type=kind, hidden_sizes=widths, depths=[2, 2, 2, 2] if depth == 18 else [3, 4, 6, 3], num_labels=7
    )
    torch.manual_seed(0)
    theirs = transformers.ResNetForImageClassification(config)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics and shifts of 0 and 1 would hide a swap
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    net = build("resnet", classes=7, size=64, depth=depth, bottleneck=0)
    net.module.load_state_dict({torchvision_name(name): value for name, value in theirs.state_dict().items()})
    x = torch.randn(2, 3, 64, 64)
    for mode in (False, True):
        with torch.no_grad():
            output, expected = net.train(mode)(x), theirs.train(mode)(x).logits
        assert expected.std() > 0.01
        torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-4)
    assert output.features.shape == (2, widths[-1])


def weights_of(depth, seed, channels=3):
    """A file as torchvision has it: a body and 1,000 classes."""
    torch.manual_seed(seed)
    return {name: value.clone() for name, value in ResNet(depth, 1000, channels).state_dict().items()}


@pytest.mark.parametrize("kind", ["pth", "safetensors", "old pth"])
def test_weights_fill_the_body_and_nothing_else(tmp_path, kind):
    given = weights_of(18, 1)
    path = tmp_path / f"resnet18.{kind.split()[-1]}"
    if kind == "safetensors":
        save_file(given, path)
    else:
        torch.save({k: v for k, v in given.items() if "old" not in kind or "num_batches" not in k}, path)
    torch.manual_seed(2)
    net = build("resnet", classes=31, size=64, depth=18, weights=str(path))
    state = net.module.state_dict()
    body = [name for name in given if not name.startswith("fc.")]
    assert len(body) == 120
    assert all(torch.equal(state[name], given[name]) for name in body)
    assert state["fc.weight"].shape == (31, 256)
    assert net.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_grey_images_see_the_sum_of_the_filters(tmp_path):
    given = weights_of(18, 1)
    torch.save(given, tmp_path / "w.pth")
    net = build("resnet", classes=3, channels=1, size=64, depth=18, weights=str(tmp_path / "w.pth"), bottleneck=0)
    colour = build("resnet", classes=3, size=64, depth=18, weights=str(tmp_path / "w.pth"), bottleneck=0)
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(
        net.eval().features(x), colour.eval().features(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda w: w.pop("layer3.1.bn2.weight"), {}, r"lacks layer3\.1\.bn2\.weight;"),
        (lambda w: w.update({"layer1.2.conv1.weight": w["conv1.weight"]}), {}, r"also has layer1\.2\.conv1\.weight;"),
        (lambda w: None, {"depth": 34}, r"ResNet-34 .* lacks layer1\.2\.conv1\.weight and \d+ more"),
        (lambda w: w.update({"bn1.bias": torch.zeros(3)}), {}, r"has another shape of bn1\.bias"),
        (lambda w: None, {"channels": 4}, r"has another shape of conv1\.weight; give 3 channels"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, settings, message):
    given = weights_of(18, 1)
    change(given)
    torch.save(given, tmp_path / "w.pth")
    with pytest.raises(DataError, match=message):
        build("resnet", **{"classes": 3, "size": 64, "depth": 18, "weights": str(tmp_path / "w.pth"), **settings})


@pytest.mark.parametrize("settings", [{"depth": 20}, {"norm": "group"}, {"bottleneck": -1}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        build("resnet", classes=3, size=64, **settings)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["Linear", "BatchNorm1d", "ReLU"]),
        ({"relu": False}, ["Linear", "BatchNorm1d"]),
        ({"norm": "none", "dropout": 0.5}, ["Linear", "ReLU", "Dropout"]),
        ({"bottleneck": 0}, []),
    ],
)
def test_bottleneck_is_what_the_settings_say(settings, kinds):
    net = build("resnet", classes=3, channels=1, size=64, depth=18, **settings)
    assert [type(layer).__name__ for layer in net.module.bottleneck] == kinds
    assert net.shapes["features"] == (256 if kinds else 512,)
    net(torch.randn(2, 1, 64, 64)).logits.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    # A bias in front of BatchNorm would have a gradient of zero.
    assert "module.bottleneck.0.bias" not in dict(net.named_parameters()) or "BatchNorm1d" not in kinds


def test_new_layers_learn_ten_times_as_fast_as_those_from_a_file(tmp_path):
    torch.save(weights_of(18, 1), tmp_path / "w.pth")
    path = str(tmp_path / "w.pth")
    for settings, scales in (({}, {1.0}), ({"weights": path}, {0.1, 1.0}), ({"weights": path, "body_lr": 1.0}, {1.0})):
        net = build("resnet", classes=3, size=64, depth=18, **settings)
        found = groups(net, lr_scales(net))
        assert {group["lr_scale"] for group in found} == scales
        if len(scales) == 2:
            slow = {id(p) for group in found if group["lr_scale"] == 0.1 for p in group["params"]}
            assert slow == {id(p) for name in LAYERS for p in net.module.get_submodule(name).parameters()}
            assert all(
                id(p) not in slow for part in ("bottleneck", "fc") for p in getattr(net.module, part).parameters()
            )


def test_the_recipe_needs_no_file_and_keeps_the_rates(tmp_path):
    torch.save(weights_of(18, 1), tmp_path / "w.pth")
    net = build("resnet", classes=3, size=64, depth=18, weights=str(tmp_path / "w.pth"), relu=False)
    (tmp_path / "w.pth").unlink()
    recipe = json.loads(json.dumps(net.recipe))
    assert str(tmp_path) not in json.dumps(recipe)
    again = build(recipe["name"], **recipe["settings"])
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(again.eval()(x).logits, net.eval()(x).logits)
    assert (again.recipe, again.lr_scales) == (net.recipe, net.lr_scales)


def test_a_scale_for_a_layer_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match=r"layer5.*lr_scales.*layer4"):
        Network(ResNet(18, 3), "fc", input_shape=(3, 64, 64), lr_scales={"layer5": 0.1})
