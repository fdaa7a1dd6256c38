"""The base of methods of one loss: features of both domains are brought together while the source is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import dann_ramp
from acclimate.methods.base import Method, Progress, Stage, Train
from acclimate.networks.contract import Output
from acclimate.networks.norm import NormPolicy

Layer = Literal["features", "logits"]
"""``features``: where the network aligns, by default the input of its head (:attr:`Network.align`)."""


class Aligned(Method):
    """min_theta E_s CE(f(x_s), y_s) + w lambda_p gap(s, t), lambda_p = 2 / (1 + exp(-10 p)) - 1 with the progress p.

    A method of this kind tells its :meth:`gap`. It is taken over the batch of this process: with several, each compares its
    own rows, and gradients are averaged.
    """

    class Settings(Method.Settings):
        weight: float = Field(1.0, ge=0)  # w
        ramp: bool = True  # False: lambda_p = 1 from the first step
        norm: NormPolicy = "target"

    settings: Settings

    def gap(self, s: Output, t: Output) -> Tensor:
        """How far apart the two outputs are, a scalar >= 0."""
        raise NotImplementedError  # every method of this kind tells its own

    def activations(self, output: Output, layer: Layer) -> Tensor:
        """What is compared at a layer."""
        return self.net.aligned(output) if layer == "features" else output.logits

    def stages(self) -> Sequence[Stage]:
        return [Train("adapt", "step", ("source", "target"), self.plan.steps)]

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        s, t = self(source, target)
        weight = self.settings.weight * (dann_ramp(at.fraction) if self.settings.ramp else 1.0)
        gap = self.gap(s, t)
        self.update({"supervised": self.task.loss(s.logits, source.y), "gap": weight * gap}, "net")
        return {"unweighted gap": gap}
