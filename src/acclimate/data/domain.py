"""A domain: the images of one place, and the labels where there are any."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from acclimate.errors import DataError
from acclimate.random import generator, key

IGNORE = -1
"""The label that no loss and no metric counts. Mask files write it as 255."""


class Lazy(Sequence[Any]):
    """A sequence whose elements are made when asked for: ``Lazy(paths, decode)[i] == decode(paths[i])``."""

    def __init__(self, items: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.make(self.items[index])


class Subset(Sequence[Any]):
    """Some elements of another sequence, in a given order, without reading them."""

    def __init__(self, base: Sequence[Any], indices: Sequence[int]) -> None:
        self.base, self.indices = base, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.base[int(self.indices[index])]


class Chain(Sequence[Any]):
    """One sequence after another, without reading them."""

    def __init__(self, first: Sequence[Any], second: Sequence[Any]) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[int(index)]
        return self.first[place] if place < len(self.first) else self.second[place - len(self.first)]


@dataclasses.dataclass(frozen=True)
class Domain:
    """Images of one place.

    ``images[i]`` is a ``uint8`` array ``(H, W, C)`` with C in {1, 3}; ``labels[i]`` is an ``int`` (classification) or an
    integer array ``(H, W)`` (segmentation), with -1 for "ignore"; ``names[i]`` says where image i came from.
    Any sequence will do: a list, a NumPy array ``(N, H, W, C)``, or one that decodes files when asked.
    """

    name: str
    task: str | None  # "classification", "segmentation", or None for plain images
    classes: tuple[str, ...]
    images: Sequence[Any]
    labels: Sequence[Any] | None
    names: Sequence[str]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # e.g. how 16-bit values were scaled

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise DataError(f"{self.name}: there is no image in it")
        if len(self.names) != len(self.images) or (self.labels is not None and len(self.labels) != len(self.images)):
            raise DataError(f"{self.name}: images, labels and names differ in number")

    def __len__(self) -> int:
        return len(self.images)

    def unlabelled(self) -> Domain:
        """The same images without their labels: all that an adaptation method may see of a target."""
        return dataclasses.replace(self, labels=None)

    def subset(self, indices: Sequence[int]) -> Domain:
        """Some images of the domain, in the given order."""
        labels = None if self.labels is None else Subset(self.labels, indices)
        return dataclasses.replace(
            self, images=Subset(self.images, indices), labels=labels, names=[self.names[int(i)] for i in indices]
        )

    def some(self, count: int, *what: Any) -> Domain:
        """Up to ``count`` images in their order, drawn at random by the key ``what``: the same ones each time."""
        if len(self) <= count:
            return self
        order = torch.randperm(len(self), generator=generator(*what))
        return self.subset(sorted(order[:count].tolist()))

    def fingerprint(self, most: int | None = None) -> str:
        """Changes with the name, the images' names, the classes, and the pixels and labels of ``most`` images (None: of all)."""
        about = (self.name, list(self.names), self.classes, self.labels is not None)
        digest = hashlib.blake2b(repr(about).encode(), digest_size=16)
        count = len(self) if most is None else min(most, len(self))
        for i in np.linspace(0, len(self) - 1, count).astype(int).tolist():
            for values in (self.images, *(() if self.labels is None else (self.labels,))):
                array = np.ascontiguousarray(values[i])
                digest.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
        return digest.hexdigest()

    def joined(self, other: Domain) -> Domain:
        """The images of both domains, these first; with labels where both have them.

        Raises :class:`DataError` if they are for different tasks or classes.
        """
        for what, mine, theirs in (("task", self.task, other.task), ("classes", self.classes, other.classes)):
            if mine != theirs:
                raise DataError(
                    f"{self.name} and {other.name} cannot be joined: their {what} differ, {mine} and {theirs}"
                )
        labels = None if self.labels is None or other.labels is None else Chain(self.labels, other.labels)
        return dataclasses.replace(
            self,
            name=f"{self.name} + {other.name}",
            images=Chain(self.images, other.images),
            labels=labels,
            names=[*self.names, *other.names],
            facts={name: value for name, value in self.facts.items() if other.facts.get(name) == value},
        )

    def holdout(self, fraction: float, seed: int = 0) -> tuple[Domain, Domain]:
        """Split at random, the same way each time: ``(kept, held out)``.

        Raises :class:`DataError` if either part would be empty.
        """
        count = round(len(self) * fraction)
        if not 0 < count < len(self):
            raise DataError(f"{self.name}: {len(self)} images are too few to hold out {fraction:.0%} of them")
        order = np.random.default_rng(key("holdout", seed)).permutation(len(self))
        return self.subset(np.sort(order[count:]).tolist()), self.subset(np.sort(order[:count]).tolist())
