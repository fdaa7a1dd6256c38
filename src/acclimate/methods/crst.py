"""Confidence-regularised self-training: class-balanced pseudo-labels of which the network shall not be too sure."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.data.streams import Batch
from acclimate.losses import uniformity
from acclimate.losses.soft_labels import entropy_soft_labels, negative_entropy, soft_cross_entropy, squared_norm
from acclimate.methods.base import Card
from acclimate.methods.self_training import SelfTraining

PENALTIES = {"mrkld": uniformity, "mrent": negative_entropy, "mrl2": squared_norm}
ALPHA = {"mrkld": 0.1, "lrent": 0.25, "mrent": 0.1, "mrl2": 0.1}


def log_probability(level: Tensor) -> Tensor:
    """log p of levels of the log-odds, 64 to the unit and from -16 on (transforms.confidence)."""
    return functional.logsigmoid(level.float() / 64 - 16)


class CRST(SelfTraining):
    """Confidence-regularised self-training (Zou et al., ICCV 2019), for images or pixels.

    Class-balanced self-training with w E_t [CE(p, y) + alpha R(p)] over the kept predictions p = f(x_t), R one of
    mrkld: -1/K sum_k log p_k;  mrent: sum_k p_k log p_k;  mrl2: sum_k p_k^2;
    or, with lrent, no R but soft labels y_k = (p_k / t_k)^(1 / alpha) / Z, p of the labelling, t_k the threshold of class k,
    kept where Z >= 1, that is where -sum_k y_k log p_k + alpha sum_k y_k log y_k <= -sum_k y_k log t_k.
    """

    name = "crst"
    card = Card(
        title="Confidence-regularised self-training (CRST)",
        paper="Zou et al., Confidence Regularized Self-Training, ICCV 2019",
        year=2019,
        bibtex=(
            "@inproceedings{zou2019crst,\n  title={Confidence Regularized Self-Training},\n  author={Zou, Yang and Yu, Zhiding "
            "and Liu, Xiaofeng and Kumar, B. V. K. Vijaya and Wang, Jinsong},\n  booktitle={ICCV},\n  year={2019}\n}"
        ),
        when="As self-training; many classes, and pseudo-labels of which some are wrong.",
        fails="As self-training. A large alpha keeps the network from being sure where it is right.",
        deviations=(
            "alpha enters once. The released segmentation code multiplies MRKLD by it twice: its .1 acts as .01 (alpha=.01).",
            "alpha of mrent and mrl2 is chosen here; mrkld's .1 and lrent's .25 are the paper's.",
            "lrent remembers p at 1 / ``shrink`` of the image's size, in float16, drawn to full size bilinearly; a quarter "
            "takes K / 8 bytes a pixel. Among its labels every class competes over its threshold.",
            *SelfTraining.card.deviations,
        ),
    )

    class Settings(SelfTraining.Settings):
        regulariser: Literal["mrkld", "lrent", "mrent", "mrl2"] = "mrkld"
        alpha: float | None = Field(None, gt=0)  # None: .25 for lrent, .1 for the others
        shrink: int = Field(4, ge=1)  # lrent

    settings: Settings

    @property
    def alpha(self) -> float:
        return self.settings.alpha or ALPHA[self.settings.regulariser]

    def columns(self, logits: Tensor) -> dict[str, Tensor]:
        columns = super().columns(logits)
        if self.settings.regulariser != "lrent":
            return columns
        p = logits.float().softmax(1)
        if p.ndim == 2:  # a column holds one value for an image, so one for each class
            return columns | {f"p{k}": share for k, share in enumerate(p.unbind(1))}
        height, width = (max(1, side // self.settings.shrink) for side in p.shape[2:])
        return columns | {"p": functional.adaptive_avg_pool2d(p, (height, width)).half()}

    def on_target(self, logits: Tensor, target: Batch) -> tuple[dict[str, Tensor], Tensor]:
        weight, columns = self.settings.weight, target.columns
        if self.settings.regulariser == "lrent":
            classes = range(logits.shape[1])
            p = columns["p"] if "p" in columns else torch.stack([columns[f"p{k}"] for k in classes], 1)
            label = columns["label"].long()[:, None]
            log_t = log_probability(self.thresholds).view(1, -1, *[1] * (p.ndim - 2))
            # near 1 a float16 would not tell p from its threshold, a level does
            log_p = p.clamp_min(1e-7).log().scatter(1, label.clamp_min(0), log_probability(columns["level"])[:, None])
            labels, good = entropy_soft_labels(log_p - log_t, self.alpha)
            kept = good & (label[:, 0] >= 0)
            return {"pseudo-label": weight * soft_cross_entropy(logits, labels, kept)}, kept
        terms, kept = super().on_target(logits, target)
        penalty = PENALTIES[self.settings.regulariser](logits, kept)
        return terms | {"regulariser": weight * self.alpha * penalty}, kept
