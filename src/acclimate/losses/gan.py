"""What a critic and its opponent minimise, for images and for activations."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from acclimate.losses.precision import full

Form = Literal["vanilla", "least-squares"]


def critic_loss(real: Tensor, fake: Tensor, form: Form = "vanilla") -> Tensor:
    """What the critic minimises; it should give 1 to ``real`` and 0 to ``fake``.

    vanilla: (mean -log sigmoid(real) + mean -log(1 - sigmoid(fake))) / 2 (Goodfellow et al., NeurIPS 2014, eq. 1);
    least-squares: (mean (real - 1)^2 + mean fake^2) / 2 (Mao et al., ICCV 2017, eq. 9).

    Args:
        real, fake: the critic's outputs, any shape, before any sigmoid. Both sides weigh the same whatever their sizes.
    """
    real, fake = full(real), full(fake)
    if form == "vanilla":
        return (functional.softplus(-real).mean() + functional.softplus(fake).mean()) / 2
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def fooling_loss(fake: Tensor, form: Form = "vanilla") -> Tensor:
    """What the opponent minimises: the critic should give 1 to ``fake``.

    vanilla: mean -log sigmoid(fake), the form whose gradient does not vanish while the critic wins (Goodfellow et al. 2014,
    section 3); least-squares: mean (fake - 1)^2.
    """
    fake = full(fake)
    return functional.softplus(-fake).mean() if form == "vanilla" else (fake - 1).square().mean()
