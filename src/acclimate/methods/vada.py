"""VADA: domains that a critic cannot tell apart, and a classifier that changes only where there are no data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import domain_accuracy, domain_cross_entropy, entropy, virtual_adversarial
from acclimate.methods.base import Average, Card, Method, Player, Progress, Stage, Sweep, Train, same_weights
from acclimate.networks.critics import critic
from acclimate.networks.norm import held
from acclimate.plan import Optimiser


class VADA(Method):
    """Virtual adversarial domain adaptation (VADA; Shu et al., ICLR 2018).

    In each step first the critic D, then the network f = C(F(.)):
    min_D d(D F(x_s), D F(x_t)), d(a, b) = [BCE(a, 1) + BCE(b, 0)] / 2
    min_f CE(f(x_s), y_s) + lambda_d d(D F(x_t), D F(x_s)) + lambda_s V(x_s) + lambda_t [V(x_t) + H(f(x_t))]
    V(x) = KL(f(x) || f(x + r)), the largest over ||r|| <= radius; H is the entropy. Averaged weights predict.
    """

    name = "vada"
    optimiser = Optimiser(kind="adam", lr=1e-3, betas=(0.5, 0.999))
    card = Card(
        title="Virtual adversarial domain adaptation (VADA)",
        paper="Shu et al., A DIRT-T Approach to Unsupervised Domain Adaptation, ICLR 2018",
        year=2018,
        bibtex=(
            "@inproceedings{shu2018dirtt,\n  title={A {DIRT-T} Approach to Unsupervised Domain Adaptation},\n"
            "  author={Shu, Rui and Bui, Hung H. and Narui, Hirokazu and Ermon, Stefano},\n"
            "  booktitle={International Conference on Learning Representations},\n  year={2018}\n}"
        ),
        when="Classes form clusters in both domains and there are many steps (the paper takes 80,000) and a network with "
        "dropout or noise, such as vada-small; its instance_norm=true where domains differ in contrast or polarity.",
        fails="A large lambda_t early on: the entropy pulls all predictions to one class. A class that lies astride another's "
        "cluster is moved into it as a whole. Fewer than some 2,000 steps: the average lags behind (lower decay).",
        deviations=(
            "The critic's update reads the features of the same batch that the network's update uses, detached; the authors "
            "draw a second batch and repeat the forward passes.",
            "The finite difference of the adversarial direction is .01 long instead of 1e-6, which float32 rounds away. A radius "
            "of 3.5 is meant for 32 x 32 x 3 in [-1, 1]: beside a smaller image it is larger.",
            "Perturbed images are pulled towards the clean prediction by KL; the released code has the cross-entropy, "
            "which has the same gradient.",
            "The paper chose lambda_d in {0, .01}, lambda_s in {0, 1} and lambda_t in {.01, .1} for each task, with 1,000 "
            "labelled target images. The defaults are the released code's, of MNIST to SVHN; no label chooses here.",
        ),
        tasks=("classification",),
    )

    class Settings(Method.Settings):
        lambda_d: float = Field(0.01, ge=0)  # the critic's; 0: no critic
        lambda_s: float = Field(1.0, ge=0)  # smoothness on the source; 0 saves its two passes
        lambda_t: float = Field(0.01, ge=0)  # smoothness and entropy on the target
        radius: float = Field(3.5, gt=0)  # of a perturbation, over a whole image in units of the network's input
        decay: float = Field(0.998, ge=0, lt=1)  # of the averaged weights, a mean over about 1 / (1 - decay) steps
        hidden: tuple[int, ...] = (100,)  # the critic's layers
        norm: Literal["target", "separate"] = "target"  # perturbed images too are normalised by their own batch

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.critic = critic(self.net.shapes[self.net.align], self.settings.hidden)
        self.average = copy.deepcopy(self.net).requires_grad_(False)

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "critic": self.critic} if self.settings.lambda_d else {"net": self.net}

    def averages(self) -> Sequence[Average]:
        return [Average(self.net, self.average, self.settings.decay)]

    def stages(self) -> Sequence[Stage]:
        return [Train("adapt", "step", ("source", "target"), self.plan.steps), Sweep("settle", "settle")]

    def settle(self) -> None:
        same_weights(self.average, self.net)

    def smoothness(self, x: Tensor, logits: Tensor) -> Tensor:
        with held(self.net):
            return virtual_adversarial(lambda moved: self.net(moved).logits, x, logits, self.settings.radius)

    def target_terms(self, x: Tensor, logits: Tensor) -> dict[str, Tensor]:
        weight = self.settings.lambda_t
        if not weight:
            return {}
        return {"target entropy": weight * entropy(logits), "target smoothness": weight * self.smoothness(x, logits)}

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        s, t = self(source, target)
        terms = {"supervised": self.task.loss(s.logits, source.y)}
        found: dict[str, Tensor] = {}
        if self.settings.lambda_d:
            fs, ft = self.net.aligned(s), self.net.aligned(t)
            ds, dt = self.critic(fs.detach()), self.critic(ft.detach())
            self.update({"critic": domain_cross_entropy(ds, dt)}, "critic")
            terms["domain"] = self.settings.lambda_d * domain_cross_entropy(self.critic(ft), self.critic(fs))
            found["critic accuracy"] = domain_accuracy(ds, dt)
        if self.settings.lambda_s:
            terms["source smoothness"] = self.settings.lambda_s * self.smoothness(source.x, s.logits)
        self.update(terms | self.target_terms(target.x, t.logits), "net")
        return found
