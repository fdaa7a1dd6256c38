"""The first half of ProDA: soft pseudo-labels that the distances to class prototypes correct at every step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.data.streams import Batch
from acclimate.errors import UsageError
from acclimate.losses import cross_entropy, distillation, symmetric_cross_entropy, uniformity
from acclimate.methods.base import Average, Progress, same_weights
from acclimate.methods.proda_distillation import Distilled
from acclimate.networks.contract import Output
from acclimate.networks.norm import batch_norms, frozen, held
from acclimate.networks.prototypes import class_means, moved, nearness, resized


class Denoised(Distilled):
    """Labels y from first probabilities p_0 and prototypes eta_k (Zhang et al., CVPR 2021, sections 3.1 and 3.2).

    y = argmax_k z_k(x_t) p_0k, z_k(x) = softmax_k(-||f~(x) - eta_k|| / tau), eta_k <- m eta_k + (1 - m) mean_k f~(x_t)
    min_f CE(f(x_s), y_s) + [.1 CE(p, y) + CE(y, p)] + gamma_1 KL(z(x_t) || z'(x_t')) / K - gamma_2 mean_k log p_k

    p = f(x_t); f~ are the features of averaged weights, z' is of the network's own, x_t' the strong view.
    """

    class Settings(Distilled.Settings):
        denoise: bool = True  # False: y = argmax p_0
        symmetric: bool = True  # False: plain cross-entropy with y
        structure: float = Field(10.0, ge=0)  # gamma_1
        regulariser: float = Field(0.1, ge=0)  # gamma_2; the paper has 0 for SYNTHIA
        temperature: float = Field(1.0, gt=0)  # tau
        prototype_decay: float = Field(0.9999, ge=0, lt=1)  # m, for each image
        decay: float = Field(0.999, ge=0, lt=1)  # of the averaged weights
        stride: int = Field(4, ge=1)  # p_0 is stored at this fraction of the image's size; 1 for small images

    settings: Settings
    prototypes: Tensor
    known: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        shape, classes = self.net.shapes["features"], len(self.task.classes)
        if len(shape) != 3:
            raise UsageError(f"prototypes are of maps (C, h, w); name a head whose input is one, not {shape}")
        self.register_buffer("prototypes", torch.zeros(classes, shape[0]))
        self.register_buffer("known", torch.zeros(classes, dtype=torch.int8))
        self.average = copy.deepcopy(self.net).requires_grad_(False)

    def train(self, mode: bool = True) -> Denoised:
        super().train(mode)
        self.average.eval()  # no dropout, but statistics of the batch
        for _, layer in batch_norms(self.average):
            layer.train(mode)
        return self

    def averages(self) -> Sequence[Average]:
        return [Average(self.net, self.average, self.settings.decay)]

    def first_labels(self, target: Iterator[Batch]) -> None:
        same_weights(self.net, self.average)
        found = torch.zeros(len(self.prototypes), self.prototypes.shape[1] + 1, device=self.prototypes.device)
        for batch in target:
            out = self.net(batch.x)
            found += self.means(out, out.logits.argmax(1))
            size = [-(-side // self.settings.stride) for side in batch.x.shape[2:]]
            p = functional.interpolate(out.logits.float().softmax(1), size, mode="area")
            self.keep(batch, soft=p.to(torch.float16))
        self.move_prototypes(found, 0.0)

    def means(self, out: Output, labels: Tensor) -> Tensor:
        return class_means(out.features, resized(labels, out.features), len(self.prototypes))

    def move_prototypes(self, found: Tensor, decay: float) -> None:
        prototypes, known = moved(self.prototypes, self.known > 0, self.total(found), decay)
        self.prototypes.copy_(prototypes)
        self.known.copy_(known)

    def near(self, out: Output) -> Tensor:
        """Logits of z ``(N, K, h, w)``, in the resolution of the features."""
        return nearness(out.features, self.prototypes, self.known > 0, self.settings.temperature)

    def denoise(self, source: Batch, target: Batch, at: Progress) -> Mapping[str, Tensor]:
        chosen, soft = self.settings, target.columns["soft"]
        within = soft.sum(1) > 0  # a geometric transform may have moved the image's border into view
        s, t = self(source, target)
        terms, score = {"supervised": self.task.loss(s.logits, source.y)}, soft.log()
        if chosen.denoise or chosen.structure:
            with torch.no_grad(), self.passing(self.average, "target"):
                taught = self.average(target.x)
            near = self.near(taught)
        if chosen.denoise:  # argmax_k z_k p_0k = argmax_k log p_0k - distance_k / tau
            score = score + functional.interpolate(near, score.shape[2:], mode="bilinear", align_corners=False)
        first, label = (torch.where(within, found.argmax(1), -1) for found in (soft, score))
        loss = symmetric_cross_entropy if chosen.symmetric else cross_entropy
        terms["pseudo-label"] = loss(t.logits, label)
        if chosen.structure:
            strong, seen = self.strong(target)
            with frozen(self.net) if chosen.norm == "frozen" else held(self.net):
                mine = self.near(self.net(strong.x))
            counts = resized((within & seen).long(), mine) > 0
            terms["structure"] = chosen.structure / mine.shape[1] * distillation(near, mine, counts)
        if chosen.regulariser:
            terms["regulariser"] = chosen.regulariser * uniformity(t.logits, within)
        self.update(terms, "net")
        if chosen.denoise or chosen.structure:
            guess = torch.where(within, taught.logits.argmax(1), -1)
            self.move_prototypes(self.means(taught, guess), chosen.prototype_decay)
        return {"corrected": (label != first).float().sum() / within.sum().clamp_min(1)}
