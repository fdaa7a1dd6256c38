"""The game of drawing target images of given labels: of classes drawn at random, or of the source's label maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import critic_loss, domain_accuracy, fooling_loss
from acclimate.methods.base import Method, Progress
from acclimate.methods.generative import Generative
from acclimate.networks.contract import Network
from acclimate.networks.norm import frozen
from acclimate.networks.translators import LabelGenerator, image_patch_critic
from acclimate.plan import Plan

if TYPE_CHECKING:
    from acclimate.tasks.base import Task


class LabelMaps(Generative):
    """:class:`Generative` for images of a class; for label maps y ~ p_s(y), each pixel having a class, with the same formula.

    There G is a :class:`LabelGenerator` and D judges patches; both are means over positions, and so is CE over the pixels that
    are labelled.
    """

    def __init__(self, net: Network, task: Task, plan: Plan, **settings: Any) -> None:
        if task.name == "classification":
            super().__init__(net, task, plan, **settings)
            return
        Method.__init__(self, net, task, plan, **settings)
        channels, classes, chosen = self.net.input_shape[0], len(task.classes), self.settings
        drawer = LabelGenerator(channels, classes, chosen.width, chosen.latent, self.net.normalisation)
        self.generator = drawer  # type: ignore[assignment]  # one of classes there, one of maps here
        self.critic = image_patch_critic(channels, chosen.critic_width)

    @property
    def drawing(self) -> tuple[str, tuple[str, ...]]:
        """The step function that draws, and its streams."""
        return ("draw", ("target",)) if self.task.name == "classification" else ("draw_maps", ("source", "target"))

    def play(self, xt: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """An update of D, then one of G; ``y`` are the labels of a source batch, of which only maps are taken."""
        if y is None or y.ndim == 1:
            return super().play(xt)
        x = self.generator(y)
        real, fake = self.critic(xt), self.critic(x.detach())
        self.update({"critic": critic_loss(real, fake)}, "critic")
        with frozen(self.net):
            logits = self.net(x).logits
        semantic = self.settings.semantic * self.task.loss(logits, y)
        self.update({"adversarial": fooling_loss(self.critic(x)), "semantic": semantic}, "generator")
        asked = (logits.argmax(1) == y).sum() / (y >= 0).sum().clamp_min(1)
        return x.detach(), y, {"critic accuracy": domain_accuracy(real, fake), "drawn as asked": asked}

    def draw_maps(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        return self.play(target.x, source.y)[2]

    @torch.no_grad()
    def generate(self, labels: Tensor) -> Tensor | None:  # type: ignore[override]  # as Method has it
        """None for classes ``(N,)`` where images are of label maps ``(N, H, W)``."""
        wanted = 1 if self.task.name == "classification" else 3
        return super().generate(labels) if labels.ndim == wanted else None
