"""What a prediction is: the loss, the confusion matrix, the scores. Only tasks know classes and "ignore"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.losses import cross_entropy

Subsets = Mapping[str, Sequence[str]]
"""Classes over which a score is averaged too, by the name that such a mean gets."""


class Task:
    """Shared by both tasks: logits are ``(N, K, *)``, labels ``(N, *)`` with -1 for "ignore"."""

    name: ClassVar[str]

    def __init__(self, classes: Sequence[str]) -> None:
        if len(classes) < 2:
            raise UsageError(f"a task needs at least two classes, not {list(classes)}")
        self.classes = tuple(classes)

    @property
    def primary(self) -> str:
        """The score that tables show."""
        raise NotImplementedError  # each task has its own

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the labels that count."""
        return cross_entropy(logits, labels)

    def confusion(self, predicted: Tensor, labels: Tensor) -> Tensor:
        """Counts ``(K, K)``, rows the truth and columns the prediction, over the labels that are not -1."""
        k = len(self.classes)
        counts = (labels >= 0).flatten()
        cells = labels.flatten()[counts].long() * k + predicted.flatten()[counts].long()
        return torch.bincount(cells, minlength=k * k).reshape(k, k)

    def scores(self, confusion: Tensor, subsets: Subsets | None = None) -> dict[str, float]:
        """All scores of one confusion matrix ``(K, K)``, in [0, 1]; NaN where a score is not defined.

        Args:
            subsets: further means, each over some of the classes.
        """
        raise NotImplementedError  # each task has its own

    def means(self, name: str, values: Tensor, subsets: Subsets | None) -> dict[str, float]:
        """The mean of the defined ``values (K,)`` over all classes, and over each of ``subsets``, as ``"name subset"``.

        The values are those of all classes: a mean over some of them is no score of a smaller problem. A subset of which
        the task lacks a class, or that is the whole, is passed over.
        """
        found = {name: values.nanmean().item()}
        for subset, classes in (subsets or {}).items():
            if set(classes) < set(self.classes):
                chosen = [self.classes.index(one) for one in classes]
                found[f"{name} {subset}"] = values[chosen].nanmean().item()
        return found


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole in float64, NaN where whole is 0."""
    return torch.where(whole > 0, part.double() / whole.clamp_min(1).double(), torch.nan)
