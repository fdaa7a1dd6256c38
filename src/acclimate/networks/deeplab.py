"""DeepLab v2 and v3: residual networks whose last stages are dilated, and heads that look at several scales at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks.card import network
from acclimate.networks.contract import Network
from acclimate.networks.pretrained import IMAGENET
from acclimate.networks.resnet import DEPTHS, LAYERS, ResNet, fill_body
from acclimate.networks.resting import BatchNormMode, set_batch_norm

RATES = (6, 12, 18, 24)
"""Dilations of DeepLab v2's head at an output stride of 8."""

Depth = Literal[18, 34, 50, 101]


class Scores(nn.Conv2d):
    """A convolution to logits, with weights from N(0, .01)."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.normal_(self.weight, 0.0, 0.01)


class Aspp(nn.Module):
    """Logits ``(N, K, h, w)`` of maps ``(N, C, h, w)``: the sum of 3x3 convolutions, one for each dilation."""

    def __init__(self, inputs: int, classes: int, rates: Sequence[int] = RATES) -> None:
        super().__init__()
        # One bias for the sum; with one in each, matching of channels would take partial sums for hidden layers.
        biases = [rate == rates[-1] for rate in rates]
        self.branches = nn.ModuleList(
            Scores(inputs, classes, 3, padding=rate, dilation=rate, bias=bias) for rate, bias in zip(rates, biases)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class _Excited(nn.Module):
    """Maps times a weight per channel, which two dense layers find from their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        hidden = channels // ratio
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x.mean((2, 3)))[:, :, None, None]


class _ProDANeck(nn.Module):
    """Features ``(N, F, h, w)`` of maps ``(N, C, h, w)``, with GroupNorm of 32 groups throughout."""

    def __init__(self, inputs: int, features: int, rates: Sequence[int]) -> None:
        super().__init__()

        def normed(inputs: int, kernel: int, rate: int = 1) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, features, kernel, padding=rate * (kernel // 2), dilation=rate)
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            return [conv, nn.GroupNorm(32, features)]

        branches = [normed(inputs, 1), *(normed(inputs, 3, rate) for rate in rates)]
        self.branches = nn.ModuleList(nn.Sequential(*layers, nn.ReLU()) for layers in branches)
        wide = features * len(branches)
        self.bottleneck = nn.Sequential(_Excited(wide), *normed(wide, 3), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([branch(x) for branch in self.branches], dim=1))


class _AsppV3(nn.Module):
    """Features ``(N, F, h, w)``: 1x1, three dilated 3x3 and the mean over all positions, side by side, then 1x1."""

    def __init__(self, inputs: int, features: int, rates: Sequence[int]) -> None:
        super().__init__()

        def normed(inputs: int, kernel: int, rate: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(inputs, features, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(features), nn.ReLU())

        self.branches = nn.ModuleList([normed(inputs, 1), *(normed(inputs, 3, rate) for rate in rates)])
        self.image = normed(inputs, 1)
        self.project = normed(features * (len(rates) + 2), 1)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1 and self.image[1].training:
            raise UsageError(
                "DeepLab v3 cannot train on batches of one image: BatchNorm of its mean over positions would be 0; "
                "give batches of two or more, or take deeplab-v2"
            )
        image = self.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.project(torch.cat([*(branch(x) for branch in self.branches), image], dim=1))


class DeepLab(ResNet):
    """Logits ``(N, K, h, w)`` at an 8th or 16th of the size of images ``(N, C, H, W)``.

    Sub-modules: those of torchvision's ResNet up to ``layer4``; ``conv4`` and ``conv5``, what its last two stages give;
    ``neck``, ``head``.
    """

    def __init__(self, depth: int, channels: int, output_stride: int, batch_norm: BatchNormMode) -> None:
        super().__init__(depth, 1, channels)
        del self.fc, self.bottleneck  # for images, not for pixels
        dilation = 1
        for name, stride in (("layer3", 16), ("layer4", 32)):
            if stride > output_stride:
                dilation *= 2
                _dilate(self.get_submodule(name), dilation)
        self.conv4, self.conv5 = nn.Identity(), nn.Identity()
        self.neck: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()
        set_batch_norm(self, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for name in ("layer1", "layer2", "layer3", "conv4", "layer4", "conv5", "neck", "head"):
            x = self.get_submodule(name)(x)
        return x


def _dilate(layer: nn.Module, dilation: int) -> None:
    """Take the stride out of a stage and put the dilation into all its 3x3 convolutions."""
    for conv in layer.modules():
        if isinstance(conv, nn.Conv2d):
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                conv.dilation, conv.padding = (dilation, dilation), (dilation, dilation)


def _body(depth: int, channels: int, output_stride: int, batch_norm: BatchNormMode, weights: str | None) -> DeepLab:
    if depth not in DEPTHS:
        raise UsageError(f"depth is one of {', '.join(map(str, DEPTHS))}, not {depth}")
    if output_stride not in (8, 16):
        raise UsageError(f"output_stride is 8 or 16, not {output_stride}")
    module = DeepLab(depth, channels, output_stride, batch_norm)
    if weights is not None:
        fill_body(module, weights, depth, channels)
    return module


def _network(
    module: DeepLab, name: str, body_lr: float | None, weights: str | None, settings: dict[str, Any]
) -> Network:
    if body_lr is None:
        body_lr = 1.0 if weights is None else 0.1
    channels, size = settings["channels"], settings["size"]
    net = Network(
        module,
        "head",
        input_shape=(channels, *size),
        taps=("conv4", "conv5"),
        normalisation=IMAGENET.get(channels),
        lr_scales={} if body_lr == 1 else dict.fromkeys(LAYERS, body_lr),
    )
    net.recipe = {"name": name, "settings": {**settings, "size": list(size), "body_lr": body_lr}}
    return net


@network("segmentation", 321)
def deeplab_v2(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (321, 321),
    *,
    depth: Depth = 101,
    weights: str | None = None,
    output_stride: Literal[8, 16] = 8,
    batch_norm: BatchNormMode = "trained",
    head: Literal["aspp", "proda"] = "aspp",
    aspp_branches: Literal[2, 4] = 4,
    body_lr: float | None = None,
) -> Network:
    """DeepLab v2: a dilated ResNet and the sum of convolutions of four dilations; 44 M weights at depth 101.

    Args:
        depth: 18, 34, 50 or 101.
        weights: a ``.pth`` or ``.safetensors`` file with torchvision's names of this ResNet, for instance
            https://download.pytorch.org/models/resnet101-63fe2227.pth; the head is always new. Without it all weights are
            random.
        output_stride: 8: the third stage has dilation 2 and the fourth 4, instead of strides; 16: the fourth 2, and the
            head half its dilations.
        batch_norm: of the body. ``trained``, as usual; ``frozen-affine`` (AdaptSegNet): scales and shifts rest, statistics
            follow the batches; ``frozen`` (CRST): statistics rest too. The last two need pretrained weights to make sense.
        head: ``aspp``: 3x3 convolutions of dilations 6, 12, 18 and 24 from the body straight to the logits, summed; weights
            from N(0, .01). ``proda``: 1x1 and the four dilated 3x3 to 256 maps each, with GroupNorm and ReLU; squeeze and
            excitation; 3x3 to 256 features with GroupNorm, dropout of maps .1; a 1x1 convolution without bias, from
            N(0, .01) as well (Zhang et al., CVPR 2021, as released: no ReLU after the features).
        aspp_branches: 2: only the first two dilations, as in AdaptSegNet's released model, whose loop returns too early.
        body_lr: what the learning rate of the body is multiplied by; default 0.1 with weights, else 1. So the plan's rate
            is the head's: 2.5e-3 for the usual 2.5e-4 and ten times as much.

    Taps: ``conv4`` (1,024 maps at depth 50 and 101), which multi-level methods read, and ``conv5`` (2,048). Methods align
    at what enters the head: conv5, or ProDA's 256 features. The head's logits are brought to the image's size bilinearly.
    As in torchvision a stage's stride is in the 3x3 convolution and pooling does not round up, unlike in the original
    models converted from Caffe. No fusion of three input scales, no CRF. The input is normalised as ImageNet's; the
    ``recipe`` holds no path.

    Raises :class:`UsageError` for a setting out of range, :class:`DataError` for a file that does not fit.
    Chen et al., TPAMI 2018, sections 3.1 and 3.2.
    """
    if head not in ("aspp", "proda"):
        raise UsageError(f"head is aspp or proda, not {head!r}")
    if aspp_branches not in (2, 4):
        raise UsageError(f"aspp_branches is 2 or 4, not {aspp_branches}")
    module = _body(depth, channels, output_stride, batch_norm, weights)
    rates = [rate * 8 // output_stride for rate in RATES]
    outputs = 512 if depth < 50 else 2048
    if head == "proda":
        module.neck = _ProDANeck(outputs, 256, rates)
        module.head = Scores(256, classes, 1, bias=False)
    else:
        module.head = Aspp(outputs, classes, rates[:aspp_branches])
    settings = {
        "classes": classes,
        "channels": channels,
        "size": size,
        "depth": depth,
        "output_stride": output_stride,
        "batch_norm": batch_norm,
        "head": head,
        "aspp_branches": aspp_branches,
    }
    return _network(module, "deeplab-v2", body_lr, weights, settings)


@network("segmentation", 513)
def deeplab_v3(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (513, 513),
    *,
    depth: Depth = 101,
    weights: str | None = None,
    output_stride: Literal[8, 16] = 8,
    batch_norm: BatchNormMode = "trained",
    features: int = 256,
    body_lr: float | None = None,
) -> Network:
    """DeepLab v3: a dilated ResNet, five views side by side, one of them of the whole image; 58 M weights at depth 101.

    Args:
        depth, weights, output_stride, body_lr: as in ``deeplab-v2``.
        batch_norm: of the body, as in ``deeplab-v2``; BatchNorm of the new layers is always trained.
        features: of each view and before the head.

    The views are a 1x1 convolution, 3x3 convolutions of dilations 12, 24 and 36 (6, 12 and 18 at an output stride of 16),
    and the mean over all positions through a 1x1 convolution; each with BatchNorm and ReLU, as is the 1x1 convolution that
    joins them. The head is a 1x1 convolution. Methods align at its input; taps are ``conv4`` and ``conv5``. Without
    the paper's multi-grid in the last stage, as in torchvision. Batches of one image cannot train it.

    Raises :class:`UsageError` for a setting out of range, :class:`DataError` for a file that does not fit.
    Chen et al., arXiv 1706.05587, section 3.3.
    """
    if features < 1:
        raise UsageError(f"features is a number of maps of at least 1, not {features}")
    module = _body(depth, channels, output_stride, batch_norm, weights)
    rates = [rate * 8 // output_stride for rate in (12, 24, 36)]
    module.neck = _AsppV3(512 if depth < 50 else 2048, features, rates)
    module.head = nn.Conv2d(features, classes, 1)
    settings = {
        "classes": classes,
        "channels": channels,
        "size": size,
        "depth": depth,
        "output_stride": output_stride,
        "batch_norm": batch_norm,
        "features": features,
    }
    return _network(module, "deeplab-v3", body_lr, weights, settings)
