"""ProDA: a warm-up, pseudo-labels that prototypes correct at every step, then distillation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import critic_loss, domain_accuracy, fooling_loss
from acclimate.methods.base import Card, Need, Player, Progress, Stage, Sweep, Train, rounds
from acclimate.methods.proda_denoising import Denoised
from acclimate.methods.proda_distillation import Distilled
from acclimate.networks.critics import patch_critic
from acclimate.plan import Optimiser


class ProDA(Denoised):
    """Prototypical pseudo-label denoising and target structure learning (ProDA; Zhang et al., CVPR 2021).

    Warm-up, with a critic D of the probabilities p:
    min_D [(D(p_s) - 1)^2 + D(p_t)^2] / 2,  min_f CE(f(x_s), y_s) + w_adv (D(p_t) - 1)^2
    Then :class:`Denoised` (stage 1) and as many distillations as wanted (stages 2 and 3, :class:`Distilled`).

    The paper's ablation: distillations=0 for stage 1, whose parts denoise, symmetric, structure and regulariser can each
    be turned off (all four: plain self-training); then distillations=1 with each student, distil=0; distillations=2.
    """

    name = "proda"
    needs = Need.SOURCE | Need.TARGET | Need.SOURCE_MODEL
    optimiser = Optimiser(lr=1e-4, weight_decay=2e-4, schedule="poly")
    card = Card(
        title="Prototypical pseudo-label denoising and target structure learning (ProDA)",
        paper="Zhang et al., Prototypical Pseudo Label Denoising and Target Structure Learning for Domain Adaptive Semantic "
        "Segmentation, CVPR 2021",
        year=2021,
        bibtex=(
            "@inproceedings{zhang2021proda,\n  title={Prototypical Pseudo Label Denoising and Target Structure Learning "
            "for Domain Adaptive Semantic Segmentation},\n  author={Zhang, Pan and Zhang, Bo and Zhang, Ting and Chen, Dong "
            "and Wang, Yong and Wen, Fang},\n  booktitle={CVPR},\n  year={2021}\n}"
        ),
        when="The first model is right more often than not in every class, and the features of a class lie together.",
        fails="A class of fewer than ten pixels in every image has no prototype and gets almost no label. Few steps: prototypes "
        "and averaged weights hardly move (lower prototype_decay and decay).",
        deviations=(
            "Warm-up, denoising and the distillations share the plan's steps and its learning rate; the authors train each in "
            "full, warm-up with 2.5e-4, denoising with 1e-4 and distillation with 6e-4.",
            "A student begins as its teacher or as the model given (student); the authors' begins as an ImageNet SimCLRv2 "
            "network with BatchNorm after it, which is worth .6 points in their table.",
            "The warm-up is AdaptSegNet's critic and the weak view of the source, the critic first; the released code shows the "
            "strong view of the source, has a critic of another shape and updates it last, with the sum of its two terms.",
            "The strong view is the preprocessing's photometry with a blank square; the authors draw two operations of "
            "RandAugment, geometric ones among them.",
            "KL terms are means over the classes too, as in the released code, to which the weights belong. There distillation "
            "is no KL: it takes the student's probabilities for their logarithms. Here it is one.",
            "Pixels outside of the image are in no term of the target, blank ones in none of the strong view's; the released "
            "regulariser and distillation count them.",
            "The first prototypes come from whole images, once, p_0 from the same pass; the authors pass over the data four "
            "times. The averaged network sees the crop, where the authors' sees the whole image.",
            "The n images of a batch that hold a class move its prototype together, by m^n; the authors' one by one.",
            "Features are compared in their own resolution and distances brought to the image's; the authors work at a quarter.",
            "Each domain is normalised by its own batch. The strong view leaves running statistics alone while denoising; "
            "afterwards and before the first labels they are re-estimated on the target (restat). The averaged network is "
            "normalised by its batch, as in the released code.",
            "Features are what enters the network's head. The authors' have 256 channels, for which a temperature of 1 is meant: "
            "among wider ones distances are longer and omega is almost hard, among 16 it is almost uniform (temperature).",
            "One learning rate, meant for a pretrained network (else .001 or so, warm_start); the authors' heads have ten "
            "times that but while denoising. Ten pixels are those of the features.",
            "The last step is kept; the authors keep the checkpoint with the best IoU on labelled target images.",
        ),
        tasks=("segmentation",),
    )

    class Settings(Denoised.Settings):
        warm_up: float = Field(0.25, ge=0, lt=1)  # share of the steps; 0: the source model gives the first labels
        adversarial: float = Field(0.01, ge=0)  # w_adv
        critic_lr: float = Field(1e-4, gt=0)  # D
        critic_width: int = Field(64, ge=1)

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if self.settings.warm_up:
            self.critic = patch_critic(len(self.task.classes), self.settings.critic_width)

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "critic": self.critic} if self.settings.warm_up else {"net": self.net}

    def stages(self) -> Sequence[Stage]:
        share, domains = self.settings.warm_up, ("source", "target")
        before = max(1, round(self.plan.steps * share)) if share else 0
        first, *later = (
            steps for steps, _ in rounds(max(1, self.plan.steps - before), 1 + self.settings.distillations)
        )
        schedule = (self.plan.optimiser or self.optimiser).schedule
        critic = Optimiser(kind="adam", lr=self.settings.critic_lr, betas=(0.9, 0.99), schedule=schedule)
        return [
            *([Train("warm-up", "warm_up", domains, before, optimisers={"critic": critic})] if before else []),
            *self.measured("statistics"),
            Sweep("first labels", "first_labels", ("target",)),
            Train("denoise", "denoise", domains, first, views=("weak", "strong")),
            *self.distillation_stages(later),
        ]

    def warm_up(self, source: Batch, target: Batch, at: Progress) -> Mapping[str, Tensor]:
        s, t = self(source, target)
        ps, pt = (out.logits.float().softmax(1) for out in (s, t))
        ds, dt = self.critic(ps.detach()), self.critic(pt.detach())
        self.update({"critic": critic_loss(ds, dt, "least-squares")}, "critic")
        fooled = self.settings.adversarial * fooling_loss(self.critic(pt), "least-squares")
        self.update({"supervised": self.task.loss(s.logits, source.y), "adversarial": fooled}, "net")
        return {"critic accuracy": domain_accuracy(ds - 0.5, dt - 0.5)}

    watch = {
        **Distilled.watch,
        "corrected": (0.0, 0.5, "prototypes overrule most of the first labels; raise temperature or warm up longer"),
    }
