"""Deep CORAL: source and target activations with the same covariance."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from acclimate.losses import coral
from acclimate.methods.aligned import Aligned, Layer
from acclimate.methods.base import Card
from acclimate.networks.contract import Output
from acclimate.plan import Optimiser


class DeepCORAL(Aligned):
    """Deep CORAL (Sun & Saenko, ECCV workshops 2016, eq. 1-3 and 6).

    min_theta E_s CE(f(x_s), y_s) + w sum_l ||C_s - C_t||_F^2 / (4 d^2) over the layers l, with the covariances C of their
    d activations in the batch.
    """

    name = "deep-coral"
    optimiser = Optimiser(lr=0.01, weight_decay=5e-4, schedule="dann")
    card = Card(
        title="Deep correlation alignment",
        paper="Sun & Saenko, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, ECCV workshops 2016",
        year=2016,
        bibtex=(
            "@inproceedings{sun2016deepcoral,\n  title={Deep {CORAL}: Correlation Alignment for Deep Domain Adaptation},\n"
            "  author={Sun, Baochen and Saenko, Kate},\n  booktitle={ECCV Workshops},\n  pages={443--450},\n  year={2016}\n}"
        ),
        when="A small shift, or a first try beside AdaBN: the loss is cheap and has nothing to tune but its weight.",
        fails="Domains that differ in means or in more than second moments; class proportions that differ. Batches smaller than "
        "the number of activations give covariances that are mostly noise.",
        deviations=(
            "The paper asks for a weight with which both losses end about equal, and gives no number. weight=1 comes from that "
            "rule on logits: cross-entropy 0.28 and gap 0.09 after 500 steps of MNIST to USPS (LeNet with BatchNorm). On "
            "features 4 d^2 outgrows the covariances (0.007 there): with layers=('features',) try 10 to 100.",
            "The learning rate is .01 and falls with progress; the authors' is .001, for the new layer ten times that.",
            "Two forward passes with a BatchNorm policy; the paper's AlexNet has no BatchNorm. Part of a gain is then the "
            "statistics' own: compare with weight=0.",
            "With several processes each compares its own rows of the batch.",
        ),
        tasks=("classification",),
    )

    class Settings(Aligned.Settings):
        ramp: bool = False  # the paper's weight is constant
        layers: tuple[Layer, ...] = Field(("logits",), min_length=1)  # the paper's fc8

    settings: Settings

    def gap(self, s: Output, t: Output) -> Tensor:
        pairs = [(self.activations(s, layer), self.activations(t, layer)) for layer in self.settings.layers]
        return torch.stack([coral(fs, ft) for fs, ft in pairs]).sum()
