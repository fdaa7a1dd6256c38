"""The second half of ProDA: students that learn from the labels and the probabilities of the network before them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import distillation
from acclimate.methods.base import Method, Progress, Stage, Sweep, Train, same_weights
from acclimate.networks.norm import NormPolicy, batch_norms, restat
from acclimate.networks.restart import restarted
from acclimate.networks.resting import statistics_move
from acclimate.transforms.cutout import cutout


class Distilled(Method):
    """A student f learns from a teacher g, the network of the stage before (Zhang et al., CVPR 2021, section 3.3).

    min_f CE(f(x_s), y_s) + CE(f(x_t'), xi(p_t)) + w KL(g(x_t') || f(x_t')) / K

    x_t' is the strong view, p_t = g(x_t), the mean with its mirror image, xi the class of the largest probability where that
    exceeds ``confidence``.
    """

    class Settings(Method.Settings):
        distillations: Literal[0, 1, 2] = 2
        student: Literal["stage-1", "supervised", "fresh"] = (
            "stage-1"  # begins as its teacher, as the model given, at random
        )
        distil: float = Field(1.0, ge=0)  # w; 0: a student of the labels alone
        confidence: float = Field(0.95, ge=0, lt=1)
        flip: bool = True  # labels are the mean of the image and its mirror image
        cutout: float = Field(1 / 3, ge=0, lt=1)  # side of the blank square of a strong view; 0: none
        restat: bool = True  # re-estimate BatchNorm on the target before the first labels and after strong views
        norm: NormPolicy = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if self.settings.distillations:
            self.teacher = copy.deepcopy(self.net).requires_grad_(False)
            if self.settings.student != "stage-1":
                begin = restarted if self.settings.student == "fresh" else copy.deepcopy
                self.student = begin(self.net).requires_grad_(False)

    def train(self, mode: bool = True) -> Distilled:
        super().train(mode)
        if self.settings.distillations:
            self.teacher.eval()
        return self

    def distillation_stages(self, steps: Sequence[int]) -> list[Stage]:
        """Label, then train a student, once for each number of steps."""
        stages: list[Stage] = []
        for r, count in enumerate(steps, 1):
            stages.append(Sweep(f"label {r}", "label", ("target",)))
            stages.append(Train(f"distil {r}", "distil", ("source", "target"), count, views=("weak", "strong")))
            stages += self.measured(f"statistics {r}") if statistics_move(self.net, self.settings.norm) else []
        return stages

    def measured(self, name: str) -> list[Stage]:
        return [Sweep(name, "statistics", ("target",))] if self.settings.restat and batch_norms(self.net) else []

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)

    def label(self, target: Iterator[Batch]) -> None:
        for batch in target:
            p = self.net(batch.x).logits.float().softmax(1)
            if self.settings.flip:
                p = (p + self.net(batch.x.flip(3)).logits.float().softmax(1).flip(3)) / 2
            largest, label = p.max(1)
            label[largest <= self.settings.confidence] = p.shape[1]  # unsure; -1 comes to mean "outside of the image"
            self.keep(batch, label=label.to(torch.int16))
        same_weights(self.net, self.teacher)
        if self.settings.student != "stage-1":
            same_weights(self.student, self.net)

    def strong(self, target: Batch) -> tuple[Batch, Tensor]:
        """The strong view with a blank square, as a batch, and the pixels ``(N, H, W)`` that are still to be seen."""
        x = target.views["strong"]
        x, seen = cutout(x, self.settings.cutout, torch.rand(len(x), 2, device=x.device))
        return dataclasses.replace(target, x=x), seen

    def distil(self, source: Batch, target: Batch, at: Progress) -> Mapping[str, Tensor]:
        strong, seen = self.strong(target)
        s, t = self(source, strong)
        label, k = target.columns["label"].long(), t.logits.shape[1]
        seen = seen & (label >= 0)
        label = torch.where(seen & (label < k), label, -1)
        terms = {"supervised": self.task.loss(s.logits, source.y), "pseudo-label": self.task.loss(t.logits, label)}
        if self.settings.distil:
            with torch.no_grad():
                taught = self.teacher(strong.x).logits
            terms["distillation"] = self.settings.distil / k * distillation(taught, t.logits, seen)
        self.update(terms, "net")
        return {"kept": (label >= 0).float().mean()}

    watch = {"kept": (1e-3, 1.01, "almost no pixel is sure enough to be a student's label; lower confidence")}
