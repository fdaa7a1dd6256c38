"""Label2Image-DA: draw labelled images of the target from labels alone, and train on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import entropy, virtual_adversarial
from acclimate.methods.base import Card, Progress, Stage, Train
from acclimate.methods.label_maps import LabelMaps
from acclimate.networks.norm import NormPolicy, frozen, held

Shares = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Label2ImageDA(LabelMaps):
    """Generating target image-label pairs for unsupervised domain adaptation (Li et al., TIP 2020).

    D is a critic of images, G draws an image of a class y from noise z, T is the network that predicts. For segmentation
    y is the label map of a source image in place of a class.
    Phase 1: min_T  E_s CE(T(x_s), y_s). Phase 2, in which T rests:
    min_D  (E_t -log D(x_t) + E_{y,z} -log(1 - D(G(y, z)))) / 2
    min_G  E_{y,z} -log D(G(y, z)) + lambda_s E_{y,z} CE(T(G(y, z)), y)
    Phase 3, in turn with these:
    min_T  E_s CE(T(x_s), y_s) + lambda_g E_{y,z} CE(T(G(y, z)), y) + lambda_r L_reg,
    where L_reg is E_t H(T(x_t)), E_t KL(T(x_t) || T(x_t + r)) with r = argmax_{||r|| <= radius} of the same, both, or none.
    """

    name = "label2image-da"
    card = Card(
        title="Label2Image-DA",
        paper="Li et al., Generating Target Image-Label Pairs for Unsupervised Domain Adaptation, IEEE TIP 29, 2020",
        year=2020,
        bibtex=(
            "@article{li2020label2image,\n  title={Generating Target Image-Label Pairs for Unsupervised Domain Adaptation},\n"
            "  author={Li, Rui and Cao, Wenming and Wu, Si and Wong, Hau-San},\n"
            "  journal={IEEE Transactions on Image Processing},\n  volume={29},\n  year={2020},\n"
            "  doi={10.1109/TIP.2020.3009853}\n}"
        ),
        when="Domains whose images look so different that aligning features is hard, with small images (digits, signs) "
        "or label maps of enough detail. The generated images show what the network takes each class for.",
        fails="A class that the source network mistakes for another on the target is then also drawn as the other, and learnt "
        "so. Class proportions of the target far from equal. Images too large or too few for a generator.",
        deviations=(
            *LabelMaps.facts,
            "The paper's text and its hyper-parameters could not be had; the phases and their losses are those of the authors' "
            "slides, lambda_s and the rate of T those of their 3C-GAN. lambda_g = 1, lambda_r = 0.1, the phases' "
            "shares and the radius (VADA's, meant for 32 x 32 x 3) are chosen here.",
            "L_reg is not given in the slides: here the entropy and the virtual adversarial loss of 3C-GAN, on target images "
            "(regulariser='none': without).",
            "In the third phase the loss on the source stays, and D, G and T move in turn, so that a better T judges G.",
            "Each domain, and what G draws, is normalised by its own batch; the target moves T's running "
            "statistics (in the first phase, which sees no target, the source).",
            "For segmentation the slides only show that label maps are drawn. Here G is small, with spatially adaptive "
            "normalisation (Park et al., CVPR 2019) and noise in cells of 8 pixels (latent numbers each); D judges patches of "
            "70 pixels. The radius is of a whole crop.",
        ),
    )

    class Settings(LabelMaps.Settings):
        generated: float = Field(1.0, ge=0)  # lambda_g
        regulariser: Literal["none", "entropy", "vat", "entropy+vat"] = "entropy+vat"  # L_reg
        regularisation: float = Field(0.1, ge=0)  # lambda_r
        radius: float = Field(3.5, gt=0)  # of r
        phases: Shares = (3, 4, 3)  # of the steps, in proportion
        norm: NormPolicy = "target"

    settings: Settings

    def stages(self) -> Sequence[Stage]:
        unit = self.plan.steps / sum(self.settings.phases)
        one, two = (max(1, round(share * unit)) for share in self.settings.phases[:2])
        three = max(1, self.plan.steps - one - two)
        return [
            Train("source", "learn", ("source",), one),
            *self.preparation(),
            Train("draw", *self.drawing, two, optimisers=self.rates()),
            Train("adapt", "adapt", ("source", "target"), three, optimisers=self.rates(), continues=True),
        ]

    def learn(self, source: Batch, at: Progress) -> None:
        self.update({"supervised": self.task.loss(self.net(source.x).logits, source.y)}, "net")

    def adapt(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        x, y, watched = self.play(target.x, source.y)
        s, t = self(source, target)
        terms = {"supervised": self.task.loss(s.logits, source.y)}
        with frozen(self.net) if self.settings.norm == "frozen" else held(self.net):
            terms["generated"] = self.settings.generated * self.task.loss(self.net(x).logits, y)
            if "entropy" in self.settings.regulariser:
                terms["entropy"] = self.settings.regularisation * entropy(t.logits)
            if "vat" in self.settings.regulariser:
                smoothness = virtual_adversarial(lambda x: self.net(x).logits, target.x, t.logits, self.settings.radius)
                terms["smoothness"] = self.settings.regularisation * smoothness
        self.update(terms, "net")
        return watched
