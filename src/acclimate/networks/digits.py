"""Small networks for digits and traffic signs, as the classical papers of domain adaptation use them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from acclimate.errors import UsageError
from acclimate.networks.card import network
from acclimate.networks.contract import Network

Size = tuple[int, int]


class GaussianNoise(nn.Module):
    """x + sigma * e with e ~ N(0, 1) while training; the identity in evaluation."""

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


class GlobalMean(nn.Module):
    """``(N, C, H, W)`` to ``(N, C)``; unlike adaptive pooling, its gradient is deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class BodyHead(nn.Module):
    """A body, then a head named ``head``."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@torch.no_grad()
def _width(body: nn.Module, shape: tuple[int, int, int]) -> int:
    """Length of the flattened output of a fresh body."""
    training = body.training
    try:
        width = body.eval()(torch.zeros(1, *shape)).numel()
    except RuntimeError as error:
        raise UsageError(f"images of {shape[1]} x {shape[2]} pixels are too small for this network") from error
    body.train(training)
    return width


def _convolution(
    inputs: int, outputs: int, kernel: int, norm: str = "none", padding: int = 0, stride: int = 1
) -> list[nn.Module]:
    # BatchNorm subtracts the mean, so a bias before it would never have an effect.
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=norm == "none")]
    return [*layers, nn.BatchNorm2d(outputs)] if norm == "batch" else layers


@network("classification", 28)
def dann_mnist(
    classes: int,
    channels: int = 3,
    size: Size = (28, 28),
    *,
    padding: Literal["valid", "same"] = "valid",
    norm: Literal["none", "batch"] = "none",
) -> Network:
    """DANN's MNIST network: two 5x5 convolutions (32, 48), three dense layers; about 0.13 M weights.

    Features are the flattened convolution output: 768 with ``padding="valid"``, 2,352 with ``"same"`` (28 x 28 images).
    The paper has no normalisation; ``norm="batch"`` puts BatchNorm after each convolution, for methods that need it.
    Ganin et al., JMLR 2016, figure 4a.
    """
    pad = _choice("padding", padding, {"valid": 0, "same": 2})
    _choice("norm", norm, {"none": 0, "batch": 1})
    body = nn.Sequential(
        *_convolution(channels, 32, 5, norm, pad),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_convolution(32, 48, 5, norm, pad),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    width = _width(body, (channels, *size))
    head = nn.Sequential(nn.Linear(width, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, classes))
    return Network(BodyHead(body, head), "head", input_shape=(channels, *size))


@network("classification", 32)
def dann_svhn(classes: int, channels: int = 3, size: Size = (32, 32), *, dropout: float = 0.5) -> Network:
    """DANN's SVHN network: three 5x5 convolutions (64, 64, 128), dense 3,072 and 2,048; about 32 M weights.

    Features are the flattened convolution output, 8,192 for 32 x 32 images. Ganin et al., JMLR 2016, figure 4b.
    """
    body = nn.Sequential(
        nn.Conv2d(channels, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(64, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(64, 128, 5, padding=2),
        nn.ReLU(),
        nn.Flatten(),
    )
    head = nn.Sequential(
        nn.Linear(_width(body, (channels, *size)), 3072),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(3072, 2048),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(2048, classes),
    )
    return Network(BodyHead(body, head), "head", input_shape=(channels, *size))


@network("classification", 40)
def dann_gtsrb(
    classes: int, channels: int = 3, size: Size = (40, 40), *, norm: Literal["none", "batch"] = "none"
) -> Network:
    """DANN's traffic-sign network: convolutions 5x5-96, 3x3-144, 5x5-256, dense 512; about 4.4 M weights.

    Features are the flattened convolution output, 6,400 for 40 x 40 images. The paper has no normalisation;
    ``norm="batch"`` puts BatchNorm after each convolution. Ganin et al., JMLR 2016, figure 4c.
    """
    _choice("norm", norm, {"none": 0, "batch": 1})
    body = nn.Sequential(
        *_convolution(channels, 96, 5, norm, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_convolution(96, 144, 3, norm, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_convolution(144, 256, 5, norm, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    head = nn.Sequential(nn.Linear(_width(body, (channels, *size)), 512), nn.ReLU(), nn.Linear(512, classes))
    return Network(BodyHead(body, head), "head", input_shape=(channels, *size))


@network("classification", 28)
def lenet(
    classes: int,
    channels: int = 1,
    size: Size = (28, 28),
    *,
    dropout: float = 0.5,
    norm: Literal["none", "batch"] = "none",
) -> Network:
    """LeNet as in ADDA, CyCADA, CDAN and SHOT: two 5x5 convolutions (20, 50), 500 features; about 0.43 M weights.

    ``dropout`` acts on the second convolution (whole channels) and on the features, as in CDAN, CyCADA and SHOT;
    ADDA has none (0). Those have no normalisation here; ``norm="batch"`` puts BatchNorm after each convolution and
    before the ReLU of the features, where SHOT's bottleneck has it. Tzeng et al., CVPR 2017, section 5.1; Long et al.,
    NeurIPS 2018, released code.
    """
    _choice("norm", norm, {"none": 0, "batch": 1})
    convolutions = nn.Sequential(
        *_convolution(channels, 20, 5, norm),
        nn.MaxPool2d(2),
        nn.ReLU(),
        *_convolution(20, 50, 5, norm),
        nn.Dropout2d(dropout),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    )
    width = _width(convolutions, (channels, *size))
    dense = [nn.Linear(width, 500, bias=False), nn.BatchNorm1d(500)] if norm == "batch" else [nn.Linear(width, 500)]
    body = nn.Sequential(convolutions, *dense, nn.ReLU(), nn.Dropout(dropout))
    return Network(BodyHead(body, nn.Linear(500, classes)), "head", input_shape=(channels, *size))


@network("classification", 32)
def dtn(classes: int, channels: int = 3, size: Size = (32, 32)) -> Network:
    """DTN with BatchNorm: three strided 5x5 convolutions (64, 128, 256), 512 features; about 3.1 M weights.

    Long et al., NeurIPS 2018 (CDAN) and Hoffman et al., ICML 2018 (CyCADA), released code.
    """
    layers: list[nn.Module] = []
    for inputs, outputs, rate in ((channels, 64, 0.1), (64, 128, 0.3), (128, 256, 0.5)):
        layers += _convolution(inputs, outputs, 5, "batch", padding=2, stride=2)
        layers += [nn.Dropout2d(rate), nn.ReLU()]
    convolutions = nn.Sequential(*layers, nn.Flatten())
    width = _width(convolutions, (channels, *size))
    body = nn.Sequential(
        convolutions, nn.Linear(width, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.5)
    )
    return Network(BodyHead(body, nn.Linear(512, classes)), "head", input_shape=(channels, *size))


class _Vada(nn.Module):
    def __init__(self, classes: int, channels: int, size: Size, width: int, instance_norm: bool) -> None:
        super().__init__()
        low: list[nn.Module] = [nn.InstanceNorm2d(channels, eps=1e-3, affine=True)] if instance_norm else []
        for inputs in (channels, width):
            low += [*_vada_block(inputs, width), nn.MaxPool2d(2), nn.Dropout(0.5), GaussianNoise()]
        self.low = nn.Sequential(*low, nn.Flatten())
        self.high = nn.Sequential(
            nn.Unflatten(1, (width, size[0] // 4, size[1] // 4)), *_vada_block(width, width), GlobalMean()
        )
        self.head = nn.Sequential(
            nn.Linear(width, classes, bias=False), nn.BatchNorm1d(classes, eps=1e-3, momentum=0.01)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.low(x)))


def _vada_block(inputs: int, width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for number in (inputs, width, width):
        layers += [
            nn.Conv2d(number, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, eps=1e-3, momentum=0.01),
            nn.LeakyReLU(0.1),
        ]
    return layers


@network("classification", 32)
def vada_small(
    classes: int, channels: int = 3, size: Size = (32, 32), *, width: int = 64, instance_norm: bool = False
) -> Network:
    """VADA's small network: nine 3x3 convolutions with BatchNorm, dropout and Gaussian noise; about 0.3 M weights.

    Methods align at the tap ``low``: the flattened activations after the second noise layer, 8 * 8 * 64 = 4,096. The
    head is dense and then BatchNorm without activation. ``instance_norm`` normalises each channel of each image first.
    BatchNorm has epsilon 1e-3 and keeps 0.99 of its running statistics. Shu et al., ICLR 2018, appendix B.
    """
    if min(size) < 4:
        raise UsageError(f"images of {size[0]} x {size[1]} pixels are too small for this network")
    module = _Vada(classes, channels, size, width, instance_norm)
    return Network(module, "head", input_shape=(channels, *size), taps=("low",), align="low")


def _choice(setting: str, value: str, known: dict[str, int]) -> int:
    if value not in known:
        raise UsageError(f"{setting} is one of {', '.join(known)}, not {value!r}")
    return known[value]
