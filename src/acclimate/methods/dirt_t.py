"""DIRT-T: after VADA, leave the source and move the boundary through empty space, a little at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import divergence
from acclimate.methods.base import Card, Progress, Stage, Sweep, Train, rounds, same_weights
from acclimate.methods.vada import VADA


class DIRTT(VADA):
    """Decision-boundary iterative refinement training with a teacher (Shu et al., ICLR 2018).

    After VADA, in rounds n on the target alone, the teacher g_{n-1} being the averaged network of the round before:
    min_f beta KL(g_{n-1}(x_t) || f(x_t)) + lambda_t [V(x_t) + H(f(x_t))]
    """

    name = "dirt-t"
    card = Card(
        title="Decision-boundary iterative refinement with a teacher (DIRT-T)",
        paper="Shu et al., A DIRT-T Approach to Unsupervised Domain Adaptation, ICLR 2018",
        year=2018,
        bibtex=VADA.card.bibtex,
        when="VADA works: it adds the last points, most where the target's clusters are not those of the source.",
        fails="VADA's mistakes fill whole clusters: no label corrects them. Few target images. Without the teacher (beta=0) "
        "the predictions may collapse at once.",
        deviations=(
            *VADA.card.deviations,
            "One batch of target images serves the teacher's term and the others; the authors draw one for each.",
            "Both halves share the plan's steps (share); the authors run 80,000 steps of VADA and 80,000 of DIRT-T.",
            "The rounds divide their steps evenly, so that none is longer than interval; the authors' last one may be shorter.",
        ),
        tasks=("classification",),
    )

    class Settings(VADA.Settings):
        beta: float = Field(0.01, ge=0)  # the teacher's; 0: none
        share: float = Field(0.5, gt=0, lt=1)  # of the steps: VADA
        interval: int = Field(5000, ge=1)  # steps after which the teacher is renewed, at most

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def train(self, mode: bool = True) -> DIRTT:
        super().train(mode)
        self.teacher.eval()  # it predicts with its running statistics, without noise
        return self

    def stages(self) -> Sequence[Stage]:
        first = max(1, round(self.plan.steps * self.settings.share))
        rest = max(1, self.plan.steps - first)
        stages: list[Stage] = [Train("vada", "step", ("source", "target"), first), Sweep("settle", "settle")]
        for r, (steps, part) in enumerate(rounds(rest, math.ceil(rest / self.settings.interval)), 1):
            stages.append(Sweep(f"teacher {r}", "renew"))
            stages.append(Train(f"refine {r}", "refine", ("target",), steps, continues=r > 1, part=part))
        return [*stages, Sweep("settle again", "settle")]

    def renew(self) -> None:
        same_weights(self.average, self.teacher)

    def refine(self, target: Batch, at: Progress) -> dict[str, Tensor]:
        logits = self.net(target.x).logits
        terms = self.target_terms(target.x, logits)
        found: dict[str, Tensor] = {}
        if self.settings.beta:
            taught = self.teacher(target.x).logits
            terms["teacher"] = self.settings.beta * divergence(taught, logits)
            found["agreement"] = (taught.argmax(1) == logits.argmax(1)).float().mean()
        self.update(terms, "net")
        return found

    watch = {
        "agreement": (0.5, 1.01, "the student has left its teacher and may collapse; raise beta or lower lambda_t")
    }
