"""SUIT: draw the source anew in the look of the target, in one direction, and learn from both versions of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import content_distance
from acclimate.methods.averaging import Averaging
from acclimate.methods.base import Card, Progress, Stage, Sweep, Train, same_weights
from acclimate.methods.translating import Translating
from acclimate.networks.norm import NormPolicy, both, frozen, held, restat
from acclimate.networks.resting import statistics_move
from acclimate.plan import Optimiser


class SUIT(Translating, Averaging):
    """Simplified unsupervised image translation for segmentation adaptation (Li et al., Pattern Recognition 2020).

    min_{G,Seg} max_D  L_adv(D, G) + L_semCon(G) + L_task(Seg)
    L_adv = E_t log D(x_t) + E_s log(1 - D(G(x_s))), here as least squares
    L_semCon = lambda_s E_s CE(Seg(G(x_s)), y_s) + lambda_c E_s ||f(G(x_s)) - f(x_s)||^2
    L_task = E_s CE(Seg(x_s), y_s) + E_s CE(Seg(G(x_s)), y_s)
    In each step D moves, then G, then Seg. "Avg.W": the weights of Seg are averaged along the way.
    """

    name = "suit"
    optimiser = Optimiser(kind="adam", lr=1e-3, schedule="poly")  # Seg
    card = Card(
        title="Simplified unsupervised image translation (SUIT)",
        paper="Li et al., Simplified Unsupervised Image Translation for Semantic Segmentation Adaptation, Pattern "
        "Recognition, 2020",
        year=2020,
        bibtex=(
            "@article{li2020suit,\n  title={Simplified Unsupervised Image Translation for Semantic Segmentation Adaptation},\n"
            "  author={Li, Rui and Cao, Wenming and Jiao, Qianfen and Wu, Si and Wong, Hau-San},\n"
            "  journal={Pattern Recognition},\n  year={2020}\n}"
        ),
        when="The domains differ in colour, contrast or texture, not in what they show. The translated images can be "
        "looked at, and another network can be trained on them.",
        fails="Objects of other shapes, sizes or numbers: G draws what the critic misses, whatever the label says. Few "
        "steps: G begins as the identity and has not gone far.",
        deviations=(
            "1. The paper's text could not be had: the losses are those of the authors' slides; weights, rates, networks and "
            "shares are chosen here.",
            "2. The game is of least squares (form='vanilla': the formula's). G is CycleGAN's, which here changes the image it "
            "is given, beginning with no change; D judges patches of 70 pixels under spectral normalisation. Both are narrow, "
            "for a CPU; CycleGAN has generator_width=64, blocks=9, critic_width=64.",
            "3. The slides leave f open, and no pre-trained one is at hand: it is the network itself, where methods align it, "
            "as the warm-up leaves it, at rest; each channel is normalised over an image's positions.",
            "4. Seg first learns the source alone (warm_up: 0 if it has); then lambda_s rises. It judges by batch statistics.",
            "5. In norm, 'target' means the translated source, as Seg learns from no other such images. A last pass "
            "re-estimates the BatchNorm statistics on the target (restat). Part of any gain is theirs: compare with adabn.",
            "6. Avg.W is not explained there: average='ema' (of each step) or 'swa' (mean of snapshots), from average_from on.",
        ),
        tasks=("segmentation",),
    )

    class Settings(Translating.Settings, Averaging.Settings):
        semantic: float = Field(1.0, ge=0)  # lambda_s
        content: float = Field(1.0, ge=0)  # lambda_c
        warm_up: float = Field(0.3, ge=0, lt=1)  # share of the steps; 0 where the network is trained already
        ramp: float = Field(0.2, gt=0, le=1)  # share of the steps over which lambda_s rises, after the warm-up
        restat: Literal["target", "translated", "none"] = "target"  # images of the final BatchNorm statistics
        norm: NormPolicy = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.extractor = copy.deepcopy(self.net).requires_grad_(False)  # f

    def train(self, mode: bool = True) -> SUIT:
        super().train(mode)
        self.extractor.eval()
        return self

    def stages(self) -> Sequence[Stage]:
        steps, rates = self.plan.steps, self.rates()
        first = min(steps - 1, round(steps * self.settings.warm_up))
        warm = Train("source", "learn", ("source",), first, optimisers=rates, part=(0, first / steps))
        images = {"target": "target", "translated": "source"}.get(self.settings.restat)
        moved = statistics_move(self.net, self.settings.norm)
        return [
            *([warm] if first else []),
            Sweep("content", "fix_content"),
            *self.averaged("adapt", ("source", "target"), first, rates),
            *([Sweep("statistics", self.settings.restat, (images,))] if images and moved else []),
        ]

    def learn(self, source: Batch, at: Progress) -> None:
        self.update({"supervised": self.task.loss(self.net(source.x).logits, source.y)}, "net")

    def fix_content(self) -> None:
        same_weights(self.net, self.extractor)

    def adapt(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        def keeping(x: Tensor) -> dict[str, Tensor]:
            with frozen(self.net) if self.settings.norm == "frozen" else held(self.net):
                semantic = self.task.loss(self.net(x).logits, source.y)
            fa, fb = (self.extractor.aligned(self.extractor(images)) for images in (x, source.x))
            rise = min(1.0, max(0.0, at.fraction - self.settings.warm_up) / self.settings.ramp)
            content = self.settings.content * content_distance(fa, fb)
            return {"semantic": rise * self.settings.semantic * semantic, "content": content}

        x, watched = self.play(source.x, target.x, keeping)
        terms = [self.task.loss(out.logits, source.y) for out in both(self.net, source.x, x, self.settings.norm)]
        self.update(dict(zip(("supervised", "translated"), terms)), "net")
        return watched

    def target(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)

    def translated(self, source: Iterator[Batch]) -> None:
        restat(self.net, (self.generator(batch.x) for batch in source), self.total)
