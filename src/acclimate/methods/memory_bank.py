"""Pixel contrast with a class-wise memory: target features drawn to remembered ones of the class they seem to have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import entropy, memory_contrast, weighted_cross_entropy
from acclimate.methods.base import Average, Card, Method, Player, Progress, Stage, Sweep, Train
from acclimate.networks.contract import Output
from acclimate.networks.memory import ClassBank
from acclimate.networks.norm import both, restat
from acclimate.networks.resting import statistics_move
from acclimate.networks.teacher import Known, Taught, Teacher
from acclimate.plan import Optimiser


class MemoryBank(Method):
    """Contrast with a class-wise memory (after Alonso et al., ICCV 2021, section 3), without a target label.

    f student, g its running mean, y = argmax g(x_t), c = max g(x_t), r = exp(-5 (1 - min(1, progress / ramp))^2):
    min CE(f(x_s), y_s) + r E[c^6 CE(f(x_t), y)] + entropy * H(f(x_t)) + contrast * [L(x_s, y_s) + L(x_t, y)]
    L (losses.memory_contrast) pulls q(phi(features of f)) to what the memory holds of their class, phi_g(features of g).
    """

    name = "memory-bank"
    optimiser = Optimiser(lr=2e-4, weight_decay=5e-4, schedule="poly")
    card = Card(
        title="Pixel contrast with a class-wise memory, without target labels",
        paper="Alonso et al., Pixel-Level Contrastive Learning from a Class-wise Memory Bank, ICCV 2021",
        year=2021,
        bibtex=(
            "@inproceedings{alonso2021memory,\n  title={Semi-Supervised Semantic Segmentation with Pixel-Level Contrastive "
            "Learning from a Class-wise Memory Bank},\n  author={Alonso, I{\\~n}igo and Sabater, Alberto and Ferstl, David and "
            "Montesano, Luis and Murillo, Ana C.},\n  booktitle={ICCV},\n  year={2021}\n}"
        ),
        when="Classes that look alike in both domains, a network that is half right on the target, and no target label.",
        fails="A network that is sure and wrong on the target: the memory keeps its mistakes. Nothing pushes classes apart.",
        deviations=(
            "1. A form of ours, not the paper's method: that fills the memory from labelled target images (memory-bank-few), "
            "this one from source labels and target pixels of which the teacher is sure. No published number is its reference.",
            "2. LayerNorm in heads and attention for BatchNorm, which needs two vectors of each class in every step.",
            "3. L reads ``samples`` random pixels of a class, and the memory chooses among as many of each image; the authors' "
            "take all. The memory keeps those of the highest attention; the authors' code sorts the other way round.",
            "4. The teacher's decay is constant (.995 rising to 1 in the paper): in short runs lower it. The authors rank "
            "vectors by the averaged attention, normalised. The rate is for pretrained networks. The student predicts.",
            "5. One strong view instead of two, no mixing, no class weights. The authors ramp over 2,000 of 150,000 steps.",
            "6. A last pass re-estimates the running statistics (restat) and empties the memory.",
        ),
        tasks=("segmentation",),
    )

    class Settings(Method.Settings):
        contrast: float = Field(0.2, ge=0)  # weight of L; the paper's .1 is for one domain
        entropy: float = Field(0.01, ge=0)
        confidence: float = Field(0.95, ge=0, lt=1)  # of the teacher in what the memory takes
        size: int = Field(256, ge=1)  # of the memory, vectors of each class
        images: int = Field(100, ge=1)  # that fill it: max(1, round(size / images)) vectors of an image and class
        samples: int = Field(256, ge=1)  # pixels
        width: int = Field(256, ge=1)  # of a vector
        decay: float = Field(0.995, ge=0, lt=1)  # of the teacher, a mean over about 1 / (1 - decay) steps
        ramp: float = Field(0.1, gt=0, lt=1)  # share of all steps
        restat: bool = True  # not where norm is "frozen"
        norm: Literal["target", "separate", "frozen"] = "target"

    settings: Settings
    streams: ClassVar[tuple[str, ...]] = ("source", "target")

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        own = self.settings.model_dump(include={"width", "size", "samples", "images", "confidence"})
        self.bank = ClassBank(self.net.shapes["features"][0], len(self.task.classes), **own)
        self.teacher = Teacher(self.net, self.settings.norm == "frozen")

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "heads": self.bank}

    def averages(self) -> Sequence[Average]:
        decay = self.settings.decay
        return [Average(self.net, self.teacher.net, decay), Average(self.bank.projection, self.bank.average, decay)]

    def stages(self) -> Sequence[Stage]:
        steps, views = self.plan.steps, ("weak", "strong")
        fill = min(steps - 1, max(1, round(self.settings.ramp * steps)))
        first = [Train("fill", "step", self.streams, fill, views, part=(0.0, fill / steps))] if fill else []
        rest = Train("adapt", "step", self.streams, steps - fill, views, continues=True, part=(fill / steps, 1.0))
        return [*first, rest, Sweep("finish", "finish", ("target",))]

    def finish(self, target: Iterator[Batch]) -> None:
        self.bank.memory.clear()
        if self.settings.restat and statistics_move(self.net, self.settings.norm):
            restat(self.net, (batch.x for batch in target), self.total)

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        s, t = both(self.net, source.x, target.views["strong"], self.settings.norm)
        taught = self.teacher(target.x)
        self.bank.remember(self.teacher(source.x), source.y)
        self.bank.remember(taught, taught.label)
        return self.learn(self.task.loss(s.logits, source.y), (s, source.y), t, taught, at)

    def learn(self, supervised: Tensor, known: Known, t: Output, taught: Taught, at: Progress) -> dict[str, Tensor]:
        ramp = math.exp(-5 * (1 - min(1.0, at.fraction / self.settings.ramp)) ** 2)
        pseudo = weighted_cross_entropy(t.logits, taught.label, ramp * taught.sure**6)
        unsure = self.settings.entropy / math.log(t.logits.shape[1]) * entropy(t.logits)  # a share of log K
        terms = {"supervised": supervised, "pseudo-label": pseudo, "entropy": unsure}
        metrics = {"memory": self.bank.memory.there.float().mean(), "sure": taught.sure.mean()}
        if at.stage == "fill":
            self.update(terms, "net")
            return metrics
        pairs, memory = (known, (t, taught.label)), self.bank.recall()
        pulls = [memory_contrast(*self.bank.read(out.features, labels), *memory) for out, labels in pairs]
        self.update(terms | {"contrast": self.settings.contrast * (pulls[0] + pulls[1])}, "net", "heads")
        return metrics

    watch = {"memory": (0.01, 1.01, "hardly any vector is good enough for the memory; lower confidence")}
