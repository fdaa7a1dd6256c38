"""3C-GAN: a generator of target images and the classifier help each other, without the source data."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import entropy, virtual_adversarial, weight_drift
from acclimate.methods.base import Card, Need, Progress, Stage, Train, same_weights
from acclimate.methods.generative import Generative
from acclimate.networks.norm import frozen, held


class ThreeCGAN(Generative):
    """Model adaptation: unsupervised domain adaptation without source data (Li et al., CVPR 2020).

    D is a critic of images, G draws an image of a class y from noise z, C is the classifier, first the source model C_s.
    In each step D moves, then G, then, from the second stage on, C:
    min_D  (E_t -log D(x_t) + E_{y,z} -log(1 - D(G(y, z)))) / 2
    min_G  E_{y,z} -log D(G(y, z)) + lambda_s E_{y,z} CE(C(G(y, z)), y)
    min_C  lambda_g E_{y,z} CE(C(G(y, z)), y) + lambda_w ||theta_C - theta_Cs||^2
           + lambda_clu [E_t H(C(x_t)) + E_t KL(C(x_t) || C(x_t + r))],  r = argmax_{||r|| <= radius} KL(C(x_t) || C(x_t + r))
    lambda_g and lambda_clu rise linearly from 0 while that stage begins.
    """

    name = "3c-gan"
    needs = Need.TARGET | Need.SOURCE_MODEL
    card = Card(
        title="Collaborative class-conditional GAN (3C-GAN)",
        paper="Li et al., Model Adaptation: Unsupervised Domain Adaptation without Source Data, CVPR 2020",
        year=2020,
        bibtex=(
            "@inproceedings{li2020modeladaptation,\n  title={Model Adaptation: Unsupervised Domain Adaptation without Source"
            " Data},\n  author={Li, Rui and Jiao, Qianfen and Cao, Wenming and Wong, Hau-San and Wu, Si},\n"
            "  booktitle={CVPR},\n  year={2020}\n}"
        ),
        when="Only a model of the source is at hand, it is right on most of the target, and images are small (digits, signs). "
        "The generated images show what the model takes each class for.",
        fails="Class proportions of the target far from equal. A class that the model mistakes for another is then also drawn "
        "as the other, and learnt so. Images too large or too few for a generator (Office-31).",
        deviations=(
            *Generative.facts,
            "lambda_s, lambda_w and lambda_clu are the paper's for digits, as others report them; lambda_g, the radius (VADA's "
            "for 32 x 32 x 3) and the shares of the steps are chosen here. The drift is the squared norm, the slides' the norm.",
            "C rests in the first 0.4 of the steps; then lambda_g and lambda_clu rise over a fifth of the rest. The paper lets "
            "C rest while G is poor. Under Adam the rise changes their weight against the drift, hardly the length of a step.",
            "The target's batch moves C's running statistics; drawn and perturbed images are normalised by their own batch and "
            "move none (norm='frozen': running statistics normalise everything, and rest).",
        ),
        tasks=("classification",),
    )

    class Settings(Generative.Settings):
        generated: float = Field(0.1, ge=0)  # lambda_g
        drift: float = Field(1e-4, ge=0)  # lambda_w
        cluster: float = Field(0.1, ge=0)  # lambda_clu
        radius: float = Field(3.5, gt=0)  # of r
        begin: float = Field(0.4, gt=0, lt=1)  # the share of the steps in which only D and G learn
        ramp: float = Field(0.2, gt=0, le=1)  # the share of the second stage
        norm: Literal["target", "frozen"] = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.source_net = copy.deepcopy(self.net).requires_grad_(False)

    def train(self, mode: bool = True) -> ThreeCGAN:
        super().train(mode)
        self.source_net.eval()
        return self

    def stages(self) -> Sequence[Stage]:
        first = max(1, round(self.settings.begin * self.plan.steps))
        rest = max(1, self.plan.steps - first)
        return [
            *self.preparation(),
            Train("draw", "draw", ("target",), first, optimisers=self.rates()),
            Train("adapt", "adapt", ("target",), rest, optimisers=self.rates(), continues=True),
        ]

    def statistics(self, target: Iterator[Batch]) -> None:
        super().statistics(target)
        same_weights(self.net, self.source_net)

    def adapt(self, target: Batch, at: Progress) -> dict[str, Tensor]:
        x, y, watched = self.play(target.x)
        rest = self.settings.norm == "frozen"
        with frozen(self.net) if rest else contextlib.nullcontext():
            t = self.net(target.x).logits
        with frozen(self.net) if rest else held(self.net):
            generated = self.task.loss(self.net(x).logits, y)
            smoothness = virtual_adversarial(lambda x: self.net(x).logits, target.x, t, self.settings.radius)
        ramp = min(1.0, at.fraction / self.settings.ramp)
        cluster = ramp * self.settings.cluster
        self.update(
            {
                "generated": ramp * self.settings.generated * generated,
                "drift": self.settings.drift * weight_drift(self.net, self.source_net),
                "entropy": cluster * entropy(t),
                "smoothness": cluster * smoothness,
            },
            "net",
        )
        with torch.no_grad():  # an alarm, not a loss
            agrees = (self.source_net(x).logits.argmax(1) == y).float().mean()
        return {**watched, "source agrees": agrees}

    watch = {
        **Generative.watch,
        "source agrees": (0.5, 1.01, "drawn images have drifted from the classes of the source model; raise drift"),
    }
