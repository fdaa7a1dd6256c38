"""One label per pixel."""

from __future__ import annotations

from torch import Tensor

from acclimate.tasks.base import Subsets, Task, ratio


class Segmentation(Task):
    """Intersection over union and Dice of the whole set, from one confusion matrix (never a mean over images).

    IoU_k = TP_k / (TP_k + FP_k + FN_k). With two classes the score of a table is the IoU of the second ("foreground"),
    otherwise the mean over the classes that occur in the truth or in a prediction: a class that is in neither has no IoU,
    one that is only predicted or only there has 0.
    """

    name = "segmentation"

    @property
    def primary(self) -> str:
        return "foreground IoU" if len(self.classes) == 2 else "mIoU"

    def scores(self, confusion: Tensor, subsets: Subsets | None = None) -> dict[str, float]:
        hits, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        iou = ratio(hits, truth + predicted - hits)
        dice = ratio(2 * hits, truth + predicted)
        scores = {**self.means("mIoU", iou, subsets), "pixel accuracy": ratio(hits.sum(), confusion.sum()).item()}
        if len(self.classes) == 2:
            scores = {"foreground IoU": iou[1].item(), "foreground Dice": dice[1].item(), **scores}
        return scores | {f"IoU {name}": value for name, value in zip(self.classes, iou.tolist())}
