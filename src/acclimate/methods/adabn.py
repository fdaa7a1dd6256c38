"""AdaBN and its kin: the target's BatchNorm statistics in place of the source's, or mixed with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Need, Player, Stage, Sweep
from acclimate.networks import norm


class AdaBN(Method):
    """Adaptive batch normalisation (Li et al., ICLR workshop 2017, algorithm 1), and what others made of it.

    For each BatchNorm layer and channel j, with gamma and beta of the source:
    y = gamma_j (x - mu_j) / sigma_j + beta_j, where mu, sigma^2 = (1 - w) source's + w target's, of the layer's input.

    =============================================  =====================================================================
    AdaBN (Li 2017)                                the default: w = 1, one pass
    exact AdaBN                                    ``mode="exact"``: w = 1, one pass per layer, whatever the batch size
    running average (PyTorch; cf. Nado 2020)       ``mode="ema"``: per batch, the source's weight falls by 1 - momentum
    N-prior mixing (Schneider 2020)                ``prior=N``: w = n / (N + n), n = number of target images
    alpha-BN (You 2021)                            ``alpha``: w = alpha
    partial AdaBN                                  ``layers``: ``"encoder"``, ``"decoder"``, or names and prefixes
    =============================================  =====================================================================
    """

    name = "adabn"
    needs = Need.TARGET | Need.SOURCE_MODEL
    card = Card(
        title="Adaptive batch normalisation",
        paper="Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, ICLR workshop 2017; prior: "
        "Schneider et al., NeurIPS 2020; alpha: You et al., arXiv 2110.04065, 2021",
        year=2017,
        bibtex=(
            "@inproceedings{li2017adabn,\n  title={Revisiting Batch Normalization for Practical Domain Adaptation},\n"
            "  author={Li, Yanghao and Wang, Naiyan and Shi, Jianping and Liu, Jiaying and Hou, Xiaodi},\n"
            "  booktitle={ICLR Workshop},\n  year={2017}\n}"
        ),
        when="First, and before any pseudo-labelling: seconds of work, no training, no source data. Repairs changes of "
        "brightness, contrast, noise and fog. With few images, mix with the source (prior). mode='exact' for large images, "
        "of which only a few share a batch.",
        fails="Class proportions that differ between domains, inverted contrast, very few or very similar target images, "
        "networks without BatchNorm.",
        deviations=(
            "mode='cumulative' pools the moments of all images in one pass and normalises earlier layers by their batch while "
            "it measures later ones, as is usual: behind the first layer small or homogeneous batches bias the result. "
            "mode='exact' is the definition, one pass per layer, whatever the batches.",
            "mode='ema' takes one pass over the shuffled target, then the statistics stay; Nado et al. normalise each "
            "test batch by itself alone. Several processes average their running statistics.",
            "prior and alpha mix with the statistics of the whole target, once; Schneider et al. and You et al. mix with "
            "those of each test batch, so their n is the batch size. Variances are mixed without the term for the "
            "distance of the means, as there, and are the unbiased ones.",
        ),
    )

    class Settings(Method.Settings):
        mode: norm.Mode = "cumulative"
        momentum: float = Field(0.1, gt=0, le=1)  # of mode="ema"
        alpha: float = Field(1.0, ge=0, le=1)  # the target's share
        prior: float = Field(0.0, ge=0)  # how many images the source's statistics count for
        layers: str | tuple[str, ...] | None = None  # None: all

    settings: Settings
    source_mean: Tensor
    source_variance: Tensor
    images: Tensor
    done: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        s = self.settings
        norm.check(s.mode, s.momentum, s.alpha, s.prior)
        self.order = norm.call_order(self.net, s.layers)
        source = norm.statistics(self.net).values()
        self.register_buffer("source_mean", torch.cat([moments.mean for moments in source]))
        self.register_buffer("source_variance", torch.cat([moments.variance for moments in source]))
        self.register_buffer("images", torch.tensor(0))
        self.register_buffer("done", torch.tensor(0))  # passes

    def players(self) -> Mapping[str, Player]:
        return {}

    def stages(self) -> Sequence[Stage]:
        passes = len(self.order) if self.settings.mode == "exact" else 1
        names = [f"statistics {i}" for i in range(1, passes + 1)] if passes > 1 else ["statistics"]
        return [Sweep(name, "measure", ("target",)) for name in names]

    def measure(self, target: Iterator[Batch]) -> None:
        settings = self.settings.model_dump()
        settings["layers"] = self.order[self.done : self.done + 1] if self.settings.mode == "exact" else self.order
        changes = norm.restat(self.net, (batch.x for batch in target), self.total, **settings)
        self.images.fill_(changes[0].images)
        self.done += 1

    def source(self) -> dict[str, norm.Moments]:
        """The statistics that the network came with."""
        now = norm.statistics(self.net)
        sizes = [len(moments.mean) for moments in now.values()]
        both = zip(now, self.source_mean.split(sizes), self.source_variance.split(sizes))
        return {name: norm.Moments(mean.clone(), variance.clone(), 0) for name, mean, variance in both}

    def restore(self) -> None:
        """Put the source's statistics back, bit by bit."""
        norm.set_statistics(self.net, self.source())

    def report(self) -> list[dict[str, Any]]:
        """By layer: how far the means moved, in the source's deviations, and by what factor the deviations changed."""
        names = {"layer": "layer", "images": "images", "mean shift": "mean_shift", "spread": "spread"}
        return [{name: getattr(change, field) for name, field in names.items()} for change in self.changes()]

    def changes(self) -> list[norm.LayerChange]:
        """What each re-estimated layer has now against what it came with, in the order of calls; also of a loaded model."""
        now = norm.statistics(self.net)
        return norm.compare(self.source(), {name: now[name] for name in self.order}, int(self.images))
