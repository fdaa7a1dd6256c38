"""Scores against labels: the only place where a target's labels are opened."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from acclimate.data.domain import Domain
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.random import key

RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of the whole set from one confusion matrix ``(K, K)`` (rows: truth), with a 95 % bootstrap interval."""

    scores: dict[str, float]
    primary: str
    interval: tuple[float, float] | None  # of the primary score, images are resampled; None where none was asked for
    confusion: list[list[int]]
    images: int

    @property
    def value(self) -> float:
        """The primary score."""
        return self.scores[self.primary]


def evaluate(model: Model, domain: Domain, seed: int = 0, *, resamples: int = RESAMPLES) -> Evaluation:
    """Predict every image and compare with its label.

    A domain whose ``facts["subsets"]`` name some of its classes gets the mean over these too ("mIoU 13").

    Args:
        seed: of the bootstrap. resamples: how many it draws; 0: no interval, which saves most of the time for few
            small images.

    Raises :class:`UsageError` if the domain has no labels or other classes than the model, :class:`DataError` if a mask
    has another size than its image.
    """
    task = model.method.task
    if domain.labels is None:
        raise UsageError(f"{domain.name} has no labels: evaluation needs class sub-folders, or images/ with masks/")
    if domain.classes != task.classes:
        raise UsageError(
            f"{domain.name} has the classes {', '.join(domain.classes)}, the model {', '.join(task.classes)}; "
            "say which is which with --map THEIRS=OURS"
        )
    per_image = []
    for index, logits in model.logits(domain):
        predicted = logits.argmax(1).cpu()
        for i, prediction in zip(index, predicted):
            label = torch.as_tensor(np.asarray(domain.labels[i])).long()
            if label.shape != prediction.shape:
                raise DataError(
                    f"{domain.names[i]}: the mask has {tuple(label.shape)} pixels, the image {tuple(prediction.shape)}"
                )
            if label.numel() and not -1 <= int(label.min()) <= int(label.max()) < len(task.classes):
                raise DataError(f"{domain.names[i]}: labels must lie in -1..{len(task.classes) - 1}; -1 means ignore")
            per_image.append(task.confusion(prediction, label))
    counts = torch.stack(per_image)
    scores = task.scores(counts.sum(0), domain.facts.get("subsets"))
    interval = _bootstrap(model, counts, seed, resamples) if resamples else None
    return Evaluation(scores, task.primary, interval, counts.sum(0).tolist(), len(domain))


def _bootstrap(model: Model, counts: Tensor, seed: int, resamples: int) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of the primary score over resampled images."""
    task, rng = model.method.task, np.random.default_rng(key("bootstrap", seed))
    flat = counts.flatten(1).double()
    draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=resamples)
    sums = (torch.from_numpy(draws).double() @ flat).view(resamples, *counts.shape[1:])
    values = np.array([task.scores(confusion)[task.primary] for confusion in sums])
    return float(np.nanquantile(values, 0.025)), float(np.nanquantile(values, 0.975))
