"""The oracle that no method may use: the same training with the target's own labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Need, Progress, Stage, Train


class TrainedOnTarget(Method):
    """An oracle: min_theta E_t CE(f(x_t), y_t). It says how far adaptation could go with this network and these steps."""

    name = "trained-on-target"
    needs = Need.TARGET | Need.TARGET_LABELS
    card = Card(
        title="Trained on target (oracle)",
        paper="no adaptation",
        year=0,
        bibtex="",
        when="To know the distance between source-only and the best that the network could do. It reads target labels.",
        fails="Wherever there are no target labels.",
        deviations=(),
    )

    def stages(self) -> Sequence[Stage]:
        return [Train("train", "step", ("target",), self.plan.steps)]

    def step(self, target: Batch, at: Progress) -> dict[str, Tensor]:
        self.update({"supervised": self.task.loss(self.net(target.x).logits, target.y)}, "net")
        return {}
