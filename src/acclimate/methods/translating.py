"""The game that methods share which learn to draw source images anew in the look of the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from acclimate.losses import critic_loss, domain_accuracy, fooling_loss
from acclimate.methods.base import Method, Player
from acclimate.networks.translators import Translator, image_patch_critic
from acclimate.plan import Optimiser


class Translating(Method):
    """A translator G of source images and a critic D of patches of images.

    vanilla: min_D  (E_t -log D(x_t) + E_s -log(1 - D(G(x_s)))) / 2,  min_G  E_s -log D(G(x_s)) + what keeps the content;
    least squares: min_D  (E_t (D(x_t) - 1)^2 + E_s D(G(x_s))^2) / 2,  min_G  E_s (D(G(x_s)) - 1)^2 + the same.
    D and G follow Adam with rates of their own.
    """

    class Settings(Method.Settings):
        form: Literal["vanilla", "least-squares"] = "least-squares"  # of the game
        generator_lr: float = Field(2e-4, gt=0)  # G
        critic_lr: float = Field(2e-4, gt=0)  # D
        generator_width: int = Field(16, ge=1)  # CycleGAN: 64
        blocks: int = Field(4, ge=0)  # CycleGAN: 9
        critic_width: int = Field(16, ge=1)  # CycleGAN: 64

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        chosen, channels = self.settings, self.net.input_shape[0]
        self.generator = Translator(channels, chosen.generator_width, chosen.blocks, self.net.normalisation)
        self.critic = image_patch_critic(channels, chosen.critic_width)

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "generator": self.generator, "critic": self.critic}

    def rates(self) -> Mapping[str, Optimiser]:
        """The optimisers of G and D."""
        rates = {"generator": self.settings.generator_lr, "critic": self.settings.critic_lr}
        return {name: Optimiser(kind="adam", lr=rate, betas=(0.5, 0.999)) for name, rate in rates.items()}

    def play(
        self, xs: Tensor, xt: Tensor, keeping: Callable[[Tensor], Mapping[str, Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """An update of D, then one of G, in which ``keeping`` gives the terms that keep the content of the drawn images.

        Returns the images that G drew for both, and what there is to watch.
        """
        x = self.generator(xs)
        real, fake = self.critic(xt), self.critic(x.detach())
        self.update({"critic": critic_loss(real, fake, self.settings.form)}, "critic")
        fooled = fooling_loss(self.critic(x), self.settings.form)
        self.update({"adversarial": fooled, **keeping(x)}, "generator")
        middle = 0.5 if self.settings.form == "least-squares" else 0.0
        return x.detach(), {"critic accuracy": domain_accuracy(real - middle, fake - middle)}

    @torch.no_grad()
    def translate(self, x: Tensor) -> Tensor:
        return self.generator(x)

    watch = {
        "critic accuracy": (
            0.02,
            0.995,
            "the critic is never fooled: translated images stay apart from the target's; give it more steps, "
            "a higher generator_lr, or a lower critic_lr",
        ),
    }
