"""AdaBN: the target's BatchNorm statistics in place of the source's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Need, Player, Stage, Sweep
from acclimate.networks.norm import restat


class AdaBN(Method):
    """Adaptive batch normalisation (Li et al., ICLR workshop 2017, algorithm 1).

    For each BatchNorm layer and channel j, with gamma and beta of the source:
    y = gamma_j (x - mu_j^t) / sigma_j^t + beta_j, where mu^t, sigma^t are the moments of the layer's input on the target.
    """

    name = "adabn"
    needs = Need.TARGET | Need.SOURCE_MODEL
    card = Card(
        title="Adaptive batch normalisation",
        paper="Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, ICLR workshop 2017",
        year=2017,
        bibtex=(
            "@inproceedings{li2017adabn,\n  title={Revisiting Batch Normalization for Practical Domain Adaptation},\n"
            "  author={Li, Yanghao and Wang, Naiyan and Shi, Jianping and Liu, Jiaying and Hou, Xiaodi},\n"
            "  booktitle={ICLR Workshop},\n  year={2017}\n}"
        ),
        when="First, and before any pseudo-labelling: seconds of work, no training, no source data. Repairs changes of "
        "brightness, contrast, noise and fog.",
        fails="Class proportions that differ between domains, inverted contrast, very few or very similar target images, "
        "networks without BatchNorm.",
        deviations=(
            "The moments are pooled over all target images in one pass instead of averaged online: no order dependence "
            "of the estimate and no bias from homogeneous batches.",
        ),
    )

    def players(self) -> Mapping[str, Player]:
        return {}

    def stages(self) -> Sequence[Stage]:
        return [Sweep("statistics", "statistics", ("target",))]

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)
