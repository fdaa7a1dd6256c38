"""Histogram matching: train on source images whose grey levels are distributed as the target's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Progress, Stage, Sweep, Train
from acclimate.networks.norm import batch_norms, restat
from acclimate.transforms.histogram import COUNT, histogram, matching, remap


class HistogramMatching(Method):
    """Histogram matching of the source to the target, channel by channel, then supervised training.

    min_net E_s CE(f(T(x_s)), y_s),  T(v) = F_t^-1(F_s(v)), F the cumulative histograms of 256 levels
    """

    name = "histogram-matching"
    card = Card(
        title="Histogram matching",
        paper="Franco-Barranco et al., Deep learning based domain adaptation for mitochondria segmentation on EM volumes, "
        "Computer Methods and Programs in Biomedicine 222:106949, 2022",
        year=2022,
        bibtex=(
            "@article{franco2022domain,\n  title={Deep learning based domain adaptation for mitochondria segmentation on "
            "{EM} volumes},\n  author={Franco-Barranco, Daniel and Pastor-Tronch, Julio and Gonz{\\'a}lez-Marfil, Aitor and "
            "Mu{\\~n}oz-Barrutia, Arrate and Arganda-Carreras, Ignacio},\n  journal={Computer Methods and Programs in "
            "Biomedicine},\n  volume={222},\n  pages={106949},\n  year={2022}\n}"
        ),
        when="The first thing to try where domains differ in brightness, contrast, gamma or tint: two passes over the images, "
        "nothing to tune, nothing that can diverge. A strong baseline for electron microscopes.",
        fails="Shares of classes that differ: the map then moves one class's levels to another's; worst where most of an "
        "image is one level, such as a digit on black: a wider border turns all of the background grey. Differences of "
        "texture, noise, blur or resolution, which no map of levels changes. Inverted contrast: the map is monotone.",
        deviations=(
            "One map for the whole domain (reference='domain'), so that the levels of a crop do not depend on how much of "
            "each class it happens to hold; the authors match each source image on its own to the target's mean histogram "
            "(reference='image-to-domain'), scikit-image one image to another (reference='image').",
            "Every image is matched (probability=1), the plain baseline: the statistics of BatchNorm are then those of "
            "translated images alone. The authors match each with probability .5, as an augmentation.",
            "Channels are matched one by one, which ignores that colours go together.",
            "Level 0, which the authors take for padding and leave out, counts as any other.",
            "Predictions use the running statistics of translated source images; restat=True re-estimates them on the "
            "target at the end, which adds AdaBN to it.",
            "The network is any; the authors' is their Attention Y-Net.",
        ),
    )

    class Settings(Method.Settings):
        reference: Literal["domain", "image-to-domain", "image"] = "domain"  # image: the target crop in the same row
        probability: float = Field(1.0, gt=0, le=1)  # that a source image is matched
        restat: bool = False  # BatchNorm's statistics on the target, after training

    settings: Settings
    source_levels: Tensor
    target_levels: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for name in ("source_levels", "target_levels"):
            self.register_buffer(name, torch.zeros(self.net.input_shape[0], COUNT, dtype=torch.int64))
        for name, value in zip(("mean", "std"), self.net.normalisation):
            self.register_buffer(name, torch.tensor(value).view(-1, 1, 1), persistent=False)

    def stages(self) -> Sequence[Stage]:
        domain, pairs = (self.settings.reference == name for name in ("domain", "image"))
        step, streams = ("step_pairs", ("source", "target")) if pairs else ("step", ("source",))
        first = [Sweep("source levels", "count_source", ("source",))] if domain else []
        again = self.settings.restat and batch_norms(self.net)
        last = [Sweep("statistics", "statistics", ("target",))] if again else []
        train = Train("adapt", step, streams, self.plan.steps)
        return [*first, Sweep("target levels", "count_target", ("target",)), train, *last]

    def count_source(self, source: Iterator[Batch]) -> None:
        self.source_levels.copy_(self.count(source))

    def count_target(self, target: Iterator[Batch]) -> None:
        self.target_levels.copy_(self.count(target))

    def count(self, batches: Iterator[Batch]) -> Tensor:
        counts = torch.zeros_like(self.target_levels)
        for batch in batches:
            counts += histogram(self.levels(batch.x)).sum(0)
        return self.total(counts)

    def levels(self, x: Tensor) -> Tensor:
        """0..255 of the network's input, as the network's normalisation says; other ones only give other levels."""
        return 255 * (x * self.std + self.mean)

    def translate(self, x: Tensor) -> Tensor:
        return self.matched(x, self.target_levels)

    def matched(self, x: Tensor, target: Tensor) -> Tensor:
        """Images with the levels of the counts ``target (C, COUNT)`` or ``(N, C, COUNT)``."""
        levels = self.levels(x)
        source = self.source_levels[None] if self.settings.reference == "domain" else histogram(levels)
        return (remap(levels, matching(source, target)) / 255 - self.mean) / self.std

    def step(self, source: Batch, at: Progress) -> dict[str, Tensor]:
        return self.train_on(source, self.target_levels)

    def step_pairs(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        return self.train_on(source, histogram(self.levels(target.x)))

    def train_on(self, source: Batch, target: Tensor) -> dict[str, Tensor]:
        chosen = torch.rand(len(source.x), 1, 1, 1, device=source.x.device) < self.settings.probability
        x = torch.where(chosen, self.matched(source.x, target), source.x)
        self.update({"translated": self.task.loss(self.net(x).logits, source.y)}, "net")
        return {}

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)
