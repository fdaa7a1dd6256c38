"""ERFNet: a small network for street scenes, of residual blocks whose 3x3 convolutions are factorised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError
from acclimate.networks.card import network
from acclimate.networks.contract import Network

DILATIONS = (1, 1, 1, 1, 1, 2, 4, 8, 16, 2, 4, 8, 16, 1, 1, 1, 1)
"""Of the second pair of convolutions in each of the 17 residual blocks."""

TAPS = ("4", "8", "12", "13", "17")


class _Norm(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)


class Down(nn.Module):
    """Half the size: a 3x3 convolution of stride 2 beside max pooling, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1, bias=False)
        self.norm = _Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(torch.cat([self.conv(x), F.max_pool2d(x, 2)], dim=1)))


class NonBottleneck1D(nn.Module):
    """ReLU(x + F(x)); F: 3x1, ReLU, 1x3, BatchNorm, ReLU, the same four dilated without the last ReLU, dropout of maps."""

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for d in (1, dilation):
            layers += [
                nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1)),
                nn.ReLU(),
                # A bias before BatchNorm would be subtracted at once.
                nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d), bias=False),
                _Norm(channels),
                nn.ReLU(),
            ]
        layers[-1] = nn.Dropout2d(dropout)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


class Up(nn.Sequential):
    """Twice the size: a transposed 3x3 convolution of stride 2, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
        super().__init__(conv, _Norm(outputs), nn.ReLU())


class ERFNet(nn.Sequential):
    """Logits ``(N, K, H, W)`` of images ``(N, C, H, W)``.

    Sub-modules in order: ``down1``, ``down2``, blocks ``1`` to ``5``, ``down3``, ``6`` to ``13``, ``up1``, ``14``, ``15``,
    ``up2``, ``16``, ``17``, ``head``.
    """

    def __init__(self, classes: int, channels: int, width: int, dropout: Sequence[float]) -> None:
        super().__init__()
        number = 0

        def blocks(count: int, channels: int, dropout: float) -> None:
            nonlocal number
            for _ in range(count):
                number += 1
                self.add_module(str(number), NonBottleneck1D(channels, dropout, DILATIONS[number - 1]))

        self.add_module("down1", Down(channels, width))
        self.add_module("down2", Down(width, 4 * width))
        blocks(5, 4 * width, dropout[0])
        self.add_module("down3", Down(4 * width, 8 * width))
        blocks(8, 8 * width, dropout[1])
        self.add_module("up1", Up(8 * width, 4 * width))
        blocks(2, 4 * width, 0.0)
        self.add_module("up2", Up(4 * width, width))
        blocks(2, width, 0.0)
        self.add_module("head", nn.ConvTranspose2d(width, classes, 2, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 8 or width % 8:
            x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        return super().forward(x)[:, :, :height, :width]


@network("segmentation", 512)
def erfnet(
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (512, 512),
    *,
    width: int = 16,
    dropout: Sequence[float] = (0.03, 0.3),
) -> Network:
    """ERFNet: 17 factorised residual blocks, dilated up to 16, at an eighth of the size; 2.1 M weights.

    Args:
        width: channels after the first layer and of the last blocks; 4 and 8 times as many deeper. The paper's is 16.
        dropout: of whole maps, in the 5 blocks at a quarter and in the 8 at an eighth of the size; the decoder has none.

    Residual blocks are called 1 to 17; the network's taps are ``4`` (4 * width channels at 1/4), ``8``, ``12`` (8 * width at
    1/8), ``13``, the encoder's output, at which methods align, and ``17``, which enters the head. Deep activation
    matching has its critics at layers 4, 8, 12 and 17 *of 17*: only the residual blocks are that many (the table of
    ERFNet counts 23 layers, of which 17 is the first transposed convolution), so ``gam`` does as its paper with
    ``critics={"4": ..., "8": ..., "12": ..., "17": ...}``.

    The head is the last transposed convolution, of 2x2 and stride 2: from half the size to the logits. Images whose
    side is not a multiple of 8 are padded by replication and the logits cropped. Convolutions before BatchNorm have
    no bias; the authors' have, without effect. Without the authors' first stage, which trains the encoder alone.
    Raises :class:`UsageError` for a width that does not exceed the channels, or another dropout than two shares.
    Romera et al., IEEE Transactions on Intelligent Transportation Systems 2018, table I and figure 2 (c).
    """
    if width <= channels:
        raise UsageError(
            f"ERFNet's width is more than its {channels} channels, not {width}: the first layer adds to them"
        )
    if len(dropout) != 2 or not all(0 <= share < 1 for share in dropout):
        raise UsageError(f"dropout of ERFNet is two shares in [0, 1), such as 0.03 and 0.3, not {dropout}")
    module = ERFNet(classes, channels, width, dropout)
    return Network(module, "head", input_shape=(channels, *size), taps=TAPS, align="13")
