"""DANN: features from which a critic cannot tell the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.losses import dann_ramp, domain_accuracy, domain_cross_entropy, reverse
from acclimate.methods.base import Card, Method, Player, Progress, Stage, Train
from acclimate.networks.critics import critic
from acclimate.networks.norm import NormPolicy


class DANN(Method):
    """Domain-adversarial training of neural networks (Ganin et al., JMLR 2016, eq. 13-18).

    min_{F,C} max_D  E_s CE(C(F(x_s)), y_s) - w lambda_p [E_s BCE(D(F(x_s)), 1) + E_t BCE(D(F(x_t)), 0)] / 2

    The reversal layer between F and D makes it one minimisation, in which D itself always learns at full rate.
    lambda_p = 2 / (1 + exp(-10 p)) - 1 with the progress p.
    """

    name = "dann"
    card = Card(
        title="Domain-adversarial neural network",
        paper="Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 17(59), 2016",
        year=2016,
        bibtex=(
            "@article{ganin2016dann,\n  title={Domain-Adversarial Training of Neural Networks},\n"
            "  author={Ganin, Yaroslav and Ustinova, Evgeniya and Ajakan, Hana and Germain, Pascal and Larochelle, Hugo"
            " and Laviolette, Fran{\\c{c}}ois and Marchand, Mario and Lempitsky, Victor},\n"
            "  journal={Journal of Machine Learning Research},\n  volume={17},\n  number={59},\n  year={2016}\n}"
        ),
        when="Both domains at hand, the same classes in similar proportions, enough steps (thousands).",
        fails="Class proportions that differ; domains so far apart that source-only is near chance (it may swap classes).",
        deviations=(
            "Two forward passes with a BatchNorm policy (default: each domain normalised by its own batch, running "
            "statistics from the target) where the paper passes one mixed batch; its networks have no BatchNorm, and "
            "there one mixed batch is what runs here too.",
            "The domain term is the mean over both domains, as in the authors' released code; the paper's equation sums "
            "the two, with which training diverged at its own learning rate.",
            "No linear SVM is re-fitted on the last layer at the end; the network's own classifier predicts.",
            "The inputs are scaled to [-1, 1], without subtracting the mean image.",
        ),
    )

    class Settings(Method.Settings):
        weight: float = 1.0  # w, on top of the ramp
        ramp: bool = True  # False: lambda_p = 1 from the first step
        reversal: bool = True  # False: the features help the critic; only to see what the reversal is for
        hidden: tuple[int, ...] = (100,)  # the critic's layers; the paper's larger networks use (1024, 1024)
        norm: NormPolicy = "target"

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.critic = critic(self.net.shapes[self.net.align], self.settings.hidden)

    def players(self) -> Mapping[str, Player]:
        return {"net": self.net, "critic": self.critic}

    def stages(self) -> Sequence[Stage]:
        return [Train("adapt", "step", ("source", "target"), self.plan.steps)]

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        s, t = self(source, target)
        weight = self.settings.weight * (dann_ramp(at.fraction) if self.settings.ramp else 1.0)
        weight = weight if self.settings.reversal else -weight
        ds, dt = (self.critic(reverse(self.net.aligned(out), weight)) for out in (s, t))
        self.update(
            {"supervised": self.task.loss(s.logits, source.y), "domain": domain_cross_entropy(ds, dt)}, "net", "critic"
        )
        return {"critic accuracy": domain_accuracy(ds, dt)}

    watch = {
        "critic accuracy": (0.02, 0.995, "the critic is never fooled: features stay apart; try more steps or weight"),
    }
