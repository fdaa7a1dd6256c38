"""What can be minimised: pure functions of tensors, the same for classification and segmentation."""

from acclimate.losses.cross_entropy import cross_entropy
from acclimate.losses.dice import soft_dice
from acclimate.losses.domain import domain_accuracy, domain_cross_entropy
from acclimate.losses.drift import weight_drift
from acclimate.losses.entropy import entropy, marginal_entropy
from acclimate.losses.gan import critic_loss, fooling_loss
from acclimate.losses.reverse import dann_ramp, reverse
from acclimate.losses.virtual_adversarial import divergence, virtual_adversarial

__all__ = [
    "critic_loss",
    "cross_entropy",
    "dann_ramp",
    "divergence",
    "domain_accuracy",
    "domain_cross_entropy",
    "entropy",
    "fooling_loss",
    "marginal_entropy",
    "reverse",
    "soft_dice",
    "virtual_adversarial",
    "weight_drift",
]
