"""The reference that every gain is measured from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Need, Progress, Stage, Train


class SourceOnly(Method):
    """Train on the source, use on the target: min_theta E_s CE(f(x_s), y_s)."""

    name = "source-only"
    needs = Need.SOURCE
    card = Card(
        title="Source only",
        paper="no adaptation",
        year=0,
        bibtex="",
        when="Always, beside any method: without it no gain can be believed.",
        fails="Where the target differs from the source.",
        deviations=(),
    )

    def stages(self) -> Sequence[Stage]:
        return [Train("train", "step", ("source",), self.plan.steps)]

    def step(self, source: Batch, at: Progress) -> dict[str, Tensor]:
        self.update({"supervised": self.task.loss(self.net(source.x).logits, source.y)}, "net")
        return {}
