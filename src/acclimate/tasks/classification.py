"""One label per image."""

from __future__ import annotations

from torch import Tensor

from acclimate.tasks.base import Subsets, Task, ratio


class Classification(Task):
    """Accuracy, its mean over classes, and the recall of each class."""

    name = "classification"

    @property
    def primary(self) -> str:
        return "accuracy"

    def scores(self, confusion: Tensor, subsets: Subsets | None = None) -> dict[str, float]:
        recall = ratio(confusion.diagonal(), confusion.sum(1))
        return {
            "accuracy": ratio(confusion.diagonal().sum(), confusion.sum()).item(),
            **self.means("mean class accuracy", recall, subsets),
            **{f"recall {name}": value for name, value in zip(self.classes, recall.tolist())},
        }
