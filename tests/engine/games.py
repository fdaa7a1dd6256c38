"""Small methods that exercise one corner of the engine each."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.data.streams import Batch
from acclimate.methods.base import (
    Average,
    Card,
    Method,
    Need,
    Player,
    Progress,
    Settings,
    Stage,
    Sweep,
    Train,
    same_weights,
)

CARD = Card("a game", "none", 2000, "@misc{}", "never", "always", ())


class Supervised(Method):
    """Source training; with ``bad`` a term or gradient that is not finite from that step on."""

    name = "supervised"
    needs = Need.SOURCE
    card = CARD

    class Settings(Settings):
        bad: int = -1  # the step from which on
        way: str = "term"

    def stages(self) -> Sequence[Stage]:
        return [Train("fit", "step", ("source",), self.plan.steps)]

    def step(self, source: Batch, at: Progress) -> dict[str, Tensor]:
        logits = self.net(source.x).logits
        loss = self.task.loss(logits, source.y)
        terms = {"supervised": loss, "extra": loss * 0}
        if 0 <= self.settings.bad <= at.step:
            if self.settings.way == "term":
                terms["extra"] = terms["extra"] + torch.tensor(float("nan"))
            elif self.settings.way == "input":  # the running statistics are spoilt too
                terms["supervised"] = self.task.loss(self.net(source.x * float("inf")).logits, source.y)
            else:  # finite value, NaN gradient: d sqrt(0) * 0
                terms["extra"] = (logits * 0).abs().sum().sqrt()
        self.update(terms, "net")
        return {}


class TwoPlayers(Method):
    """Maximum classifier discrepancy: body and two heads in three moves a step."""

    name = "two-players"
    card = CARD

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        size = self.net.head.in_features
        self.heads = nn.ModuleList(nn.Linear(size, len(self.task.classes)) for _ in range(2))
        self.seen: list[tuple[str, bool, bool]] = []

    def players(self) -> Mapping[str, Player]:
        return {"features": self.net.body_parameters(), "heads": self.heads}

    def stages(self) -> Sequence[Stage]:
        return [Train("play", "step", ("source", "target"), self.plan.steps)]

    def both(self, x: Tensor) -> list[Tensor]:
        features = self.net.features(x)
        return [head(features) for head in self.heads]

    def supervised(self, source: Batch) -> Tensor:
        return sum(self.task.loss(z, source.y) for z in self.both(source.x))

    def discrepancy(self, target: Batch) -> Tensor:
        a, b = (z.float().softmax(1) for z in self.both(target.x))
        return (a - b).abs().mean()

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        for players, terms in (
            (("features", "heads"), lambda: {"supervised": self.supervised(source)}),
            (("heads",), lambda: {"supervised": self.supervised(source), "apart": -self.discrepancy(target)}),
            (("features",), lambda: {"agree": self.discrepancy(target)}),
        ):
            before = [[p.clone() for p in part] for part in (self.net.body_parameters(), self.heads.parameters())]
            self.update(terms(), *players)
            moved = [
                any(not torch.equal(a, b) for a, b in zip(old, part))
                for old, part in zip(before, (self.net.body_parameters(), self.heads.parameters()))
            ]
            self.seen.append(("+".join(players), *moved))
        return {}


class Bad(Supervised):
    """Each of its steps is a mistake that the engine must name."""

    name = "bad"

    class Settings(Settings):
        mistake: str = "forget"

    def players(self) -> Mapping[str, Player]:
        if self.settings.mistake == "overlap":
            return {"net": self.net, "head": self.net.head}
        return {"body": self.net.body_parameters(), "head": self.net.head}

    def step(self, source: Batch, at: Progress) -> dict[str, Tensor]:
        loss = self.task.loss(self.net(source.x).logits, source.y)
        match self.settings.mistake:
            case "stranger":
                self.update({"loss": loss}, "critic")
            case "nobody":
                self.update({"loss": loss})
            case "no terms":
                self.update({}, "head")
            case "no gradient":
                self.update({"loss": self.net.features(source.x).sum()}, "body", "head")
            case "constant":
                self.update({"loss": loss.detach()}, "head")
            case "overlap":
                self.update({"loss": loss}, "net")
        return {}


class Teacher(Supervised):
    """An averaged copy of the network; fresh again in a second round whose optimisers go on."""

    name = "teacher"

    class Settings(Settings):
        continues: bool = True
        decay: float = 0.5
        bad: int = -1
        way: str = "term"

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def stages(self) -> Sequence[Stage]:
        return [
            Train("one", "step", ("source",), self.plan.steps),
            Sweep("reset", "reset"),
            Train("two", "step", ("source",), self.plan.steps, continues=self.settings.continues),
        ]

    def reset(self) -> None:
        same_weights(self.net, self.teacher)

    def averages(self) -> Sequence[Average]:
        return [Average(self.net, self.teacher, self.settings.decay)]
