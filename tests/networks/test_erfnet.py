"""ERFNet: the paper's layers and sizes, its block by hand, and the taps of deep activation matching."""

from __future__ import annotations

import json

import pytest
import torch
from runs import plan, start
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks import build
from acclimate.networks.erfnet import Down, ERFNet, NonBottleneck1D
from acclimate.networks.norm import batch_norms


def test_number_of_parameters_is_the_sum_of_the_paper_s_layers():
    with torch.device("meta"):
        module = ERFNet(20, 3, 16, (0.03, 0.3))

    def down(inputs, outputs):
        return 9 * inputs * (outputs - inputs) + 2 * outputs

    def block(channels):
        return 4 * 3 * channels**2 + 2 * channels + 2 * 2 * channels

    def up(inputs, outputs):
        return 9 * inputs * outputs + 2 * outputs

    head = 4 * 16 * 20 + 20
    encoder = down(3, 16) + down(16, 64) + 5 * block(64) + down(64, 128) + 8 * block(128)
    expected = encoder + up(128, 64) + 2 * block(64) + up(64, 16) + 2 * block(16) + head
    assert sum(p.numel() for p in module.parameters()) == expected == 2_061_043
    # The authors' biases before BatchNorm and the 1x1 convolution of their encoder's own training.
    convolutions = [m for m in module.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert expected + sum(m.out_channels for m in convolutions if m.bias is None) + 129 * 20 == 2_066_836


def test_sizes_are_those_of_the_paper_s_table():
    net = build("erfnet", classes=20, size=(64, 128))  # an eighth of the paper's
    assert net.shapes == {
        "4": (64, 16, 32),
        "8": (128, 8, 16),
        "12": (128, 8, 16),
        "13": (128, 8, 16),
        "17": (16, 32, 64),
        "features": (16, 32, 64),
        "logits": (20, 64, 128),
    }
    assert net.align == "13"


def test_order_dilations_and_dropout():
    module = ERFNet(3, 3, 8, (0.03, 0.3))
    names = [name for name, _ in module.named_children()]
    encoder = ["down1", "down2", *map(str, range(1, 6)), "down3", *map(str, range(6, 14))]
    assert names == [*encoder, "up1", "14", "15", "up2", "16", "17", "head"]
    blocks = {name: child for name, child in module.named_children() if isinstance(child, NonBottleneck1D)}
    assert [int(name) for name in blocks] == list(range(1, 18))
    assert [b.layers[5].dilation[0] for b in blocks.values()] == [1] * 5 + [2, 4, 8, 16] * 2 + [1] * 4
    assert [b.layers[-1].p for b in blocks.values()] == [0.03] * 5 + [0.3] * 8 + [0.0] * 4
    assert {layer.eps for _, layer in batch_norms(module)} == {1e-3}


@pytest.mark.parametrize("dilation", [1, 4])
def test_a_block_by_hand(dilation):
    torch.manual_seed(0)
    block = NonBottleneck1D(3, 0.3, dilation).eval()
    for _, layer in batch_norms(block):
        torch.nn.init.uniform_(layer.running_mean, -1, 1)
        torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    w, x = block.state_dict(), torch.randn(2, 3, 21, 21)

    def normed(y, name):
        mean, var = (w[f"layers.{name}.running_{kind}"][:, None, None] for kind in ("mean", "var"))
        return (y - mean) / (var + 1e-3).sqrt()

    y = F.relu(F.conv2d(x, w["layers.0.weight"], w["layers.0.bias"], padding=(1, 0)))
    y = F.relu(normed(F.conv2d(y, w["layers.2.weight"], padding=(0, 1)), 3))
    d = dilation
    y = F.relu(F.conv2d(y, w["layers.5.weight"], w["layers.5.bias"], padding=(d, 0), dilation=(d, 1)))
    y = normed(F.conv2d(y, w["layers.7.weight"], padding=(0, d), dilation=(1, d)), 8)
    torch.testing.assert_close(block(x), F.relu(x + y), rtol=1e-5, atol=1e-5)
    x.requires_grad_()
    block.layers(x)[:, :, 10, 10].sum().backward()
    seen = x.grad.abs().sum((0, 1)).nonzero()
    assert seen.min().item() == 10 - (1 + d)
    assert seen.max().item() == 10 + (1 + d)


def test_down_keeps_the_image_beside_the_convolution():
    block = Down(3, 5).eval()
    x = torch.rand(1, 3, 8, 6)
    pooled = F.max_pool2d(x, 2) / (1 + 1e-3) ** 0.5
    assert block(x).shape == (1, 5, 4, 3)
    torch.testing.assert_close(block(x)[:, 2:], pooled)


def test_images_of_any_size_are_padded_and_cropped():
    torch.manual_seed(0)
    net = build("erfnet", classes=4, channels=1, size=32, width=4).eval()
    x = torch.randn(2, 1, 45, 61)
    padded = F.pad(x, (0, 3, 0, 3), mode="replicate")
    assert net(x).logits.shape == (2, 4, 45, 61)
    torch.testing.assert_close(net(x).logits, net(padded).logits[:, :, :45, :61])
    torch.testing.assert_close(net.head(net.features(padded)), net(padded).logits)


def test_every_weight_learns_and_the_recipe_rebuilds():
    net = build("erfnet", classes=3, size=24, width=5, dropout=(0.0, 0.1))
    net(torch.randn(2, 3, 24, 24)).logits.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    recipe = json.loads(json.dumps(net.recipe))
    again = build(recipe["name"], **recipe["settings"])
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(again.eval()(x).logits, net.eval()(x).logits)


def test_gam_has_its_critics_at_layers_4_8_12_and_17():
    critics = {"4": 0.1, "8": 0.1, "12": 0.1, "17": 1.0}
    net = build("erfnet", classes=2, channels=1, size=32, width=4)
    before = {name: p.clone() for name, p in net.named_parameters()}
    found = start("gam", "segmentation", net=net, critics=critics, hidden=(8,), gim=False, how=plan(steps=2, batch=2))
    method = found.model.method
    assert [critic[0].in_channels for critic in method.critics] == [16, 32, 32, 4]
    assert any(
        not torch.equal(p, before[name]) for name, p in method.net.named_parameters() if name.startswith("module.17")
    )


@pytest.mark.parametrize("settings", [{"width": 3}, {"dropout": (0.1,)}, {"dropout": (0.1, 1.0)}])
def test_mistakes_are_named(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        build("erfnet", classes=2, size=32, **settings)
