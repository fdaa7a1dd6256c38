"""MCD: two classifiers look for target samples on which they disagree, and the features take those away."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import classifier_discrepancy
from acclimate.methods.base import Card, Method, Player, Progress, Stage, Train
from acclimate.networks.heads import fresh_head
from acclimate.networks.norm import frozen, held
from acclimate.plan import Optimiser


class MCD(Method):
    """Maximum classifier discrepancy (Saito et al., CVPR 2018, section 3.3, steps A to C).

    Features G, heads C1 and C2, L_s = E_s CE(C1(G(x_s)), y_s) + CE(C2(G(x_s)), y_s),
    d = E_t mean_k |softmax(C1(G(x_t)))_k - softmax(C2(G(x_t)))_k|. In each step
    A: min_{G,C1,C2} L_s;  B: min_{C1,C2} L_s - d;  C, ``repeat`` times: min_G d.
    """

    name = "mcd"
    optimiser = Optimiser(kind="adam", lr=2e-4, weight_decay=5e-4)
    card = Card(
        title="Maximum classifier discrepancy",
        paper="Saito et al., Maximum Classifier Discrepancy for Unsupervised Domain Adaptation, CVPR 2018",
        year=2018,
        bibtex=(
            "@inproceedings{saito2018mcd,\n  title={Maximum Classifier Discrepancy for Unsupervised Domain Adaptation},\n"
            "  author={Saito, Kuniaki and Watanabe, Kohei and Ushiku, Yoshitaka and Harada, Tatsuya},\n"
            "  booktitle={IEEE Conference on Computer Vision and Pattern Recognition},\n  pages={3723--3732},\n"
            "  year={2018}\n}"
        ),
        when="Features of the target that lie near the source's, but between its classes. The body should do most of the "
        "work and the head have layers of its own.",
        fails="Heads that become the same function see no target sample to disagree on: a single dense layer without "
        "dropout is prone to it. A step costs seven forward passes.",
        deviations=(
            "The running statistics of BatchNorm move once a step, in the passes of B, by the policy norm; all other passes "
            "normalise by their own batch and leave them. In the authors' code every pass moves them, five of seven on the "
            "target. There is no policy 'joint': C passes the target alone.",
            "The first head is the network's own, the second a copy with weights drawn anew.",
            "One Adam serves both heads; the authors' two have the same settings, so nothing differs.",
            "The authors' code reports either head and their sum; ensemble=False predicts with the first head, the network "
            "itself.",
            "d is the mean over classes, as in the authors' code: with many classes raise weight.",
        ),
        tasks=("classification",),
    )

    class Settings(Method.Settings):
        repeat: int = Field(4, ge=1)  # n: updates of the features in C; the paper tries 2, 3, 4
        weight: float = Field(1.0, gt=0)  # of d, in B and C
        ensemble: bool = True  # predict with the mean of both heads' logits
        norm: Literal["separate", "target", "source", "frozen"] = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.second = fresh_head(self.net)

    def players(self) -> Mapping[str, Player]:
        return {
            "features": self.net.body_parameters(),
            "heads": [*self.net.head_parameters(), *self.second.parameters()],
        }

    def stages(self) -> Sequence[Stage]:
        return [Train("adapt", "step", ("source", "target"), self.plan.steps)]

    def both(self, x: Tensor, moves: bool = False) -> tuple[Tensor, Tensor]:
        """Logits of both heads; running statistics move if ``moves`` and the policy is not "frozen"."""
        with frozen(self) if self.settings.norm == "frozen" else contextlib.nullcontext() if moves else held(self):
            out = self.net(x)
            return out.logits, self.second(out.features)

    def supervised(self, zs: tuple[Tensor, Tensor], source: Batch) -> Tensor:
        return self.task.loss(zs[0], source.y) + self.task.loss(zs[1], source.y)

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        weight, norm = self.settings.weight, self.settings.norm
        self.update({"supervised": self.supervised(self.both(source.x), source)}, "features", "heads")  # A
        zs = self.both(source.x, norm in ("separate", "source"))
        found = classifier_discrepancy(*self.both(target.x, norm in ("separate", "target")))
        self.update({"supervised": self.supervised(zs, source), "disagree": -weight * found}, "heads")  # B
        for _ in range(self.settings.repeat):
            self.update({"agree": weight * classifier_discrepancy(*self.both(target.x))}, "features")  # C
        return {"discrepancy": found}

    def predict(self, x: Tensor) -> Tensor:
        out = self.net(x)
        return (out.logits + self.second(out.features)) / 2 if self.settings.ensemble else out.logits
