"""Averages of the weights along training, which predict in the end."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from acclimate.methods.base import Average, Method, Stage, Sweep, Train, same_weights
from acclimate.plan import Optimiser


class Averaging(Method):
    """A network whose weights theta are averaged from some step on.

    ema: a <- decay a + (1 - decay) theta after each step (Polyak & Juditsky, 1992, with a window);
    swa: a = mean of theta at even intervals (Izmailov et al., UAI 2018, algorithm 1).

    BatchNorm statistics are those of the last step: re-estimate them afterwards.
    """

    class Settings(Method.Settings):
        average: Literal["none", "ema", "swa"] = "none"
        average_from: float = Field(0.5, ge=0, lt=1)  # share of the steps in question
        decay: float = Field(0.999, ge=0, lt=1)  # ema: a mean over about 1 / (1 - decay) steps
        snapshots: int = Field(10, ge=2)  # swa: the first when the average begins, the last at the end

    settings: Settings
    collected: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        self.register_buffer("collected", torch.tensor(0.0))

    def averages(self) -> Sequence[Average]:
        return [Average(self.net, self.average, self.settings.decay)] if self.settings.average == "ema" else []

    def averaged(
        self, step: str, streams: tuple[str, ...], first: int = 0, optimisers: Mapping[str, Optimiser] | None = None
    ) -> list[Stage]:
        """The stages that call ``step`` from step ``first`` to the plan's last, in one schedule, and take the average.

        The engine moves an average from the start of a stage on, so what it did before ``average_from`` is replaced.
        """
        chosen, steps = self.settings, self.plan.steps
        begun = steps if chosen.average == "none" else first + round((steps - first) * chosen.average_from)
        pieces = chosen.snapshots - 1 if chosen.average == "swa" else 1
        ends = sorted({first, *(begun + (steps - begun) * i // pieces for i in range(pieces + 1)), steps})
        stages: list[Stage] = []
        for begin, end in itertools.pairwise(ends):
            if begin >= begun:
                stages.append(Sweep(f"average from {begin}", "collect"))
            part, own = (begin / steps, end / steps), dict(optimisers or {})
            stages.append(
                Train(f"{step} from {begin}", step, streams, end - begin, optimisers=own, continues=True, part=part)
            )
        return [*stages, *([Sweep("settle", "settle")] if chosen.average != "none" else [])]

    def collect(self) -> None:
        """The first time the weights as they are, later the mean of all that were collected."""
        self.collected += 1
        for mean, value in zip(self.average.parameters(), self.net.parameters()):
            mean.lerp_(value, 1 / self.collected)
        for kept, current in zip(self.average.buffers(), self.net.buffers()):
            kept.copy_(current)

    def settle(self) -> None:
        if self.settings.average == "swa":
            self.collect()
        same_weights(self.average, self.net)
