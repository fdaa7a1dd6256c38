"""The U-Net: its bottleneck, its borders, any size."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks import build


def small(**settings):
    torch.manual_seed(0)
    return build("unet", classes=2, **{"channels": 1, "size": 32, "width": 4, "depth": 2, **settings})


def test_the_bottleneck_is_read_before_its_relu():
    net = small()
    assert net.align == "bottleneck"
    bottleneck = net(torch.randn(4, 1, 32, 32)).taps["bottleneck"]
    assert bottleneck.shape == (4, 16, 8, 8)
    # The last layer is BatchNorm in training mode: every channel has mean 0 and variance 1, half of it below zero.
    torch.testing.assert_close(bottleneck.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(bottleneck.var((0, 2, 3), correction=0), torch.ones(16), atol=0.02, rtol=0)
    assert bottleneck.min() < 0


def test_width_64_has_the_bottleneck_of_the_original():
    with torch.device("meta"):
        from acclimate.networks.unet import UNet

        module = UNet(2, 1, 64, 4, "batch", "transposed", "zeros")
    assert module.bottleneck[-1].num_features == 1024
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    # Contracting 64..1024 and expanding back, biases only where no BatchNorm follows (up-convolutions and head).
    widths = [64, 128, 256, 512, 1024]
    down = 9 * (1 * 64 + 64 * 64 + sum(a * b + b * b for a, b in itertools.pairwise(widths)))
    up = sum(4 * b * a + a + 9 * (2 * a * a + a * a) for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for layer in convolutions for p in layer.parameters()) == down + up + 64 * 2 + 2


@pytest.mark.parametrize("up", ["bilinear", "transposed"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("padding_mode", ["replicate", "reflect", "zeros"])
def test_every_setting_trains(up, norm, padding_mode):
    net = small(up=up, norm=norm, padding_mode=padding_mode)
    output = net(torch.randn(2, 1, 32, 32))
    assert output.logits.shape == (2, 2, 32, 32)
    output.logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("size", [(32, 32), (33, 38), (29, 31), (5, 5)])
def test_any_size_is_padded_and_cropped(size):
    net = small().eval()
    logits = net(torch.randn(2, 1, *size)).logits
    assert logits.shape == (2, 2, *size)


def test_padding_is_by_reflection():
    net = small().eval()
    x = torch.randn(1, 1, 31, 30)
    padded = F.pad(x, (0, 2, 0, 1), mode="reflect")
    torch.testing.assert_close(net(x).logits, net(padded).logits[:, :, :31, :30])


def test_images_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match="at least 4 x 4"):
        small()(torch.randn(2, 1, 2, 32))


def test_replicated_borders_keep_batch_norm_invariant_to_brightness():
    x = torch.rand(8, 1, 32, 32)

    def moved(padding_mode: str) -> float:
        net = small(padding_mode=padding_mode)
        with torch.no_grad():
            return (net(x).logits - net(0.5 * x + 0.3).logits).abs().max().item()

    assert moved("replicate") < 1e-2 < moved("zeros")
