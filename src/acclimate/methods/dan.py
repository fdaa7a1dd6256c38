"""DAN: features and logits whose distributions several Gaussian kernels cannot tell apart."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from acclimate.losses import multi_kernel_mmd
from acclimate.methods.aligned import Aligned, Layer
from acclimate.methods.base import Card
from acclimate.networks.contract import Output
from acclimate.plan import Optimiser


class DAN(Aligned):
    """Learning transferable features with deep adaptation networks (Long et al., ICML 2015, section 3).

    min_theta E_s CE(f(x_s), y_s) + w lambda_p sum_l MMD^2(f_l(x_s), f_l(x_t)) over the layers l, with the kernel
    k(a, b) = sum_u exp(-||a - b||^2 / sigma_u), sigma_u = sigma 2^(u - 2), u = 0 .. 4,
    sigma the mean squared distance of all pairs of the batch, lambda_p = 2 / (1 + exp(-10 p)) - 1 with the progress p.
    """

    name = "dan"
    optimiser = Optimiser(lr=0.01, weight_decay=5e-4, schedule="dann")
    card = Card(
        title="Deep adaptation network (multi-kernel MMD)",
        paper="Long et al., Learning Transferable Features with Deep Adaptation Networks, ICML 2015",
        year=2015,
        bibtex=(
            "@inproceedings{long2015dan,\n  title={Learning Transferable Features with Deep Adaptation Networks},\n"
            "  author={Long, Mingsheng and Cao, Yue and Wang, Jianmin and Jordan, Michael I.},\n"
            "  booktitle={International Conference on Machine Learning},\n  pages={97--105},\n  year={2015}\n}"
        ),
        when="Both domains at hand, the same classes in similar proportions, batches of 64 or more of each. Steadier than a "
        "critic: nothing plays against anything.",
        fails="Class proportions that differ. Small batches: the biased estimate of equal distributions grows as their size "
        "shrinks. Domains that differ in what a mean over pairs does not see.",
        deviations=(
            "The quadratic estimator over all pairs of a batch; the paper's linear-time one uses each sample once and "
            "is noisier.",
            "All kernels weigh the same, as in the authors' released code; the paper learns their weights by a quadratic "
            "programme. Their widths follow the batch's mean squared distance, through which no gradient flows.",
            "Layers are the network's features and logits; the paper's AlexNet has three such layers (fc6 to fc8).",
            "lambda_p ramps up as in the authors' later code for PyTorch; the paper's weight is constant (ramp=False) and "
            "chosen by source error and a two-sample test.",
            "Two forward passes with a BatchNorm policy; the paper's network has no BatchNorm.",
            "Learning rate .01 for all layers, unless the network scales some; the authors' is .001, ten times that if new.",
            "With several processes each compares its own rows of the batch.",
        ),
        tasks=("classification",),
    )

    class Settings(Aligned.Settings):
        kernels: int = Field(5, ge=1)
        layers: tuple[Layer, ...] = Field(("features", "logits"), min_length=1)

    settings: Settings

    def gap(self, s: Output, t: Output) -> Tensor:
        pairs = [(self.activations(s, layer), self.activations(t, layer)) for layer in self.settings.layers]
        return torch.stack([multi_kernel_mmd(fs, ft, self.settings.kernels) for fs, ft in pairs]).sum()
