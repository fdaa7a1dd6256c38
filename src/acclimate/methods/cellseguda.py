"""CellSegUDA: target masks that look like source masks and from which the image can be drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.data.streams import Batch
from acclimate.losses import domain_accuracy, domain_cross_entropy, soft_dice
from acclimate.methods.base import Card, Method, Player, Progress, Stage, Train
from acclimate.networks.critics import patch_critic
from acclimate.networks.norm import NormPolicy
from acclimate.networks.unet import UNet
from acclimate.plan import Optimiser


class CellSegUDA(Method):
    """Adversarial domain adaptation for cell segmentation (Haq & Huang, MIDL 2020).

    p(x) is the probability of the foreground in every pixel, D a critic of masks, R a network that makes an image of a
    mask. In each step first D, then S and R:
    min_D BCE(D(p(x_s)), source) + BCE(D(p(x_t)), target)
    min_{S,R} Dice(p(x_s), y_s) + w_adv BCE(D(p(x_t)), source) + w_rec MSE(R(p(x_t)), x_t)
    """

    name = "cellseguda"
    optimiser = Optimiser(kind="adam", lr=1e-4)
    card = Card(
        title="CellSegUDA: adversarial masks with reconstruction",
        paper="Haq & Huang, Adversarial Domain Adaptation for Cell Segmentation, MIDL 2020",
        year=2020,
        bibtex=(
            "@inproceedings{haq2020cellseguda,\n  title={Adversarial Domain Adaptation for Cell Segmentation},\n"
            "  author={Haq, Mohammad Minhazul and Huang, Junzhou},\n"
            "  booktitle={Medical Imaging with Deep Learning},\n  pages={277--287},\n  year={2020}\n}"
        ),
        when="Objects of the same shape and size in both domains, shown by another stain, scanner or microscope.",
        fails="Small or rare objects: blank masks look alike to the critic. Shapes, sizes or numbers of objects that differ "
        "between the domains. A mask cannot hold texture, so the reconstruction only regularises.",
        deviations=(
            "Each domain is normalised by its own batch and predictions use the target's running statistics; in the "
            "authors' code both domains pass in turn and move the same running statistics (norm='separate'). Part of any "
            "gain is then the statistics' own: compare with adabn.",
            "One forward pass of S serves both updates of a step. The authors repeat it, which gives the same masks.",
            "Masks are the softmax probabilities of every class but the first, and Dice is their mean; the paper has one "
            "class and a sigmoid. With two classes both are one channel.",
            "The U-Nets here up-sample bilinearly and replicate borders; the authors' by transposed convolution, with zeros.",
            "R's bottleneck has 16 times the width instead of 8, and its width follows the network's features; S is the "
            "network that is given.",
            "All images are normalised alike; the authors use each data set's own mean and deviation.",
            "The last step is kept; the authors keep the checkpoint with the best IoU on labelled target images.",
            "On images below 32 pixels the critic's map is padded so that one position is left.",
        ),
        tasks=("segmentation",),
    )

    class Settings(Method.Settings):
        adversarial: float = Field(0.001, ge=0)  # w_adv
        reconstruction: float = Field(0.01, ge=0)  # w_rec
        critic_lr: float = Field(1e-3, gt=0)  # D; S has the plan's optimiser, by default Adam with 1e-4
        reconstruction_lr: float = Field(1e-3, gt=0)  # R
        critic_width: int = Field(64, ge=1)
        width: int | None = Field(None, ge=1)  # R; None: that of the features before the network's head, 64 at most
        norm: NormPolicy = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        masks, channels = len(self.task.classes) - 1, self.net.input_shape[0]
        width = self.settings.width or min(64, self.net.shapes["features"][0])
        self.critic = patch_critic(masks, self.settings.critic_width)
        self.reconstructor = UNet(channels, masks, width, 4, "batch", "bilinear", "replicate")

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "critic": self.critic, "reconstructor": self.reconstructor}

    def stages(self) -> Sequence[Stage]:
        schedule = (self.plan.optimiser or self.optimiser).schedule
        rates = {"critic": self.settings.critic_lr, "reconstructor": self.settings.reconstruction_lr}
        own = {player: Optimiser(kind="adam", lr=rate, schedule=schedule) for player, rate in rates.items()}
        return [Train("adapt", "step", ("source", "target"), self.plan.steps, optimisers=own)]

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        ps, pt = (out.logits.float().softmax(1)[:, 1:] for out in self(source, target))
        ds, dt = self.critic(ps.detach()), self.critic(pt.detach())
        self.update({"domain": 2 * domain_cross_entropy(ds, dt)}, "critic")
        fooled = functional.softplus(-self.critic(pt).float()).mean()  # BCE of the target called source
        error = functional.mse_loss(self.reconstructor(pt).float(), target.x)
        self.update(
            {
                "supervised": soft_dice(ps, source.y),
                "adversarial": self.settings.adversarial * fooled,
                "reconstruction": self.settings.reconstruction * error,
            },
            "net",
            "reconstructor",
        )
        return {"critic accuracy": domain_accuracy(ds, dt), "target error": error}

    watch = {
        "critic accuracy": (0.02, 0.995, "the critic is never fooled: masks of the two domains stay apart"),
    }
