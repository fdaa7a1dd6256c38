"""ADDA: a second network whose outputs on the target look like the source network's on the source."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import domain_accuracy, domain_cross_entropy, fooling_loss
from acclimate.methods.base import Card, Method, Need, Player, Progress, Stage, Train
from acclimate.networks.critics import critic
from acclimate.networks.norm import frozen, held
from acclimate.plan import Optimiser


class ADDA(Method):
    """Adversarial discriminative domain adaptation (Tzeng et al., CVPR 2017, eq. 9).

    F_s is the body trained on the source and rests, as does the head C; F_t starts as its copy. In each step first D, then F_t:
    min_D [E_s BCE(D(C(F_s(x_s))), 1) + E_t BCE(D(C(F_t(x_t))), 0)] / 2
    min_{F_t} E_t BCE(D(C(F_t(x_t))), 1)
    Predictions are C(F_t(x)). With ``layer="features"`` D reads F(x) instead of the logits C(F(x)).
    """

    name = "adda"
    needs = Need.SOURCE | Need.TARGET | Need.SOURCE_MODEL
    optimiser = Optimiser(kind="adam", lr=2e-4, betas=(0.5, 0.999))
    card = Card(
        title="Adversarial discriminative domain adaptation",
        paper="Tzeng et al., Adversarial Discriminative Domain Adaptation, CVPR 2017",
        year=2017,
        bibtex=(
            "@inproceedings{tzeng2017adda,\n  title={Adversarial Discriminative Domain Adaptation},\n"
            "  author={Tzeng, Eric and Hoffman, Judy and Saenko, Kate and Darrell, Trevor},\n"
            "  booktitle={IEEE Conference on Computer Vision and Pattern Recognition},\n  pages={7167--7176},\n"
            "  year={2017}\n}"
        ),
        when="A source model is at hand and right on a good part of the target; the source images are still there to compare.",
        fails="No labelled loss holds the classes in place: once the critic is too strong the target network swaps or merges "
        "classes, and accuracy falls to chance. Use a lower rate, fewer steps, or threshold=0.6. Class proportions that "
        "differ.",
        deviations=(
            "D gives one logit; the paper's two with a softmax are the same model. D learns first and F_t then plays against "
            "the new D; the authors' code moves both at once. Its hidden layers are ReLU, as in the paper; leaky in the code.",
            "threshold is CyCADA's rule (Hoffman et al., ICML 2018, released code with 0.6), not ADDA's: F_t learns only where "
            "D names more than this share of the batch rightly. There the step is left out; here its term is multiplied by 0, so "
            "that nothing waits for the device, and Adam's momentum still moves F_t a little for some steps.",
            "The source network passes as the target's does, with dropout and its own batch's statistics, and its running "
            "ones rest: otherwise D could tell the two by their noise. The paper's LeNet has neither.",
            "All of the body moves, also the statistics of BatchNorm in the head (norm='frozen': none).",
            "D has Adam with critic_lr and betas of 0.5 and 0.999 whatever the plan says; F_t follows the plan.",
        ),
        tasks=("classification",),
    )

    class Settings(Method.Settings):
        layer: Literal["logits", "features"] = "logits"  # what D reads; logits as in the released code for digits
        hidden: tuple[int, ...] = (500, 500)  # D's layers
        critic_lr: float = Field(2e-4, gt=0)
        threshold: float | None = Field(None, ge=0, lt=1)  # None: F_t always learns, as in the paper
        norm: Literal["target", "frozen"] = "target"  # of F_t: its own batch, running statistics follow; or as in F_s

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.source_net = copy.deepcopy(self.net).requires_grad_(False)
        shape = self.net.shapes["logits" if self.settings.layer == "logits" else self.net.align]
        self.critic = critic(shape, self.settings.hidden)

    def players(self) -> Mapping[str, Player]:
        return {"features": self.net.body_parameters(), "critic": self.critic}

    def stages(self) -> Sequence[Stage]:
        schedule = (self.plan.optimiser or self.optimiser).schedule
        own = Optimiser(kind="adam", lr=self.settings.critic_lr, betas=(0.5, 0.999), schedule=schedule)
        return [Train("adapt", "step", ("source", "target"), self.plan.steps, optimisers={"critic": own})]

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        rest = self.settings.norm == "frozen"
        with torch.no_grad(), frozen(self.source_net) if rest else held(self.source_net):
            s = self.source_net(source.x)
        with frozen(self.net) if rest else contextlib.nullcontext():
            t = self.net(target.x)
        fs, ft = (out.logits if self.settings.layer == "logits" else self.net.aligned(out) for out in (s, t))
        ds, dt = self.critic(fs), self.critic(ft.detach())
        accuracy = domain_accuracy(ds, dt)
        self.update({"domain": domain_cross_entropy(ds, dt)}, "critic")
        fooled = fooling_loss(self.critic(ft))
        if self.settings.threshold is not None:
            everywhere = self.total(accuracy) / self.total(torch.ones_like(accuracy))  # one verdict for all processes
            fooled = fooled * (everywhere > self.settings.threshold)
        self.update({"adversarial": fooled}, "features")
        return {"critic accuracy": accuracy}

    watch = {
        "critic accuracy": (
            0.02,
            0.995,
            "the critic is never fooled: raise steps, lower critic_lr, or check for collapse",
        ),
    }
