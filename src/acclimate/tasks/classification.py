"""One label per image."""

from __future__ import annotations

from torch import Tensor

from acclimate.tasks.base import Task, ratio


class Classification(Task):
    """Accuracy, its mean over classes, and the recall of each class."""

    name = "classification"

    @property
    def primary(self) -> str:
        return "accuracy"

    def scores(self, confusion: Tensor) -> dict[str, float]:
        recall = ratio(confusion.diagonal(), confusion.sum(1))
        return {
            "accuracy": ratio(confusion.diagonal().sum(), confusion.sum()).item(),
            "mean class accuracy": recall.nanmean().item(),
            **{f"recall {name}": value for name, value in zip(self.classes, recall.tolist())},
        }
