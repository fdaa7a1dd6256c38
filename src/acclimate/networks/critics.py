"""Critics: networks that tell domains apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

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
