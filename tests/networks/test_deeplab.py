"""DeepLab v2 and v3: numbers of weights, dilations, every branch, files of weights, and BatchNorm's three meanings."""

from __future__ import annotations

import json

import pytest
import torch
from runs import plan, start
from torch import nn
from torch.nn import functional as F

from acclimate.engine.optimisers import groups, lr_scales
from acclimate.errors import DataError, UsageError
from acclimate.networks import build
from acclimate.networks.channel_affine import matchable_layers
from acclimate.networks.deeplab import RATES, Aspp, DeepLab, _AsppV3, _Excited, _ProDANeck
from acclimate.networks.heads import fresh_head
from acclimate.networks.norm import batch_norms
from acclimate.networks.resnet import LAYERS, ResNet

BODY = 44_549_160 - 1000 * 2049  # torchvision's ResNet-101 without its classifier
SMALL = {"deeplab-v2": {"depth": 18}, "deeplab-v3": {"depth": 18, "features": 8}}


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_number_of_parameters():
    with torch.device("meta"):
        body, head = DeepLab(101, 3, 8, "trained"), Aspp(2048, 19)
        neck, last = _AsppV3(2048, 256, (12, 24, 36)), nn.Conv2d(256, 21, 1)
        proda = _ProDANeck(2048, 256, RATES)
    assert count(body) == BODY
    assert count(head) == 4 * 9 * 2048 * 19 + 19
    assert count(body, head) == 43_901_068 - 3 * 19  # that of four biases, of which one is kept
    # torchvision's deeplabv3_resnet101 without auxiliary head, less its further 3x3 convolution with BatchNorm.
    assert count(body, neck, last) == 58_630_997 - (9 * 256**2 + 2 * 256)
    views = (2048 + 1 + 2) * 256 + 4 * (9 * 2048 + 1 + 2) * 256
    excitation = 1280 * 80 + 80 + 80 * 1280 + 1280
    assert count(proda) == views + excitation + (9 * 1280 + 1 + 2) * 256


@pytest.mark.parametrize(("depth", "maps"), [(18, (256, 512)), (34, (256, 512)), (50, (1024, 2048))])
@pytest.mark.parametrize(("stride", "size"), [(8, (5, 8)), (16, (3, 4))])
def test_sizes_and_dilations(depth, maps, stride, size):
    net = build("deeplab-v2", classes=5, size=(33, 61), depth=depth, output_stride=stride)
    middle = (maps[0], 5, 8) if stride == 8 else (maps[0], 3, 4)
    assert net.shapes == {
        "conv4": middle,
        "conv5": (maps[1], *size),
        "features": (maps[1], *size),
        "logits": (5, 33, 61),
    }
    found = {
        name: {m.dilation for m in net.module.get_submodule(name).modules() if getattr(m, "kernel_size", 0) == (3, 3)}
        for name in ("layer1", "layer2", "layer3", "layer4")
    }
    last = {(4, 4)} if stride == 8 else {(2, 2)}
    assert found == {"layer1": {(1, 1)}, "layer2": {(1, 1)}, "layer3": {(8 // stride * 2,) * 2} if stride == 8 else {(1, 1)},
                     "layer4": last}  # fmt: skip


@pytest.mark.parametrize(("stride", "rates"), [(8, [6, 12, 18, 24]), (16, [3, 6, 9, 12])])
def test_heads_see_as_far_at_either_output_stride(stride, rates):
    for head in ("aspp", "proda"):
        net = build("deeplab-v2", classes=2, size=32, depth=18, output_stride=stride, head=head)
        branches = net.head.branches if head == "aspp" else [branch[0] for branch in net.module.neck.branches][1:]
        assert [conv.dilation[0] for conv in branches] == rates
    views = build("deeplab-v3", classes=2, size=32, depth=18, output_stride=stride, features=8).module.neck.branches
    assert [view[0].dilation[0] for view in views] == ([1, 12, 24, 36] if stride == 8 else [1, 6, 12, 18])


def test_all_four_branches_contribute():
    """AdaptSegNet's released head returns inside its loop: only dilations 6 and 12 are added."""
    torch.manual_seed(0)
    head, x = Aspp(3, 2), torch.randn(1, 3, 51, 51, requires_grad=True)
    branches = list(head.branches)
    expected = sum(F.conv2d(x, b.weight, b.bias, padding=rate, dilation=rate) for b, rate in zip(branches, RATES))
    assert len(branches) == 4
    torch.testing.assert_close(head(x), expected)
    head(x)[0, :, 25, 25].sum().backward()
    assert all(b.weight.grad.any() for b in branches)
    seen = {tuple(place) for place in (x.grad[0].abs().sum(0).nonzero() - 25).tolist()}
    assert seen == {(r * i, r * j) for r in RATES for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert [b.bias is None for b in branches] == [True, True, True, False]
    two = build("deeplab-v2", classes=2, size=32, depth=18, aspp_branches=2).head
    assert [b.dilation[0] for b in two.branches] == [6, 12]


@pytest.mark.parametrize("name", SMALL)
def test_no_part_of_the_logits_counts_as_a_hidden_layer(name):
    net = build(name, classes=2, size=32, **SMALL[name])
    layers = matchable_layers(net)
    assert {layer.removeprefix("module.") for layer in layers} == {n for n, _ in batch_norms(net.module)}


def test_a_second_head_has_the_same_initialisation():
    torch.manual_seed(0)
    net = build("deeplab-v2", classes=9, size=32, depth=18)
    for head in (net.head, fresh_head(net)):
        for branch in head.branches:
            assert branch.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not torch.equal(net.head.branches[0].weight, fresh_head(net).branches[0].weight)


def test_proda_s_head_by_hand():
    torch.manual_seed(0)
    net = build("deeplab-v2", classes=3, size=65, depth=18, head="proda").eval()
    out = net(torch.randn(2, 3, 65, 65))
    neck, x = net.module.neck, out.taps["conv5"]
    views = []
    for branch, rate in zip(neck.branches, (1, *RATES)):
        w = branch[0].weight
        y = F.conv2d(x, w, branch[0].bias, padding=0 if w.shape[-1] == 1 else rate, dilation=rate)
        groups = y.view(2, 32, -1)
        groups = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        views.append(groups.view_as(y).clamp_min(0))
    y = torch.cat(views, dim=1)
    first, _, second, _ = neck.bottleneck[0].weigh
    gate = torch.sigmoid(second(first(y.mean((2, 3))).clamp_min(0)))
    y = F.group_norm(neck.bottleneck[1](y * gate[:, :, None, None]), 32)
    assert out.features.shape == (2, 256, 9, 9)
    assert out.features.min() < -0.5  # no ReLU
    torch.testing.assert_close(out.features, y, rtol=1e-3, atol=1e-3)
    assert net.head.bias is None
    assert isinstance(neck.bottleneck[0], _Excited)
    assert isinstance(neck.bottleneck[-1], nn.Dropout2d)


def test_v3_sees_the_whole_image():
    torch.manual_seed(0)
    neck = _AsppV3(2, 4, (1, 2, 3)).eval()
    x = torch.randn(1, 2, 40, 40)
    changed = x.clone()
    changed[..., 0, 0] += 100
    far = (neck(changed) - neck(x))[..., 30, 30]
    assert far.abs().max() > 1e-4
    with torch.no_grad():
        neck.image[0].weight.zero_()
        torch.testing.assert_close(neck(changed)[..., 30, 30], neck(x)[..., 30, 30])


def test_v3_refuses_to_train_on_one_image_but_predicts_it():
    net = build("deeplab-v3", classes=2, size=32, **SMALL["deeplab-v3"])
    x = torch.randn(1, 3, 32, 32)
    assert net.eval()(x).logits.shape == (1, 2, 32, 32)
    with pytest.raises(UsageError, match="two or more"):
        net.train()(x)


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns_and_the_recipe_rebuilds(name):
    net = build(name, classes=3, channels=1, size=(33, 40), **SMALL[name])
    out = net(torch.randn(2, 1, 33, 40))
    assert out.logits.shape == (2, 3, 33, 40)
    out.logits.square().mean().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []
    assert net.normalisation == ((0.449,), (0.226,))
    recipe = json.loads(json.dumps(net.recipe))
    again = build(recipe["name"], **recipe["settings"])
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 33, 40)
    torch.testing.assert_close(again.eval()(x).logits, net.eval()(x).logits)
    assert again.recipe == net.recipe


def test_weights_fill_the_body_which_learns_at_a_tenth(tmp_path):
    torch.manual_seed(1)
    given = {name: value.clone() for name, value in ResNet(18, 1000).state_dict().items()}
    for name in given:
        if name.endswith("running_mean"):
            given[name].normal_()
    path = tmp_path / "resnet18.pth"
    torch.save(given, path)
    net = build("deeplab-v2", classes=3, size=32, depth=18, weights=str(path), batch_norm="frozen")
    state = net.module.state_dict()
    body = [name for name in given if not name.startswith("fc.")]
    assert all(torch.equal(state[name], given[name]) for name in body)
    assert {name.partition(".")[0] for name in state} == {*LAYERS, "head"}
    found = groups(net, lr_scales(net))
    slow, fast = ({id(p) for g in found if g["lr_scale"] == scale for p in g["params"]} for scale in (0.1, 1.0))
    assert fast == {id(p) for p in net.head_parameters()}
    assert slow == {id(p) for p in net.body_parameters() if p.requires_grad}
    path.unlink()
    again = build("deeplab-v2", **json.loads(json.dumps(net.recipe))["settings"])
    again.load_state_dict(net.state_dict())
    assert (again.recipe, again.lr_scales) == (net.recipe, net.lr_scales)
    assert str(tmp_path) not in json.dumps(net.recipe)
    torch.save(given, path)
    with pytest.raises(DataError, match="ResNet-34"):
        build("deeplab-v2", classes=3, size=32, depth=34, weights=str(path))


@pytest.mark.parametrize("mode", ["trained", "frozen-affine", "frozen"])
def test_what_a_run_moves_in_batch_norm(mode):
    torch.manual_seed(0)
    net = build("deeplab-v2", classes=2, channels=1, size=32, depth=18, batch_norm=mode)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    after = start("dann", "segmentation", net=net, how=plan(steps=1, batch=2)).model.method.net.state_dict()
    layers = [name for name, _ in batch_norms(net)]
    assert len(layers) == 20

    def moved(kind):
        return {not torch.equal(after[f"{name}.{kind}"], before[f"{name}.{kind}"]) for name in layers}

    assert moved("weight") == moved("bias") == {mode == "trained"}
    assert moved("running_mean") == moved("running_var") == {mode != "frozen"}
    assert not torch.equal(after["module.conv1.weight"], before["module.conv1.weight"])
    assert not torch.equal(after["module.head.branches.3.weight"], before["module.head.branches.3.weight"])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("deeplab-v2", {"depth": 20}, "depth is one of 18"),
        ("deeplab-v2", {"depth": 18, "output_stride": 4}, "output_stride is 8 or 16"),
        ("deeplab-v2", {"depth": 18, "head": "fcn"}, "aspp or proda"),
        ("deeplab-v2", {"depth": 18, "aspp_branches": 3}, "2 or 4"),
        ("deeplab-v3", {"depth": 18, "batch_norm": "frozn"}, "did you mean 'frozen'"),
        ("deeplab-v3", {"depth": 18, "features": 0}, "features"),
    ],
)
def test_mistakes_are_named(name, settings, message):
    with pytest.raises(UsageError, match=message):
        build(name, classes=2, size=32, **settings)
