"""GIM: every channel of the target's activations gets the mean and deviation that the source's has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Method, Need, Player, Stage, Sweep
from acclimate.networks.channel_affine import channels, match, matchable_layers, measure_activations
from acclimate.networks.norm import Moments, compare


class GIM(Method):
    """Gaussian i.i.d. matching (Huang et al., ECCV 2018, section 3.1, eq. 2).

    For each channel of each layer, as if its values were independent draws of one Gaussian, the target's activations become
    A = sigma_s (A_t - mu_t) / sigma_t + mu_s. Layer by layer: mu_t and sigma_t are taken with the lower layers already
    matched, mu_s and sigma_s from the network as it came.
    """

    name = "gim"
    needs = Need.SOURCE | Need.TARGET | Need.SOURCE_MODEL
    card = Card(
        title="Gaussian i.i.d. matching (GIM)",
        paper="Huang et al., Domain Transfer through Deep Activation Matching, ECCV 2018",
        year=2018,
        bibtex=(
            "@inproceedings{huang2018activation,\n  title={Domain Transfer through Deep Activation Matching},\n"
            '  author={Huang, Haoshuo and Huang, Qixing and Kr{\\"a}henb{\\"u}hl, Philipp},\n'
            "  booktitle={European Conference on Computer Vision},\n  pages={590--605},\n  year={2018}\n}"
        ),
        when="What adabn is for, on any network: seconds of work, no training. Repairs changes of brightness, contrast, noise "
        "and stain. Needs the source images, once.",
        fails="Class proportions that differ between domains, inverted contrast, very few target images, channels that are "
        "far from Gaussian. With BatchNorm adabn gives the same without the source images.",
        deviations=(
            "1. Activations are matched before the non-linearity, where the map is a change of weight and bias: nothing is "
            "added to the network, which can be saved, exported and adapted again like any other.",
            "2. BatchNorm is matched by its running statistics, which is AdaBN: the paper names it as the alternative. So "
            "batch statistics, in later training, do not undo or repeat the match.",
            "3. The layer that gives the logits stays as it is, and so do layers without a bias that no BatchNorm follows.",
            "4. 1e-5 (BatchNorm: its own epsilon) is added to variances: a channel silent on the target does not explode.",
        ),
    )

    class Settings(Method.Settings):
        # exact: one pass per layer, as defined; cumulative: one pass for all, lower layers matched batch by batch
        mode: Literal["exact", "cumulative"] = "exact"
        layers: tuple[str, ...] | None = None  # names or prefixes; None: all but the layer of the logits

    settings: Settings
    source_moments: Tensor
    target_moments: Tensor
    done: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.order = matchable_layers(self.net, self.settings.layers)
        self.sizes = [channels(self.net, name) for name in self.order]
        for name in ("source_moments", "target_moments"):  # means, then variances, of all layers in a row
            self.register_buffer(name, torch.zeros(2, sum(self.sizes), dtype=torch.float64))
        self.register_buffer("done", torch.tensor(0))  # layers matched

    def players(self) -> Mapping[str, Player]:
        return {}

    def stages(self) -> Sequence[Stage]:
        exact = self.settings.mode == "exact"
        names = [f"match {name}" for name in self.order] if exact else ["match"]
        return [
            Sweep("source activations", "measure_source", ("source",)),
            *(Sweep(name, "match", ("target",)) for name in names),
        ]

    def measure_source(self, source: Iterator[Batch]) -> None:
        found = measure_activations(self.net, (batch.x for batch in source), self.order, self.total)
        for name, moments in found.items():
            self.put(self.source_moments, name, moments)

    def match(self, target: Iterator[Batch]) -> None:
        exact = self.settings.mode == "exact"
        names = self.order[self.done : self.done + 1] if exact else self.order
        source = self.moments(self.source_moments)
        batches = (batch.x for batch in target)
        found = measure_activations(self.net, batches, names, self.total, None if exact else source)
        for name, moments in found.items():
            match(self.net, name, source[name], moments)
            self.put(self.target_moments, name, moments)
        self.done += len(names)

    def put(self, into: Tensor, name: str, moments: Moments) -> None:
        place = self.order.index(name)
        begin = sum(self.sizes[:place])
        into[:, begin : begin + self.sizes[place]] = torch.stack([moments.mean, moments.running()])

    def moments(self, of: Tensor) -> dict[str, Moments]:
        parts = of.split(self.sizes, dim=1)
        return {name: Moments(part[0], part[1], 0) for name, part in zip(self.order, parts)}

    def report(self) -> list[dict[str, Any]]:
        """By layer: how far apart the means were, in the source's deviations, and the ratio of the deviations."""
        changes = compare(self.moments(self.source_moments), self.moments(self.target_moments), 0)
        return [{"layer": c.layer, "mean shift": c.mean_shift, "spread": c.spread} for c in changes]
