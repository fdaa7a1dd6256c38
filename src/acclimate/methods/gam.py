"""GAM: critics compare the activations of a target network with those of the source network, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from acclimate.data.streams import Batch
from acclimate.errors import unknown
from acclimate.losses import critic_loss, domain_accuracy, fooling_loss, weight_drift
from acclimate.losses.gan import Form
from acclimate.methods.base import Card, Player, Progress, Stage, Sweep, Train, same_weights
from acclimate.methods.gim import GIM
from acclimate.networks.contract import Output
from acclimate.networks.critics import critic
from acclimate.networks.norm import batch_norms
from acclimate.plan import Optimiser


class GAM(GIM):
    """General activation matching (Huang et al., ECCV 2018, section 3, eq. 1 and 3).

    After Gaussian matching (:class:`GIM`), with a critic D_l of the activations A_l at each of a few layers l: in each step
    min_D sum_l w_l [E_s BCE(D_l(A_l^s(x_s)), 1) + E_t BCE(D_l(A_l^t(x_t)), 0)] / 2
    min_t sum_l w_l E_t BCE(D_l(A_l^t(x_t)), 1) + lambda ||theta^t - theta^0||^2
    A^s is the source network, which rests; A^t starts as its matched copy with the weights theta^0.
    """

    name = "gam"
    optimiser = Optimiser(kind="adam", lr=2e-4, betas=(0.5, 0.999))
    card = Card(
        title="General activation matching (GAM)",
        paper=GIM.card.paper,
        year=GIM.card.year,
        bibtex=GIM.card.bibtex,
        when="A source model that is right on most of the target, the source images, classes in similar proportions.",
        fails="No label holds the classes in place: a weak start or too many steps swap or merge classes. Class proportions "
        "that differ: the critic of the logits matches them too.",
        deviations=(
            "1. The drift is the plain sum of squares, which the paper leaves open; the authors' code has the mean over each "
            "weight tensor, times 1, which hardly holds the network. In few steps .1 holds it so firmly that the critics "
            "still tell the networks apart (critic accuracy): then lower drift, say to .01.",
            "2. The drift is from the weights after the Gaussian matching, which it would else undo.",
            "3. gim=True as in the paper; the authors' code for digits has none (gim=False).",
            "4. Both networks run as in prediction: without dropout, which would tell the critic which network it sees and which "
            "the authors' LeNet has not, and with the matched statistics (norm='frozen').",
            "5. D has one logit, learns first, and has Adam with critic_lr whatever the plan says. The authors' two move with "
            "the network, and the weights w_l are in effect half of theirs: only the target's half of their loss counts.",
            "6. For segmentation, too, the critics read features and logits, by 1x1 convolutions; the paper's stand behind "
            "layers 4, 8, 12 and 17 of ERFNet: name taps of the network in critics.",
        ),
    )

    class Settings(GIM.Settings):
        critics: dict[str, float] = {"features": 0.1, "logits": 1.0}  # layer -> w_l; also the network's taps
        form: Form | None = None  # None: vanilla for classification, least-squares for segmentation
        hidden: tuple[int, ...] = (500, 500)  # layers of each critic
        drift: float = Field(0.1, ge=0)  # lambda
        critic_lr: float = Field(2e-4, gt=0)
        gim: bool = True  # False: no Gaussian matching before
        norm: Literal["frozen", "target"] = "frozen"  # the matched running statistics; or those of the target's batch

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        shapes = self.net.shapes
        if strange := sorted(self.settings.critics.keys() - shapes.keys()):
            raise unknown("layer with activations", strange[0], shapes)
        self.source_net = copy.deepcopy(self.net).requires_grad_(False)
        self.matched_net = copy.deepcopy(self.source_net)
        self.critics = nn.ModuleList(critic(shapes[layer], self.settings.hidden) for layer in self.settings.critics)
        self.form: Form = self.settings.form or ("vanilla" if self.task.name == "classification" else "least-squares")

    def train(self, mode: bool = True) -> GAM:
        super().train(mode)
        for net in (self.net, self.source_net, self.matched_net):
            net.eval()  # dropout on one side would tell the domains apart
        for _, layer in batch_norms(self.net):
            layer.train(mode and self.settings.norm == "target")
        return self

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "critics": self.critics}

    def stages(self) -> Sequence[Stage]:
        first = [*super().stages(), Sweep("matched", "remember")] if self.settings.gim else []
        schedule = (self.plan.optimiser or self.optimiser).schedule
        own = Optimiser(kind="adam", lr=self.settings.critic_lr, betas=(0.5, 0.999), schedule=schedule)
        return [*first, Train("adapt", "step", ("source", "target"), self.plan.steps, optimisers={"critics": own})]

    def remember(self) -> None:
        same_weights(self.net, self.matched_net)

    def activations(self, out: Output) -> list[Tensor]:
        known = {"features": out.features, "logits": out.logits, **out.taps}
        return [known[layer] for layer in self.settings.critics]

    def weighted(self, losses: Sequence[Tensor]) -> Tensor:
        return torch.stack([w * loss for w, loss in zip(self.settings.critics.values(), losses)]).sum()

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            s = self.activations(self.source_net(source.x))
        t = self.activations(self.net(target.x))
        judged = [(judge(real), judge(fake.detach())) for judge, real, fake in zip(self.critics, s, t)]
        self.update({"domain": self.weighted([critic_loss(real, fake, self.form) for real, fake in judged])}, "critics")
        fooled = self.weighted([fooling_loss(judge(a), self.form) for judge, a in zip(self.critics, t)])
        drift = self.settings.drift * weight_drift(self.net, self.matched_net)
        self.update({"adversarial": fooled, "drift": drift}, "net")
        middle = 0.0 if self.form == "vanilla" else 0.5
        accuracies = [domain_accuracy(real - middle, fake - middle) for real, fake in judged]
        return {"critic accuracy": torch.stack(accuracies).mean()}

    watch = {"critic accuracy": (0.02, 0.995, "the critics are never fooled: activations stay apart; lower drift")}
