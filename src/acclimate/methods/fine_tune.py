"""Fine-tuning: a trained network goes on learning from a few labelled target images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from acclimate.data.streams import Batch
from acclimate.losses import weight_drift
from acclimate.methods.base import Card, Method, Need, Player, Progress, Stage, Sweep, Train
from acclimate.networks.norm import batch_norms, frozen, restat
from acclimate.plan import Optimiser


class FineTune(Method):
    """Fine-tuning on labelled target images (x_l, y_l), from the weights theta_0 that the network comes with.

    min_theta E_l CE(f(x_l), y_l) + pull / 2 * ||theta - theta_0||^2          (pull > 0: L2-SP, Li et al. 2018, eq. 1)

    ``part`` says which weights are in theta; the others rest. BatchNorm normalises by running statistics that no step
    moves, since a few images estimate them badly: those that the network comes with, or (``norm="target"``) these mixed
    once with the labelled images' own, N / (N + n) old + n / (N + n) new, N = ``prior``, n labelled images.
    """

    name = "fine-tune"
    needs = Need.SOURCE_MODEL | Need.FEW_TARGET_LABELS
    optimiser = Optimiser(lr=1e-3, schedule="cosine")  # a tenth of what training takes: the network is not to be lost
    card = Card(
        title="Fine-tuning on a few labelled target images",
        paper="Yosinski et al., How transferable are features in deep neural networks?, NeurIPS 2014; pull: Li et al., "
        "Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018",
        year=2014,
        bibtex=(
            "@inproceedings{yosinski2014transferable,\n  title={How transferable are features in deep neural networks?},\n"
            "  author={Yosinski, Jason and Clune, Jeff and Bengio, Yoshua and Lipson, Hod},\n"
            "  booktitle={Advances in Neural Information Processing Systems},\n  year={2014}\n}"
        ),
        when="Some target images can be labelled, be it ten. Neither source nor unlabelled target images are needed. "
        "`acclimate fine-tune RUN --labelled LAB` shows what how many labels are worth, from the source model and from "
        "an adapted one.",
        fails="A handful of images that lack a class, or are all alike: what they do not show is forgotten. Fewer labels "
        "than that, and adaptation without labels may do better.",
        deviations=(
            "1. The head is kept, since both domains have the same classes; Yosinski et al. begin a new one, for which Li et "
            "al. have a second term of their own (beta, towards zero). So ``pull`` is their alpha, for all weights.",
            "2. Running statistics of BatchNorm do not move, where those papers' batches are large enough to train on. "
            "Mixing them with the labelled images' is Schneider et al., NeurIPS 2020.",
            "3. ``pull`` is 0 by default: Li et al. choose it on held-out labels (0.01 to 1), and here no label is held out.",
        ),
    )

    class Settings(Method.Settings):
        part: Literal["all", "head", "norm+head"] = "all"  # norm: scales and shifts of BatchNorm
        norm: Literal["frozen", "target"] = "frozen"
        prior: float = Field(16.0, ge=0)  # of norm="target": how many images the old statistics count for
        pull: float = Field(0.0, ge=0)

    settings: Settings

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if self.settings.pull:
            self.start = copy.deepcopy(self.net).requires_grad_(False)

    def players(self) -> Mapping[str, Player]:
        if self.settings.part == "all":
            return {"net": self.net}
        moving = [] if self.settings.part == "head" else [layer for _, layer in batch_norms(self.net)]
        modules: list[nn.Module] = [*moving, self.net.head]
        return {"net": list({id(p): p for module in modules for p in module.parameters()}.values())}

    def stages(self) -> Sequence[Stage]:
        first = [Sweep("statistics", "statistics", ("labelled",))] if self._re_estimates() else []
        return [*first, Train("fine-tune", "step", ("labelled",), self.plan.steps)]

    def statistics(self, labelled: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in labelled), self.total, prior=self.settings.prior)

    def step(self, labelled: Batch, at: Progress) -> dict[str, Tensor]:
        with frozen(self.net):
            terms = {"labelled": self.task.loss(self.net(labelled.x).logits, labelled.y)}
        if self.settings.pull:
            terms["pull"] = self.settings.pull / 2 * weight_drift(self.net, self.start)
        self.update(terms, "net")
        return {}

    def _re_estimates(self) -> bool:
        return self.settings.norm == "target" and bool(batch_norms(self.net))
