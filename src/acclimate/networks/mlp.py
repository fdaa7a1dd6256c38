"""One hidden layer, for vectors of features that are stored as images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.errors import UsageError
from acclimate.networks.card import network
from acclimate.networks.contract import Network


class Shares(nn.Module):
    """Counts ``(N, D)`` to D x_i / sum_j x_j, so that their mean is one; an empty histogram stays zero."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()  # a sum of 800 counts has more digits than bfloat16
        return x * x.shape[1] / x.sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


class MLP(nn.Module):
    """``input`` (flatten, shares of counts, standardise), ``hidden`` (dense, BatchNorm, ReLU, dropout), ``head``."""

    def __init__(self, inputs: int, classes: int, width: int, counts: bool, dropout: float) -> None:
        super().__init__()
        first: list[nn.Module] = [Shares()] if counts else []
        self.input = nn.Sequential(nn.Flatten(), *first, nn.BatchNorm1d(inputs, affine=False))
        # BatchNorm subtracts the mean, so a bias before it would never have an effect.
        self.hidden = nn.Sequential(
            nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.input(x)))


@network("classification", 28)
def mlp(
    classes: int,
    channels: int = 1,
    size: tuple[int, int] = (28, 28),
    *,
    width: int = 256,
    counts: bool = False,
    dropout: float = 0.5,
) -> Network:
    """One hidden layer with BatchNorm for feature vectors, stored as images of 1 x D pixels.

    All values of an image are one vector, each component of which BatchNorm without weights standardises: its statistics are
    part of what AdaBN re-estimates, and methods that normalise each domain by its own batch standardise each domain by
    itself.

    Args:
        width: features before the head.
        counts: the values are counts of a histogram: they are divided by their sum first. They come as v / 255, so give
            images of more than 255 counts of one kind another form.
        dropout: of the features.

    Raises :class:`UsageError` for a width below one.
    """
    if width < 1:
        raise UsageError(f"width is a number of features, at least 1, not {width}")
    module = MLP(channels * size[0] * size[1], classes, width, counts, dropout)
    plain = ([0.0] * channels, [1.0] * channels)  # a histogram has no negative values
    return Network(module, "head", input_shape=(channels, *size), normalisation=plain)
