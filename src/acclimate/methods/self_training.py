"""Class-balanced self-training: learn from the most confident target predictions of every class, in rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Need, Player, Progress, Stage, Sweep, Train
from acclimate.networks.norm import NormPolicy, batch_norms, restat
from acclimate.plan import Optimiser
from acclimate.transforms.confidence import LEVELS, class_thresholds, confidence_level


class SelfTraining(Method):
    """Class-balanced self-training (Zou et al., ECCV 2018, eq. 4 and algorithm 1), for images or pixels.

    Each round labels the whole target once, keeps the share p_r of most confident predictions of every class k, those
    with max_k p_k > exp(-k_k), and then minimises E_s CE(f(x_s), y_s) + w E_t CE(f(x_t), kept label).
    p_r grows from ``portion`` by ``growth`` a round, up to ``portion_max``.
    """

    name = "self-training"
    needs = Need.SOURCE | Need.TARGET | Need.SOURCE_MODEL
    optimiser = Optimiser(lr=0.003, weight_decay=5e-4)
    card = Card(
        title="Class-balanced self-training (CBST)",
        paper="Zou et al., Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training, "
        "ECCV 2018",
        year=2018,
        bibtex=(
            "@inproceedings{zou2018cbst,\n  title={Unsupervised Domain Adaptation for Semantic Segmentation via "
            "Class-Balanced Self-Training},\n  author={Zou, Yang and Yu, Zhiding and Vijaya Kumar, B. V. K. and Wang, "
            "Jinsong},\n  booktitle={ECCV},\n  year={2018}\n}"
        ),
        when="The source model, or the source model with re-estimated statistics, is right more often than not on the "
        "target's confident predictions.",
        fails="A class that the source model confuses with confidence: the error is learnt again each round.",
        deviations=(
            "BatchNorm statistics are re-estimated on the target before the first labelling (restat) and each domain is "
            "normalised by its own batch; the paper freezes the statistics of an ImageNet network (norm='frozen', "
            "restat=False).",
            "Thresholds come from a histogram of 4,096 levels of the log-odds instead of a sort of sub-sampled pixels.",
            "No spatial prior and no mining of patches with rare classes; every source image may be drawn in every round.",
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
        norm: NormPolicy = "target"

    settings: Settings
    thresholds: Tensor
    round: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register_buffer("thresholds", torch.zeros(len(self.task.classes), dtype=torch.int16))
        self.register_buffer("round", torch.tensor(0))

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net}

    def stages(self) -> Sequence[Stage]:
        steps = max(1, self.plan.steps // self.settings.rounds)
        rounds = [
            stage
            for r in range(1, self.settings.rounds + 1)
            for stage in (
                Sweep(f"label {r}", "label", ("target",)),
                Train(f"round {r}", "self_train", ("source", "target"), steps),
            )
        ]
        first = (
            [Sweep("statistics", "statistics", ("target",))] if self.settings.restat and batch_norms(self.net) else []
        )
        return [*first, *rounds]

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)

    def label(self, target: Iterator[Batch]) -> None:
        histogram = torch.zeros(len(self.thresholds), LEVELS, dtype=torch.int64, device=self.thresholds.device)
        for batch in target:
            label, level = confidence_level(self.predict(batch.x))
            cells = label.flatten().long() * LEVELS + level.flatten().long()
            histogram += torch.bincount(cells, minlength=histogram.numel()).view_as(histogram)
            self.keep(batch, label=label, level=level)
        portion = self.settings.portion + self.settings.growth * self.round
        self.thresholds.copy_(class_thresholds(self.total(histogram), portion.clamp_max(self.settings.portion_max)))
        self.round += 1

    def self_train(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        s, t = self(source, target)
        label, level = target.columns["label"].long(), target.columns["level"]
        known = label >= 0  # a geometric transform may have moved the image's border into view
        kept = known & (level >= self.thresholds[label.clamp_min(0)])
        pseudo = self.task.loss(t.logits, torch.where(kept, label, -1))
        self.update(
            {"supervised": self.task.loss(s.logits, source.y), "pseudo-label": self.settings.weight * pseudo}, "net"
        )
        return {"kept": kept.float().mean()}

    watch = {"kept": (1e-3, 1.01, "almost no target prediction is kept as a pseudo-label; raise portion")}
