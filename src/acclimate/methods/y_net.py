"""Y-Net: an encoder that must also describe both domains well enough to draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.data.streams import Batch
from acclimate.losses import soft_dice
from acclimate.methods.base import Card, Method, Player, Progress, Stage, Train
from acclimate.networks.contract import Output
from acclimate.networks.decoders import Decoder
from acclimate.networks.norm import NormPolicy
from acclimate.plan import Optimiser


class YNet(Method):
    """Y-Net (Roels et al., ISBI 2019): segmentation and reconstruction share an encoder.

    min_{E,S,D} CE(S(E(x_s)), y_s) + lambda/2 [MSE(D(E(x_s)), x_s) + MSE(D(E(x_t)), x_t)]

    E is the network up to the layer at which it aligns (a U-Net's bottleneck). The segmentation decoder S has the U-Net's
    skip connections; the reconstruction decoder D has none, so that the code must carry the whole image.
    The target passes through S too, without a loss: S's BatchNorm then knows the target.
    """

    name = "y-net"
    optimiser = Optimiser(kind="adam", lr=1e-3)
    card = Card(
        title="Y-Net: segmentation with a reconstruction branch",
        paper="Roels et al., Domain Adaptive Segmentation in Volume Electron Microscopy Imaging, ISBI 2019",
        year=2019,
        bibtex=(
            "@inproceedings{roels2019ynet,\n  title={Domain Adaptive Segmentation in Volume Electron Microscopy Imaging},\n"
            "  author={Roels, Joris and Hennies, Jan and Saeys, Yvan and Philips, Wilfried and Kreshuk, Anna},\n"
            "  booktitle={IEEE International Symposium on Biomedical Imaging},\n  pages={1519--1522},\n  year={2019}\n}"
        ),
        when="Dense prediction with both domains at hand and images that resemble each other up to texture and contrast; "
        "stable, because nothing plays against anything.",
        fails="A large weight starves the segmentation; domains that one code can describe side by side without sharing a "
        "feature; a network whose skip connections carry the shift past the bottleneck.",
        deviations=(
            "Each domain is normalised by its own batch and predictions use the target's running statistics; in the "
            "authors' code both domains pass in turn and move the same running statistics (norm='separate'). Part of any "
            "gain is then the statistics' own: compare with adabn.",
            "Images are reconstructed in the range that the network sees, [-1, 1] where nothing else is set, not in "
            "[0, 1]: the same weight counts an error four times as much.",
            "The decoder up-samples bilinearly instead of by up-convolution and starts at the layer at which the network "
            "aligns, rectified: for the U-Net here its bottleneck, as in the paper.",
            "The learning rate is constant; the authors multiply it by .9 every ten epochs.",
            "The two reconstruction errors are averaged; the authors' code adds them, with a weight of 1e-3 or 1 by script.",
            "The last step is kept; the authors' code also keeps the one with the least loss on labelled target images. No "
            "second stage on labelled target images, no dropout.",
        ),
        tasks=("segmentation",),
    )

    class Settings(Method.Settings):
        weight: float = Field(1e-3, ge=0)  # lambda
        loss: Literal["cross-entropy", "dice"] = "cross-entropy"  # the authors' code of 2021: "dice", weight 0.2
        norm: NormPolicy = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.decoder = Decoder(self.net.shapes[self.net.align], self.net.input_shape)

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "decoder": self.decoder}

    def stages(self) -> Sequence[Stage]:
        return [Train("adapt", "step", ("source", "target"), self.plan.steps)]

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        s, t = self(source, target)
        error_s, error_t = self.error(s, source.x), self.error(t, target.x)
        if self.settings.loss == "dice":
            supervised = soft_dice(s.logits.float().softmax(1)[:, 1:], source.y)
        else:
            supervised = self.task.loss(s.logits, source.y)
        half = self.settings.weight / 2
        self.update(
            {
                "supervised": supervised,
                "source reconstruction": half * error_s,
                "target reconstruction": half * error_t,
            },
            "net",
            "decoder",
        )
        return {"target error": error_t}

    def error(self, output: Output, x: Tensor) -> Tensor:
        """The mean squared error of the image that the decoder makes of the rectified code."""
        image = self.decoder(functional.relu(self.net.aligned(output)), x.shape[2:])
        return functional.mse_loss(image.float(), x)
