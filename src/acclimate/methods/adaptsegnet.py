"""AdaptSegNet: predictions of whole images from which a critic cannot tell the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from acclimate.data.streams import Batch
from acclimate.errors import UsageError, nearest
from acclimate.losses import critic_loss, domain_accuracy, fooling_loss
from acclimate.losses.gan import Form
from acclimate.methods.base import Card, Method, Player, Progress, Stage, Train
from acclimate.networks.critics import patch_critic
from acclimate.networks.deeplab import Aspp
from acclimate.networks.norm import NormPolicy
from acclimate.plan import Optimiser


class AdaptSegNet(Method):
    """Adaptation of the structured output (Tsai et al., CVPR 2018, eq. 1-5), with one level or two.

    min_net CE(z(x_s), y_s) + w_adv BCE(D(p(x_t)), source) + w_seg CE(z'(x_s), y_s) + w'_adv BCE(D'(p'(x_t)), source)
    min_D [BCE(D(p(x_s)), source) + BCE(D(p(x_t)), target)] / 2, and D' on p' likewise

    p = softmax(z) are the maps of class probabilities at image size; z' are those of a second classifier, which reads the
    tap ``auxiliary`` of the network, while training alone. Each step moves net and D once, on the same maps.
    """

    name = "adaptsegnet"
    optimiser = Optimiser(lr=2.5e-4, weight_decay=5e-4, schedule="poly")
    card = Card(
        title="AdaptSegNet: adversarial output space",
        paper="Tsai et al., Learning to Adapt Structured Output Space for Semantic Segmentation, CVPR 2018",
        year=2018,
        bibtex=(
            "@inproceedings{tsai2018adaptsegnet,\n  title={Learning to Adapt Structured Output Space for Semantic "
            "Segmentation},\n  author={Tsai, Yi-Hsuan and Hung, Wei-Chih and Schulter, Samuel and Sohn, Kihyuk and Yang, "
            "Ming-Hsuan and Chandraker, Manmohan},\n  booktitle={IEEE Conference on Computer Vision and Pattern "
            "Recognition},\n  pages={7472--7481},\n  year={2018}\n}"
        ),
        when="Scenes with the same layout in both domains (roads, organs, tissue); large, frequent classes gain most.",
        fails="Layouts, sizes or shares of classes that differ: the critic then asks for wrong masks. Thin and rare classes. It "
        "swings, so more steps may be worse: try form='least-squares', or warmup=.1.",
        deviations=(
            "Each domain is normalised by its own batch and predictions use the target's running statistics; in the authors' "
            "code both move the same ones (norm='separate'). Part of any gain is then theirs: compare with adabn.",
            "The second level is off until auxiliary names a tap (a U-Net's 'bottleneck'), which is rectified; the paper's best "
            "network has it, on DeepLab's conv4. Its classifier sums all four dilations (6, 12, 18, 24); a return inside a "
            "loop makes that of the authors' two-level network sum two.",
            "The critic says 1 to the source and 0 to the target, in the authors' code the reverse: the same game.",
            "The weights are the paper's; for PyTorch from 0.4 on the authors advise .0005 and .00005 with two levels. With "
            "least squares the first becomes ten times as large by itself. The rate is for pretrained networks.",
            "Poly ends with the run; the authors stop at 150k of 250k. With a pretrained deeplab-v2, whose body has a tenth "
            "of the rate, lr=2.5e-3 gives the authors' two rates.",
            "warmup is none of the paper's. Batches of crops, where it has a whole image. The last step is kept, not the best.",
        ),
        tasks=("segmentation",),
    )

    class Settings(Method.Settings):
        adversarial: float | None = Field(None, ge=0)  # w_adv; None: .001, with least squares .01
        form: Form = "vanilla"
        auxiliary: str | None = None  # the tap that the second level reads; None: one level
        auxiliary_supervised: float = Field(0.1, ge=0)  # w_seg
        auxiliary_adversarial: float = Field(0.0002, ge=0)  # w'_adv
        critic_lr: float = Field(1e-4, gt=0)  # Adam with betas .9 and .99, on the network's schedule
        critic_width: int = Field(64, ge=1)
        warmup: float = Field(0.0, ge=0, lt=1)  # the share of the steps in which w_adv and w'_adv rise from 0
        norm: NormPolicy = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        tap, taps, classes = self.settings.auxiliary, self.net.tap_names, len(self.task.classes)
        if tap is not None and tap not in taps:
            raise UsageError(f"auxiliary={tap!r} is no tap of the network{nearest(tap, taps)}; build it with that tap")
        self.auxiliary = None if tap is None else Aspp(self.net.shapes[tap][0], classes)
        levels = range(1 if tap is None else 2)
        self.critics = nn.ModuleList(patch_critic(classes, self.settings.critic_width) for _ in levels)

    def players(self) -> Mapping[str, Player]:
        more = {} if self.auxiliary is None else {"auxiliary": self.auxiliary}
        return {"net": self.net, **more, "critic": self.critics}

    def stages(self) -> Sequence[Stage]:
        schedule = (self.plan.optimiser or self.optimiser).schedule
        critic = Optimiser(kind="adam", lr=self.settings.critic_lr, betas=(0.9, 0.99), schedule=schedule)
        return [Train("adapt", "step", ("source", "target"), self.plan.steps, optimisers={"critic": critic})]

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        chosen, (s, t) = self.settings, self(source, target)
        first = chosen.adversarial if chosen.adversarial is not None else 0.001 if chosen.form == "vanilla" else 0.01
        levels = [("", 1.0, first, s.logits, t.logits)]
        if self.auxiliary is not None:
            zs, zt = (self.second(out.taps[str(chosen.auxiliary)], x) for out, x in ((s, source.x), (t, target.x)))
            levels.append(("auxiliary ", chosen.auxiliary_supervised, chosen.auxiliary_adversarial, zs, zt))
        rise = min(1.0, at.fraction / chosen.warmup) if chosen.warmup else 1.0
        terms, critics, metrics, middle = {}, {}, {}, 0.0 if chosen.form == "vanilla" else 0.5
        for critic, (of, supervised, adversarial, zs, zt) in zip(self.critics, levels):
            ps, pt = (z.float().softmax(1) for z in (zs, zt))
            terms[f"{of}supervised"] = supervised * self.task.loss(zs, source.y)
            terms[f"{of}adversarial"] = rise * adversarial * fooling_loss(critic(pt), chosen.form)
            ds, dt = critic(ps.detach()), critic(pt.detach())
            critics[f"{of}critic"] = critic_loss(ds, dt, chosen.form)
            metrics[f"{of}critic accuracy"] = domain_accuracy(ds - middle, dt - middle)
        self.update(terms, *(player for player in self.players() if player != "critic"))
        self.update(critics, "critic")
        return metrics

    def second(self, features: Tensor, x: Tensor) -> Tensor:
        """The second classifier's logits, at the size of the images ``x``."""
        logits = self.auxiliary(functional.relu(features))  # type: ignore[misc]
        return functional.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)

    watch = {"critic accuracy": (0.02, 0.995, "the critic is never fooled: raise adversarial, or lower critic_lr")}
