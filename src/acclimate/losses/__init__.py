"""What can be minimised: pure functions of tensors, the same for classification and segmentation."""

from acclimate.losses.charbonnier import charbonnier_entropy
from acclimate.losses.content import content_distance
from acclimate.losses.coral import coral
from acclimate.losses.cross_entropy import cross_entropy
from acclimate.losses.dice import soft_dice
from acclimate.losses.discrepancy import classifier_discrepancy
from acclimate.losses.distillation import distillation
from acclimate.losses.domain import domain_accuracy, domain_cross_entropy
from acclimate.losses.drift import weight_drift
from acclimate.losses.entropy import entropy, marginal_entropy
from acclimate.losses.gan import critic_loss, fooling_loss
from acclimate.losses.memory_contrast import memory_contrast
from acclimate.losses.mmd import multi_kernel_mmd
from acclimate.losses.orthogonality import weight_overlap
from acclimate.losses.reverse import dann_ramp, reverse
from acclimate.losses.symmetric_cross_entropy import symmetric_cross_entropy
from acclimate.losses.uniformity import uniformity
from acclimate.losses.virtual_adversarial import divergence, virtual_adversarial
from acclimate.losses.weighted_cross_entropy import weighted_cross_entropy

__all__ = [
    "charbonnier_entropy",
    "classifier_discrepancy",
    "content_distance",
    "coral",
    "critic_loss",
    "cross_entropy",
    "dann_ramp",
    "distillation",
    "divergence",
    "domain_accuracy",
    "domain_cross_entropy",
    "entropy",
    "fooling_loss",
    "marginal_entropy",
    "memory_contrast",
    "multi_kernel_mmd",
    "reverse",
    "soft_dice",
    "symmetric_cross_entropy",
    "uniformity",
    "virtual_adversarial",
    "weight_drift",
    "weight_overlap",
    "weighted_cross_entropy",
]
