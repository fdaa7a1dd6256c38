"""Asymmetric tri-training: two classifiers label the target, a third learns from these labels alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from acclimate.data.streams import Batch
from acclimate.losses import weight_overlap
from acclimate.methods.base import Card, Method, Player, Progress, Stage, Sweep, Train, rounds
from acclimate.networks.heads import fresh_head
from acclimate.networks.norm import NormPolicy, frozen, held
from acclimate.plan import Optimiser


class AsymmetricTriTraining(Method):
    """Asymmetric tri-training (Saito et al., ICML 2017, eq. 1 and algorithm 1).

    Features F, labelers F1, F2 with first weights W1, W2, head Ft, which predicts. All learn on the source; then, in rounds,
    n_r target images get the label y^ on which F1 and F2 agree, one of them with more than tau, and a step is two updates:
    with L(f) = E_s CE(f(F(x_s)), y_s) + E_t CE(f(F(x_t)), y^)
    min_{F,F1,F2} L(F1) + L(F2) + lambda |W1^T W2|;  min_{F,Ft} E_t CE(Ft(F(x_t)), y^)
    """

    name = "tri-training"
    optimiser = Optimiser(lr=0.01)
    card = Card(
        title="Asymmetric tri-training (ATT)",
        paper="Saito et al., Asymmetric Tri-training for Unsupervised Domain Adaptation, ICML 2017",
        year=2017,
        bibtex="@inproceedings{saito2017tri,\n  title={Asymmetric Tri-training for Unsupervised Domain Adaptation},\n"
        "  author={Saito, Kuniaki and Ushiku, Yoshitaka and Harada, Tatsuya},\n  booktitle={ICML},\n  year={2017}\n}",
        when="A source model that is right on most of the target and knows where; a head with layers of its own.",
        fails="A weak start: what both labelers get wrong is learnt again each round. Nothing keeps classes in balance.",
        deviations=(
            "Ten rounds share the steps that source_share leaves; the authors have 30 phases of 3,000 steps, one on the source. "
            "n_r grows by a tenth of the target a round, from 5,000; the authors' by a twentieth, up to 40,000, shuffled anew.",
            "Both domains weigh alike in L; the authors draw from their union, and predict with statistics of the batch.",
        ),
        tasks=("classification",),
    )

    class Settings(Method.Settings):
        rounds: int = Field(10, ge=1)
        source_share: float = Field(0.25, gt=0, lt=1)  # of all steps
        threshold: float = Field(0.9, ge=0, lt=1)  # tau
        overlap: float = Field(0.01, ge=0)  # lambda
        growth: float = Field(0.1, gt=0)  # of the candidates n_r, as a share of the target
        fewest: int = Field(5000, ge=1)  # candidates
        norm: NormPolicy = "target"

    settings: Settings
    round: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.labelers = nn.ModuleList(fresh_head(self.net) for _ in range(2))
        self.register_buffer("round", torch.tensor(0))

    def players(self) -> Mapping[str, Player]:
        return {"features": self.net.body_parameters(), "labelers": self.labelers, "head": self.net.head}

    def stages(self) -> Sequence[Stage]:
        share, both = self.settings.source_share, ("source", "target")
        first = max(1, round(share * self.plan.steps))
        stages: list[Stage] = [Train("source", "begin", both, first, part=(0, share))]
        for r, (steps, (p, q)) in enumerate(rounds(max(1, self.plan.steps - first), self.settings.rounds), 1):
            part = (share + (1 - share) * p, share + (1 - share) * q)
            round_ = Train(f"round {r}", "step", both, steps, continues=True, part=part)
            stages += [Sweep(f"label {r}", "label", ("target",)), round_]
        return stages

    def begin(self, source: Batch, target: Batch, at: Progress) -> None:
        s, t = self(source, target)  # the target moves running statistics, also those of the labelers
        supervised = self.summed([s.logits, *self.votes(s.features, "source")], source.y)
        self.votes(t.features, "target")
        self.update({"supervised": supervised, "overlap": self.overlap()}, *self.players())

    def votes(self, features: Tensor, domain: Literal["source", "target"]) -> list[Tensor]:
        with self.passing(self.labelers, domain):
            return [labeler(features) for labeler in self.labelers]

    def summed(self, logits: Sequence[Tensor], labels: Tensor) -> Tensor:
        return torch.stack([self.task.loss(z, labels) for z in logits]).sum()

    def overlap(self) -> Tensor:
        w1, w2 = (next(p for p in labeler.parameters() if p.ndim > 1) for labeler in self.labelers)
        return self.settings.overlap * weight_overlap(w1, w2)

    def label(self, target: Iterator[Batch]) -> None:
        rows = []
        for batch in target:
            votes = self.votes(self.net(batch.x).features, "target")
            (c1, y1), (c2, y2) = (z.float().softmax(1).max(1) for z in votes)
            accepted = (y1 == y2) & (torch.maximum(c1, c2) > self.settings.threshold)
            rows.append(torch.stack([batch.index, torch.where(accepted, y1, -1)]))
        index, labels = torch.cat(rows, 1)
        self.round += 1
        fewest = self.settings.fewest / int(self.total(labels.new_tensor(len(labels))))
        labels[round(max(fewest, self.settings.growth * int(self.round)) * len(labels)) :] = -1
        self.keep(dataclasses.replace(batch, index=index), label=labels)

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        label = target.columns["label"]
        s, t = self(source, target)
        zs, zt = self.votes(s.features, "source"), self.votes(t.features, "target")
        losses = {"supervised": self.summed(zs, source.y), "pseudo-label": self.summed(zt, label)}
        self.update({**losses, "overlap": self.overlap()}, "features", "labelers")
        with frozen(self.net) if self.settings.norm == "frozen" else held(self.net):
            t = self.net(target.x)  # the features have moved; the running statistics shall do so once a step
        self.update({"target": self.task.loss(t.logits, label)}, "features", "head")
        return {"kept": (label >= 0).float().mean()}

    watch = {"kept": (1e-2, 1.01, "almost no target image gets a label; lower threshold or raise source_share")}
