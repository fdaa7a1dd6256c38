"""The game that methods share which learn to draw target images of a given class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import critic_loss, domain_accuracy, fooling_loss
from acclimate.methods.base import Method, Player, Progress, Stage, Sweep
from acclimate.networks.critics import image_critic
from acclimate.networks.generators import Generator
from acclimate.networks.norm import batch_norms, frozen, restat
from acclimate.plan import Optimiser


class Generative(Method):
    """A generator G of images of a class y and a critic D of images; the network C judges whether G drew the class.

    min_D  (E_t -log D(x_t) + E_{y,z} -log(1 - D(G(y, z)))) / 2
    min_G  E_{y,z} -log D(G(y, z)) + lambda_s E_{y,z} CE(C(G(y, z)), y),  y uniform over the classes, z ~ N(0, I)

    C judges with its running statistics, and with its dropout if it has any. D, which has no class to look at, and G follow Adam
    with rates of their own.
    """

    optimiser = Optimiser(kind="adam", lr=1e-3)  # C

    facts: ClassVar[tuple[str, ...]] = (
        "G and D, which could not be found described, are small: G with class-conditional BatchNorm and transposed "
        "convolutions, D with three strided convolutions under spectral normalisation (G has none) and one dense layer.",
        "One batch of drawn images, as large as the target's, serves all updates of a step. D's loss is the mean over real "
        "and drawn images, where the formula has the sum.",
        "D and G follow Adam with 1e-3 each, for runs of some thousand steps; others report 4e-4 and 1e-4 (critic_lr, "
        "generator_lr). Of 600 steps of digits with those, another "
        "source model saw the class asked for in a third; with these in nine of ten.",
        "BatchNorm statistics are re-estimated on the target before the network first judges (restat), and it judges with its "
        "running statistics; its dropout stays on, which made the classes clearer. Part of any gain is the statistics' own: "
        "compare with adabn.",
    )
    """Deviations that every such method shares."""

    class Settings(Method.Settings):
        semantic: float = Field(0.1, ge=0)  # lambda_s
        critic_lr: float = Field(1e-3, gt=0)  # D
        generator_lr: float = Field(1e-3, gt=0)  # G
        width: int = Field(32, ge=1)  # G's channels at full size; 64: 512-256-128-64 at 32 x 32
        critic_width: int = Field(32, ge=1)
        latent: int = Field(100, ge=1)  # numbers in z
        restat: bool = True  # re-estimate C's running BatchNorm statistics on the target before it first judges

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        (channels, height, breadth), chosen = self.net.input_shape, self.settings
        shape = (channels, height, breadth)
        self.generator = Generator(shape, len(self.task.classes), chosen.width, chosen.latent, self.net.normalisation)
        self.critic = image_critic(shape, chosen.critic_width)

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "generator": self.generator, "critic": self.critic}

    def rates(self) -> Mapping[str, Optimiser]:
        """The optimisers of G and D, for a stage in which they move."""
        rates = {"generator": self.settings.generator_lr, "critic": self.settings.critic_lr}
        return {name: Optimiser(kind="adam", lr=rate, betas=(0.5, 0.999)) for name, rate in rates.items()}

    def preparation(self) -> list[Stage]:
        """What comes before C first judges."""
        return (
            [Sweep("statistics", "statistics", ("target",))] if self.settings.restat and batch_norms(self.net) else []
        )

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)

    def play(self, xt: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """An update of D, then one of G. The images that G drew for both, their classes, and what there is to watch."""
        y = torch.randint(len(self.task.classes), (len(xt),), device=xt.device)
        x = self.generator(y)
        real, fake = self.critic(torch.cat([xt, x.detach()])).chunk(2)
        self.update({"critic": critic_loss(real, fake)}, "critic")
        with frozen(self.net):
            logits = self.net(x).logits
        semantic = self.settings.semantic * self.task.loss(logits, y)
        self.update({"adversarial": fooling_loss(self.critic(x)), "semantic": semantic}, "generator")
        watched = {
            "critic accuracy": domain_accuracy(real, fake),
            "drawn as asked": (logits.argmax(1) == y).float().mean(),
        }
        return x.detach(), y, watched

    def draw(self, target: Batch, at: Progress) -> dict[str, Tensor]:
        return self.play(target.x)[2]

    @torch.no_grad()
    def generate(self, labels: Tensor) -> Tensor:
        with frozen(self.generator):
            return self.generator(labels)

    watch = {
        "critic accuracy": (
            0.02,
            0.995,
            "the critic is never fooled: drawn images stay apart from the target's; give it more "
            "steps, or a lower critic_lr",
        ),
        "drawn as asked": (
            0.5,
            1.01,
            "the network sees other classes in the drawn images than were asked for; give it more "
            "steps, or raise semantic",
        ),
    }
