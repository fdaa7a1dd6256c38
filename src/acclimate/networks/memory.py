"""A memory of vectors for each class, the attention that ranks them, and the heads that make them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from acclimate.networks.prototypes import resized
from acclimate.networks.teacher import Taught


def perceptron(inputs: int, width: int) -> nn.Sequential:
    """``(*, inputs) -> (*, width)``: two dense layers with LayerNorm and ReLU between them."""
    return nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))


class ClassAttention(nn.Module):
    """S_c: for each class a small network that says how much a vector of this class counts, in (0, 1)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width), nn.LayerNorm(width), nn.LeakyReLU(0.2), nn.Linear(width, 1), nn.Sigmoid()
            )
            for _ in range(classes)
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """``(*, K, n, width) -> (*, K, n)``, each class judged by its own network."""
        judged = [score(own).squeeze(-1) for score, own in zip(self.scores, vectors.unbind(-3), strict=True)]
        return torch.stack(judged, -2)


class ClassMemory(nn.Module):
    """The newest ``size`` vectors of each class, first in, first out.

    Its buffers: ``vectors (K, size, width)``, ``filled (K,)``, how many places hold a vector, and ``place (K,)``, the next
    one to be overwritten. Nothing is read back from the device.
    """

    vectors: Tensor
    filled: Tensor
    place: Tensor

    def __init__(self, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(classes, size, width))
        self.register_buffer("filled", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("place", torch.zeros(classes, dtype=torch.int64))

    @property
    def there(self) -> Tensor:
        """Which places hold a vector, ``(K, size)``."""
        return torch.arange(self.vectors.shape[1], device=self.filled.device) < self.filled[:, None]

    @torch.no_grad()
    def insert(self, vectors: Tensor, kept: Tensor) -> None:
        """Put in those of ``vectors (K, n, width)`` that are ``kept (K, n)``, in their order; more than ``size``: the first."""
        size, count = self.vectors.shape[1], vectors.shape[1]
        order = (~kept).int().argsort(stable=True, dim=1)  # the kept ones first
        added = kept.sum(1).clamp_max(size)
        turn = (torch.arange(size, device=kept.device) - self.place[:, None]) % size  # which new one a place would get
        chosen = order.gather(1, turn.clamp_max(count - 1))[..., None].expand(-1, -1, vectors.shape[2])
        fresh = (turn < added[:, None])[..., None]
        self.vectors.copy_(torch.where(fresh, vectors.to(self.vectors.dtype).gather(1, chosen), self.vectors))
        self.place.copy_((self.place + added) % size)
        self.filled.copy_((self.filled + added).clamp_max(size))

    def clear(self) -> None:
        """Forget everything."""
        for buffer in (self.vectors, self.filled, self.place):
            buffer.zero_()


def pick(labels: Tensor, classes: int, count: int) -> tuple[Tensor, Tensor]:
    """At most ``count`` random pixels of each class, without replacement.

    Args:
        labels: ``(N, P)`` in -1..classes-1; -1 belongs to no class.

    Returns places ``(N, classes, n)`` in 0..P-1, n = min(count, P), and which of them are there ``(N, classes, n)``: the
    first ones of each class. Draws from torch's generator of the labels' device and reads nothing back.
    """
    draws = torch.rand(labels.shape, device=labels.device)[:, None]
    mine = labels[:, None] == torch.arange(classes, device=labels.device)[:, None]
    found, places = draws.where(mine, draws.new_full((), -1.0)).topk(min(count, labels.shape[1]), 2)
    return places, found >= 0


def best(scores: Tensor, there: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places ``(*, n)`` of the ``count`` highest of ``scores (*, m)`` in descending order, and which of them are there."""
    found, places = scores.where(there, scores.new_full((), -torch.inf)).topk(min(count, scores.shape[-1]), -1)
    return places, found > -torch.inf


def rows(maps: Tensor, places: Tensor) -> Tensor:
    """The vectors ``(N, K, n, C)`` at ``places (N, K, n)`` of ``maps (N, C, P)``."""
    flat = places.flatten(1)[..., None].expand(-1, -1, maps.shape[1])
    return maps.transpose(1, 2).gather(1, flat).unflatten(1, places.shape[1:])


class ClassBank(nn.Module):
    """Heads that make vectors of feature maps, class-wise attention to them, and the memory of the best.

    ``average`` is a copy of ``projection`` for what enters the memory; let the engine move it.

    Args:
        inputs: channels of the features; ``width``: of the vectors.
        size: of the memory, vectors of each class.
        samples: how many pixels of a class are looked at, at most.
        images: that fill the memory: max(1, round(size / images)) vectors of an image and class may enter.
        confidence: the probability that a teacher's prediction must exceed.
    """

    def __init__(
        self, inputs: int, classes: int, width: int, size: int, samples: int, images: int, confidence: float
    ) -> None:
        super().__init__()
        self.classes, self.samples, self.confidence = classes, samples, confidence
        self.count = max(1, round(size / images))
        self.projection, self.predictor = perceptron(inputs, width), perceptron(width, width)
        self.average = copy.deepcopy(self.projection).requires_grad_(False)
        self.attention, self.memory_attention = ClassAttention(classes, width), ClassAttention(classes, width)
        self.memory = ClassMemory(classes, size, width)

    def read(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted vectors ``(K, n, width)`` of random pixels of each class, and the attention ``(K, n)`` paid to them.

        Args:
            features: ``(N, C, h, w)`` with labels ``(N, H, W)`` in -1..K-1 of any resolution. Attention sees a copy of the
                vectors: what it learns does not move them.
        """
        places, there = pick(resized(labels, features).flatten()[None], self.classes, self.samples)
        vectors = self.predictor(self.projection(rows(features.flatten(2).transpose(0, 1).flatten(1)[None], places)))[0]
        return vectors, self.attention(vectors.detach()) * there[0]

    def recall(self) -> tuple[Tensor, Tensor]:
        """What the memory holds ``(K, size, width)`` and the attention ``(K, size)`` paid to it."""
        return self.memory.vectors, self.memory_attention(self.memory.vectors) * self.memory.there

    @torch.no_grad()
    def remember(self, taught: Taught, labels: Tensor) -> None:
        """Put in, of each image and class, the vectors that attention ranks highest.

        Only pixels count of which the teacher is sure and right, judged by ``labels (N, H, W)``, -1 for "ignore".
        """
        right = (taught.label == labels) & (taught.sure > self.confidence)
        features = taught.out.features.float()
        places, there = pick(resized(labels.where(right, -1), features).flatten(1), self.classes, self.samples)
        with torch.autocast(
            features.device.type, enabled=False
        ):  # it would keep casts of the weights that have no history
            vectors = self.average(rows(features.flatten(2), places))
            top, kept = best(self.memory_attention(vectors), there, self.count)
        vectors = vectors.gather(2, top[..., None].expand(-1, -1, -1, vectors.shape[3]))
        self.memory.insert(vectors.transpose(0, 1).flatten(1, 2), kept.transpose(0, 1).flatten(1, 2))
