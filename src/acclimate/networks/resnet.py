"""Residual networks of the usual depths under torchvision's names, so that its files of ImageNet weights fit."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks.card import network
from acclimate.networks.contract import Network
from acclimate.networks.foreign import load_weights
from acclimate.networks.pretrained import IMAGENET, check_weights

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
LAYERS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
"""What a file of weights fills; all else is new."""


class Block(nn.Module):
    """ReLU(x + F(x)) with F of convolutions and BatchNorm; where F changes the shape, a 1x1 convolution brings x to it.

    Args:
        layers: (outputs, kernel, stride) of each convolution of F.
    """

    def __init__(self, inputs: int, *layers: tuple[int, int, int]) -> None:
        super().__init__()
        self.count, given, stride = len(layers), inputs, max(stride for _, _, stride in layers)
        for number, (outputs, kernel, step) in enumerate(layers, 1):
            self.add_module(f"conv{number}", nn.Conv2d(inputs, outputs, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
            inputs = outputs
        self.downsample: nn.Module | None = None
        if stride > 1 or given != inputs:
            self.downsample = nn.Sequential(nn.Conv2d(given, inputs, 1, stride, bias=False), nn.BatchNorm2d(inputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = F.relu(y) if number < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """7x7 convolution, max pooling, four layers of blocks, the mean over positions, ``bottleneck``, ``fc``.

    Args:
        bottleneck: number of features between the mean and ``fc``; 0: none, ``fc`` reads the mean itself.
        norm, relu, dropout: what follows the bottleneck's dense layer, in this order.
    """

    def __init__(
        self,
        depth: int,
        classes: int,
        channels: int = 3,
        bottleneck: int = 0,
        norm: bool = True,
        relu: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for place, count in enumerate(DEPTHS[depth]):
            width, blocks = 64 * 2**place, []
            for number in range(count):
                stride = 2 if place and not number else 1
                if depth < 50:
                    blocks.append(Block(inputs, (width, 3, stride), (width, 3, 1)))
                else:  # the stride is the 3x3 convolution's, as in torchvision; He et al. have it in the first
                    blocks.append(Block(inputs, (width, 1, 1), (width, 3, stride), (4 * width, 1, 1)))
                inputs = width if depth < 50 else 4 * width
            self.add_module(f"layer{place + 1}", nn.Sequential(*blocks))
        layers: list[nn.Module] = []
        if bottleneck:
            # BatchNorm subtracts the mean, so a bias before it would never have an effect.
            layers = [nn.Linear(inputs, bottleneck, bias=not norm)]
            layers += [nn.BatchNorm1d(bottleneck)] if norm else []
            layers += [nn.ReLU()] if relu else []
            layers += [nn.Dropout(dropout)] if dropout else []
        self.bottleneck = nn.Sequential(*layers)
        self.fc = nn.Linear(bottleneck or inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for name in LAYERS[2:]:
            x = getattr(self, name)(x)
        return self.fc(self.bottleneck(x.mean((2, 3))))  # adaptive pooling's gradient is not deterministic on CUDA


@network("classification", 224)
def resnet(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (224, 224),
    *,
    depth: Literal[18, 34, 50, 101] = 50,
    weights: str | None = None,
    bottleneck: int = 256,
    norm: Literal["batch", "none"] = "batch",
    relu: bool = True,
    dropout: float = 0.0,
    body_lr: float | None = None,
) -> Network:
    """ResNet of depth 18, 34, 50 or 101 with a bottleneck of 256 features; 23.5 M weights in the body of depth 50.

    Args:
        weights: a ``.pth`` or ``.safetensors`` file with torchvision's names (also timm's), for instance
            https://download.pytorch.org/models/resnet50-0676ba61.pth, which the papers on Office-31 start from. Its
            classifier is left aside: bottleneck and head are always new. For one channel the first layer's filters are
            summed over colours. Without it all weights are random.
        bottleneck: features before the head; 0: none, and the head reads the 512 or 2,048 means.
        norm, relu, dropout: what follows the bottleneck's dense layer. DANN and CDAN have BatchNorm and ReLU, SHOT only
            BatchNorm, DAN ReLU and dropout .5.
        body_lr: what the learning rate of all layers but bottleneck and head is multiplied by; default 0.1 with weights (the
            new layers learn ten times as fast), else 1.

    The input is normalised as ImageNet's; the ``recipe`` holds no path, so that a trained model needs no such file.
    He et al., CVPR 2016; the bottleneck after Long et al., NeurIPS 2018, released code. Raises :class:`UsageError` for
    another depth, :class:`DataError` for a file that does not fit.
    """
    if depth not in DEPTHS:
        raise UsageError(f"depth is one of {', '.join(map(str, DEPTHS))}, not {depth}")
    if norm not in ("batch", "none"):
        raise UsageError(f"norm is batch or none, not {norm!r}")
    if bottleneck < 0:
        raise UsageError(f"bottleneck is a number of features, or 0 for none, not {bottleneck}")
    module = ResNet(depth, classes, channels, bottleneck, norm == "batch", relu, dropout)
    if weights is not None:
        fill_body(module, weights, depth, channels)
    if body_lr is None:
        body_lr = 1.0 if weights is None else 0.1
    net = Network(
        module,
        "fc",
        input_shape=(channels, *size),
        normalisation=IMAGENET.get(channels),
        lr_scales={} if body_lr == 1 else dict.fromkeys(LAYERS, body_lr),
    )
    settings = {
        "classes": classes,
        "channels": channels,
        "size": list(size),
        "depth": depth,
        "bottleneck": bottleneck,
        "norm": norm,
        "relu": relu,
        "dropout": dropout,
        "body_lr": body_lr,
    }
    net.recipe = {"name": "resnet", "settings": settings}
    return net


def fill_body(module: ResNet, path: str, depth: int, channels: int) -> None:
    """Copy the body's weights from a file. Raises :class:`DataError` for one that is not of this depth."""
    found = {name: value for name, value in load_weights(path).items() if not name.startswith("fc.")}
    first = found.get("conv1.weight")
    if channels == 1 and first is not None and first.ndim == 4:
        found["conv1.weight"] = first.sum(1, keepdim=True)
    own = {name: value for name, value in module.state_dict().items() if name.startswith(LAYERS)}
    colours = first is not None and found["conv1.weight"].shape != own["conv1.weight"].shape
    hint = "give 3 channels, or leave weights out" if colours else "give the file's own depth"
    check_weights(path, found, own, f"a ResNet-{depth} for {channels} channels", hint)
    module.load_state_dict(found, strict=False)
