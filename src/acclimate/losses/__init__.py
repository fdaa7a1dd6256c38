"""What can be minimised: pure functions of tensors, the same for classification and segmentation."""

from acclimate.losses.cross_entropy import cross_entropy
from acclimate.losses.dice import soft_dice
from acclimate.losses.domain import domain_accuracy, domain_cross_entropy
from acclimate.losses.reverse import dann_ramp, reverse

__all__ = ["cross_entropy", "dann_ramp", "domain_accuracy", "domain_cross_entropy", "reverse", "soft_dice"]
