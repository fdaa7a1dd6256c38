"""Images as a network gets them: whole, or in pieces that fit into the memory, and under which BatchNorm statistics."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from acclimate.data.domain import Domain
from acclimate.data.streams import Stream
from acclimate.engine.inference import windows
from acclimate.engine.model import Model
from acclimate.networks.norm import batch_norms, restat

PIECE = 1024  # pixels of a side: larger images pass through a network in such pieces


@dataclasses.dataclass(frozen=True)
class Piece:
    """Images ``(n, C, h, w)`` as the network gets them, or a part of one: from ``corner`` of an image of ``size``."""

    index: list[int]
    x: Tensor
    corner: tuple[int, int]
    size: tuple[int, int]

    def label(self, label: Any) -> NDArray[np.int16]:
        """The same part of an image's label map."""
        top, left = self.corner
        whole = resampled(np.asarray(label), *self.size)
        return whole[top : top + self.x.shape[2], left : left + self.x.shape[3]]


def pieces(model: Model, domain: Domain, name: str) -> Iterator[Piece]:
    """All images, in batches and pieces of about a million pixels: activations of a large image would fill the memory."""
    for index, x in inputs(model, domain, name):
        height, width = x.shape[2:]
        together = PIECE**2 // (height * width)
        if together:
            for first in range(0, len(index), together):
                part = slice(first, first + together)
                yield Piece(index[part], x[part], (0, 0), (height, width))
            continue
        for i, one in zip(index, x):
            for top, left in windows(height, width, (PIECE, PIECE), 0.0):
                part = one[None, :, top : top + PIECE, left : left + PIECE]
                yield Piece([i], part, (top, left), (height, width))


def inputs(model: Model, domain: Domain, name: str) -> Iterator[tuple[list[int], Tensor]]:
    """All images as the network gets them, with their indices; ``name`` ("source", "target") says at which scale."""
    stream = Stream(
        domain.unlabelled(),
        name,
        model.method.task.name,
        model.preprocess,
        batch=1,
        device=model.device,
        memory_budget=0,
        workers=0,
    )
    return stream.pictures(range(len(domain)))


def on_own_statistics(model: Model, domain: Domain, name: str) -> Model:
    """A copy whose BatchNorm statistics are those of a domain; the model itself where it keeps none."""
    if not batch_norms(model.method.net):
        return model
    copied = dataclasses.replace(model, method=copy.deepcopy(model.method))
    restat(copied.method.net, (piece.x for piece in pieces(copied, domain, name)))
    return copied


def resampled(label: NDArray[Any], height: int, width: int) -> NDArray[np.int16]:
    """A label map at another size, by the nearest pixel."""
    rows = (np.arange(height) + 0.5) * label.shape[0] / height
    columns = (np.arange(width) + 0.5) * label.shape[1] / width
    return np.ascontiguousarray(label[rows.astype(int)][:, columns.astype(int)], np.int16)
