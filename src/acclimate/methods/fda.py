"""FDA: train on source images that carry the low-frequency amplitude of target images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from acclimate.data.streams import Batch
from acclimate.losses import charbonnier_entropy, entropy
from acclimate.methods.base import Card, Method, Progress, Stage, Sweep, Train
from acclimate.networks.norm import NormPolicy
from acclimate.plan import Optimiser
from acclimate.transforms.fourier import amplitude_swap


class FDA(Method):
    """Fourier domain adaptation (Yang & Soatto, CVPR 2020, eq. 3-6).

    min_net E_s CE(f(x_st), y_s) + lambda_ent E_t (h(f(x_t))^2 + .001^2)^eta,
    x_st = F^-1([M_beta F_A(x_t) + (1 - M_beta) F_A(x_s), F_P(x_s)])

    h is the entropy of a prediction, F_A and F_P are amplitude and phase of the Fourier transform, and M_beta is 1 at the
    frequencies of at most b = floor(beta min(H, W)) cycles per image, at least one. Each source image takes the amplitude of
    the target image in its row of the batch.
    """

    name = "fda"
    optimiser = Optimiser(lr=2.5e-4, weight_decay=5e-4, schedule="poly")
    card = Card(
        title="Fourier domain adaptation",
        paper="Yang & Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020",
        year=2020,
        bibtex=(
            "@inproceedings{yang2020fda,\n  title={{FDA}: Fourier Domain Adaptation for Semantic Segmentation},\n"
            "  author={Yang, Yanchao and Soatto, Stefano},\n  booktitle={IEEE/CVF Conference on Computer Vision and "
            "Pattern Recognition},\n  pages={4085--4095},\n  year={2020}\n}"
        ),
        when="Domains that differ in illumination, colour or slow shading; one number to choose, and nothing adversarial.",
        fails="A large beta: the target's layout shines through as waves and rings. Shifts of texture, noise or blur (high "
        "frequencies). Few classes of very different share: the low frequencies then hold the objects themselves.",
        deviations=(
            "One network for one beta. The paper averages the predictions of three (beta .01, .05, .09) and trains three "
            "anew on the pseudo-labels of that average, several times: run this method for each beta and average, then "
            "self-training.",
            "b is at least 1 (3 x 3 frequencies), or a beta of .01 would do next to nothing to a crop of less than 100 pixels; "
            "192 pixels give 1. The window is symmetric, as in the paper and in the released NumPy code; the released torch code "
            "leaves out its last row and column.",
            "Amplitudes come from crops, in the paper from whole images of 1024 x 512.",
            "The mixed images may leave the range of bytes and are not clipped, as in the paper.",
            "The entropy is divided by log K, as in the released code (not in the paper), so that lambda_ent means the same for "
            "any K; the code adds 1e-8 to its square, the paper 1e-6. It is that of the logits at image size; the code takes it "
            "before up-sampling.",
            "The entropy counts after a third of the steps (begin), as in the released code; the paper does not say so.",
            "Each domain is normalised by its own batch and predictions use the target's running statistics; in the "
            "authors' code both move the same ones (norm='separate'). Part of any gain is then the statistics' own: compare with "
            "adabn.",
            "One rate for all, but for a network's lr_scales: with a pretrained deeplab-v2, whose body has a tenth, "
            "lr=2.5e-3 gives the authors' two rates. From scratch take more, or warm_start.",
        ),
    )

    class Settings(Method.Settings):
        beta: float = Field(0.01, gt=0, le=1)  # the paper: .01, .05 and .09
        entropy: float = Field(0.005, ge=0)  # lambda_ent
        eta: float = Field(2.0, gt=0)
        begin: float = Field(1 / 3, ge=0, lt=1)  # the share of the steps without the entropy
        norm: NormPolicy = "target"

    settings: Settings
    reference: Tensor

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register_buffer("reference", torch.zeros(1, *self.net.input_shape))

    def stages(self) -> Sequence[Stage]:
        train = Train("adapt", "step", ("source", "target"), self.plan.steps)
        return [Sweep("reference", "remember", ("target",)), train]

    def remember(self, target: Iterator[Batch]) -> None:
        """The target's first image, for :meth:`translate`: its upper left part, as large as the network's input."""
        height, width = self.net.input_shape[1:]
        first = torch.zeros_like(self.reference)
        for batch in target:
            for x in batch.x[batch.index == 0]:
                first = _sized(x[None, :, :height, :width], (height, width))
        self.reference.copy_(self.total(first))

    def translate(self, x: Tensor) -> Tensor:
        return amplitude_swap(x, _sized(self.reference, x.shape[2:]), self.settings.beta)

    def step(self, source: Batch, target: Batch, at: Progress) -> dict[str, Tensor]:
        x = amplitude_swap(source.x, _sized(target.x, source.x.shape[2:]), self.settings.beta)
        s, t = self(dataclasses.replace(source, x=x), target)
        weight = self.settings.entropy if at.fraction >= self.settings.begin else 0.0
        unsure = charbonnier_entropy(t.logits, self.settings.eta)
        self.update({"translated": self.task.loss(s.logits, source.y), "entropy": weight * unsure}, "net")
        return {"target entropy": entropy(t.logits.detach())}


def _sized(x: Tensor, size: Sequence[int]) -> Tensor:
    same = tuple(x.shape[2:]) == tuple(size)
    return x if same else functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
