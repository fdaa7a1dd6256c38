"""Class-balanced self-training: learn from the most confident target predictions of every class, in rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Need, Progress, Stage, Sweep, Train
from acclimate.networks.norm import NormPolicy, batch_norms, restat
from acclimate.networks.spatial_prior import SpatialPrior
from acclimate.plan import Optimiser
from acclimate.transforms.confidence import LEVELS, class_thresholds, confidence_level


class SelfTraining(Method):
    """Class-balanced self-training (Zou et al., ECCV 2018, eq. 4 and algorithm 1), for images or pixels.

    Each round labels the whole target once, keeps the share p_r of most confident predictions of every class k, those
    with max_k p_k > exp(-k_k), and then minimises E_s CE(f(x_s), y_s) + w E_t CE(f(x_t), kept label).
    p_r grows from ``portion`` by ``growth`` a round, up to ``portion_max``. ``spatial_prior`` labels by p_k(n) q_k(n) instead
    of p_k(n), q_k(n) being the share of the source's class k that lies at place n.
    """

    name = "self-training"
    needs = Need.SOURCE | Need.TARGET | Need.SOURCE_MODEL
    optimiser = Optimiser(lr=0.003, weight_decay=5e-4)
    card = Card(
        title="Class-balanced self-training (CBST)",
        paper="Zou et al., Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training, ECCV 2018",
        year=2018,
        bibtex=(
            "@inproceedings{zou2018cbst,\n  title={Unsupervised Domain Adaptation for Semantic Segmentation via "
            "Class-Balanced Self-Training},\n  author={Zou, Yang and Yu, Zhiding and Vijaya Kumar, B. V. K. and Wang, "
            "Jinsong},\n  booktitle={ECCV},\n  year={2018}\n}"
        ),
        when="The source model, perhaps with new statistics, is right more often than not where it is sure of the target.",
        fails="A class that the source model confuses with confidence: the error is learnt again each round.",
        deviations=(
            "BatchNorm's statistics are re-estimated on the target before the first labelling (restat) and each domain is "
            "normalised by its own batch; the paper freezes those of an ImageNet network (norm='frozen', restat=False).",
            "Thresholds come from a histogram of 4,096 levels of the log-odds instead of a sort of sub-sampled pixels.",
            "A pixel's most probable class is kept or none; eq. 4 keeps the class of the largest p_k over threshold.",
            "The spatial prior is off (the authors: on, with portion=.15, for GTA5 alone); p q is divided by its sum over k.",
            "Every source image may be drawn in every round; rare_classes favours some. The authors cut out rare target patches.",
            "The learning rate is .003 for small networks trained from scratch; the paper has 1e-4 with batch 2.",
        ),
    )

    class Settings(Method.Settings):
        rounds: int = Field(3, ge=1)
        portion: float = Field(0.2, gt=0, le=1)
        growth: float = Field(0.05, ge=0)
        portion_max: float = Field(0.5, gt=0, le=1)
        weight: float = 1.0
        restat: bool = True
        spatial_prior: bool = False  # segmentation of scenes that are built alike
        prior_grid: tuple[int, int] = (32, 64)  # rows and columns
        rare_classes: float | None = Field(None, gt=0)  # temperature, of label maps; None: every source image in turn
        norm: NormPolicy = "target"

    settings: Settings
    thresholds: Tensor
    round: Tensor
    prior: nn.Module

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register_buffer("thresholds", torch.zeros(len(self.task.classes), dtype=torch.int16))
        self.register_buffer("round", torch.tensor(0))
        grid = self.settings.prior_grid
        self.prior = SpatialPrior(len(self.task.classes), grid) if self.settings.spatial_prior else nn.Identity()

    def stages(self) -> Sequence[Stage]:
        steps = max(1, self.plan.steps // self.settings.rounds)
        rare = {} if self.settings.rare_classes is None else {"source": self.settings.rare_classes}
        stages: list[Stage] = [Sweep("prior", "place", ("source",))] if self.settings.spatial_prior else []
        if self.settings.restat and batch_norms(self.net):
            stages.append(Sweep("statistics", "statistics", ("target",)))
        for r in range(1, self.settings.rounds + 1):
            stages.append(Sweep(f"label {r}", "label", ("target",)))
            stages.append(Train(f"round {r}", "self_train", ("source", "target"), steps, rare_classes=rare))
        return stages

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)

    def place(self, source: Iterator[Batch]) -> None:
        self.prior.fit((batch.y for batch in source), self.total)  # type: ignore[operator]

    def columns(self, logits: Tensor) -> dict[str, Tensor]:
        return dict(zip(("label", "level"), confidence_level(logits)))

    def label(self, target: Iterator[Batch]) -> None:
        histogram = torch.zeros(len(self.thresholds), LEVELS, dtype=torch.int64, device=self.thresholds.device)
        for batch in target:
            columns = self.columns(self.prior(self.predict(batch.x)))
            cells = columns["label"].flatten().long() * LEVELS + columns["level"].flatten().long()
            histogram += torch.bincount(cells, minlength=histogram.numel()).view_as(histogram)
            self.keep(batch, **columns)
        portion = self.settings.portion + self.settings.growth * self.round
        self.thresholds.copy_(class_thresholds(self.total(histogram), portion.clamp_max(self.settings.portion_max)))
        self.round += 1

    def on_target(self, logits: Tensor, target: Batch) -> tuple[dict[str, Tensor], Tensor]:
        label, level = target.columns["label"].long(), target.columns["level"]
        kept = (label >= 0) & (level >= self.thresholds[label.clamp_min(0)])  # -1: the border has come into view
        return {"pseudo-label": self.settings.weight * self.task.loss(logits, torch.where(kept, label, -1))}, kept

    def self_train(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        s, t = self(source, target)
        terms, kept = self.on_target(t.logits, target)
        self.update({"supervised": self.task.loss(s.logits, source.y), **terms}, "net")
        return {"kept": kept.float().mean()}

    watch = {"kept": (1e-3, 1.01, "almost no target prediction is kept as a pseudo-label; raise portion")}
