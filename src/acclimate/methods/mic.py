"""MIC: an averaged teacher's labels, learnt on images mixed of both domains and on images of which most is hidden."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.errors import UsageError
from acclimate.losses import weighted_cross_entropy
from acclimate.methods.base import Average, Card, Method, Progress, Stage, Sweep, Train
from acclimate.networks.norm import batch_norms, held, restat
from acclimate.networks.resting import statistics_move
from acclimate.plan import Optimiser
from acclimate.transforms.class_mix import class_mix
from acclimate.transforms.masking import mask_blocks


class MIC(Method):
    """Masked image consistency over DACS and DAFormer (Hoyer et al., CVPR 2023, section 3).

    The teacher g, a running mean of the student f, labels the target: y = argmax g(x_t), q = share of pixels with
    max g(x_t) >= threshold, one number for the batch. In each step
    min_f CE(f(x_s), y_s) + CE_w(f(mix), y_mix) + masked * q CE(f(hidden(x_t)), y)
    mix: half of the classes of x_s pasted onto x_t, with weights w = 1 on what is pasted and q elsewhere.
    """

    name = "mic"
    optimiser = Optimiser(kind="adamw", lr=6e-5, weight_decay=0.01, schedule="poly", warmup=0.0375)
    card = Card(
        title="Masked image consistency with class mixing (MIC, DAFormer, DACS)",
        paper="Hoyer et al., MIC: Masked Image Consistency for Context-Enhanced Domain Adaptation, CVPR 2023",
        year=2023,
        bibtex="@inproceedings{hoyer2023mic,\n  title={{MIC}: Masked Image Consistency for Context-Enhanced Domain Adaptation},\n"
        "  author={Hoyer, Lukas and Dai, Dengxin and Wang, Haoran and Van Gool, Luc},\n  booktitle={CVPR},\n  year={2023}\n}",
        when="Scenes of many classes (two: rare_class_temperature=0). masked=0 is DAFormer, with rare_class_temperature=0 DACS.",
        fails="A teacher that is sure and wrong. Objects that mean nothing out of place. Large blocks, if objects are small.",
        deviations=(
            "1. As theirs, the teacher is at first the plain mean of the student's weights. Below 3,000 steps lower decay.",
            "2. Mixed and masked images move the running statistics (the authors: source images too, norm='separate'); as none "
            "will be predicted, a last pass re-estimates the statistics on the target (restat). The student predicts.",
            "3. Both halves of a mixture are recoloured apart (the preprocessing's view 'strong', in every step), masked images "
            "likewise; the authors jitter and blur the finished mixture with probability .8 and .5.",
            "4. Half of each image's classes are pasted, as in DACS; DAFormer's code draws from those of the whole batch and "
            "'ignore'. Losses are means over labelled pixels; the authors count ignored ones as zeros.",
            "5. Without the distance to ImageNet features, the target's top 15 and bottom 120 pixels of weight 0, HRDA's scales "
            "and the tenfold rate of heads (a network's lr_scales). Poly decay has the power .9, not 1. q is one over processes.",
        ),
        tasks=("segmentation",),
    )

    class Settings(Method.Settings):
        mix: bool = True  # class mixing (DACS)
        masked: float = Field(1.0, ge=0)  # weight of the masked consistency
        block: int | None = Field(None, ge=1)  # side of a hidden block; None: a sixteenth of the crop's
        ratio: float = Field(0.7, ge=0, lt=1)  # share of blocks that are hidden
        threshold: float = Field(0.968, gt=0, lt=1)  # of the probability of a pixel that counts for q
        decay: float = Field(0.999, ge=0, lt=1)  # of the teacher, a mean over about 1 / (1 - decay) steps
        rare_class_temperature: float | None = Field(0.01, ge=0)  # of the source's images; 0: all equally often
        restat: bool = True  # at the end; not where statistics are frozen
        norm: Literal["target", "separate", "frozen"] = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if not self.settings.mix and not self.settings.masked:
            raise UsageError("mic without mixing and masking is source-only; set mix=True or masked above 0")
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def train(self, mode: bool = True) -> MIC:
        super().train(mode)
        self.teacher.eval()  # without dropout, but each batch normalises itself
        for _, layer in batch_norms(self.teacher):
            layer.train(mode and self.settings.norm != "frozen")
        return self

    def averages(self) -> Sequence[Average]:
        return [Average(self.net, self.teacher, self.settings.decay, ramp=True)]

    def stages(self) -> Sequence[Stage]:
        rare_classes = {"source": rare} if (rare := self.settings.rare_class_temperature) else {}
        streams, views = ("source", "target"), ("weak", "strong")
        train = Train("adapt", "step", streams, self.plan.steps, views, rare_classes=rare_classes)
        last = self.settings.restat and statistics_move(self.net, self.settings.norm)
        return [train, Sweep("statistics", "statistics", ("target",))] if last else [train]

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)

    @torch.no_grad()
    def teach(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pseudo-labels ``(N, H, W)`` and q, the share of them of which the teacher is sure."""
        with held(self.teacher):
            p, label = self.teacher(x).logits.float().softmax(1).max(1)
        sure = (p >= self.settings.threshold).float().mean()
        return label, self.total(sure) / self.total(torch.ones_like(sure))

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        label, q = self.teach(target.x)
        strong = target.views["strong"]
        with self.passing(self.net, "source"):
            terms = {"supervised": self.task.loss(self.net(source.x).logits, source.y)}
        if self.settings.mix:
            mixed = class_mix(source.views["strong"], source.y, strong, label, q, len(self.task.classes))
            with self.passing(self.net, "target"):
                terms["mixed"] = weighted_cross_entropy(self.net(mixed.x).logits, mixed.y, mixed.weights)
        if self.settings.masked:
            hidden = mask_blocks(strong, self.settings.block, self.settings.ratio)
            with self.passing(self.net, "target"):
                terms["masked"] = self.settings.masked * q * self.task.loss(self.net(hidden).logits, label)
        self.update(terms, "net")
        return {"sure": q}

    watch = {"sure": (0.01, 1.01, "the teacher is hardly ever sure, so the target teaches nothing; lower threshold")}
