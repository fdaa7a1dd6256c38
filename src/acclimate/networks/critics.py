"""Critics: networks that tell domains apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from acclimate.errors import UsageError


def critic(shape: Sequence[int], hidden: Sequence[int] = (100,)) -> nn.Sequential:
    """One domain logit per sample, or per position of a map.

    ``(N, C) -> (N, 1)`` through dense layers with ReLU; ``(N, C, h, w) -> (N, 1, h, w)`` through 1x1 convolutions.

    Args:
        shape: shape of the activations without the batch: ``(C,)`` or ``(C, h, w)``.
        hidden: widths of the hidden layers. ``(100,)`` is DANN's for MNIST, ``(1024, 1024)`` for SVHN and GTSRB,
            ``(500, 500)`` ADDA's (Ganin et al., JMLR 2016, figure 4; Tzeng et al., CVPR 2017).

    Raises :class:`UsageError` for any other shape.
    """
    if len(shape) not in (1, 3):
        raise UsageError(f"a critic reads vectors (C,) or maps (C, h, w), not {tuple(shape)}; align at another layer")
    widths = [shape[0], *hidden, 1]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs) if len(shape) == 1 else nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _Patches(nn.Sequential):
    """Convolutions that halve a map, down to one position and no further."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            if isinstance(layer, nn.Conv2d):  # needs two pixels; its own padding is of zeros too
                x = F.pad(x, (0, max(0, 2 - x.shape[3]), 0, max(0, 2 - x.shape[2])))
            x = layer(x)
        return x


def patch_critic(inputs: int, width: int = 64) -> nn.Sequential:
    """One domain logit for each patch of a map: ``(N, inputs, H, W) -> (N, 1, H // 32, W // 32)``, at least 1 x 1.

    Five 4x4 convolutions of stride 2 with width, 2, 4, 8 * width and 1 channels and LeakyReLU of slope 0.2 between them.
    Tsai et al., Learning to Adapt Structured Output Space for
    Semantic Segmentation, CVPR 2018, section 4.2.
    """
    widths = [inputs, width, 2 * width, 4 * width, 8 * width, 1]
    layers: list[nn.Module] = []
    for number, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(number, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return _Patches(*layers[:-1])


def image_critic(shape: tuple[int, int, int], width: int = 64) -> nn.Sequential:
    """One logit per image, real or made: ``(N, C, H, W) -> (N, 1)``.

    Three 4x4 convolutions of stride 2 with width, 2 and 4 * width channels and LeakyReLU of slope 0.1, then a dense layer
    over all positions, so that it sees where things are. Every weight matrix is divided by its largest singular value, of
    which each forward pass in training mode refines an estimate (Miyato et al., Spectral Normalization for Generative
    Adversarial Networks, ICLR 2018, algorithm 1).

    Args:
        shape: ``(C, H, W)`` of an image, each side 8 pixels or more.

    Raises :class:`UsageError` for smaller images.
    """
    channels, height, breadth = shape
    if min(height, breadth) < 8:
        raise UsageError(f"a critic of images needs 8 x 8 pixels or more, not {height} x {breadth}")
    layers: list[nn.Module] = []
    for number, outputs in itertools.pairwise([channels, width, 2 * width, 4 * width]):
        layers += [spectral_norm(nn.Conv2d(number, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
    last = nn.Linear(4 * width * (height // 8) * (breadth // 8), 1)
    return nn.Sequential(*layers, nn.Flatten(), spectral_norm(last))
