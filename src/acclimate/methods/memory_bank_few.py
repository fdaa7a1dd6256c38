"""Pixel contrast with a class-wise memory, as its paper has it: with a few labelled target images."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.data.streams import Batch
from acclimate.methods.base import Card, Need, Progress
from acclimate.methods.memory_bank import MemoryBank
from acclimate.networks.contract import Output
from acclimate.networks.norm import both


class MemoryBankFew(MemoryBank):
    """Semi-supervised contrast with a class-wise memory (Alonso et al., ICCV 2021, section 3), with labels (x_l, y_l).

    As memory-bank, y = argmax g(x_t), with the labelled target images in the source's place where the memory is concerned:
    min [CE(f(x_s), y_s) + CE(f(x_l), y_l)] / 2 + r E[c^6 CE(f(x_t), y)] + entropy * H(f(x_t))
        + contrast * [L(x_l, y_l) + L(x_t, y)]
    The memory is filled from the pixels of x_l of which the teacher is sure (``confidence``) and right.
    """

    name = "memory-bank-few"
    needs = Need.SOURCE | Need.TARGET | Need.FEW_TARGET_LABELS
    streams = ("source", "target", "labelled")
    card = Card(
        title="Pixel contrast with a class-wise memory, with a few target labels",
        paper=MemoryBank.card.paper,
        year=MemoryBank.card.year,
        bibtex=MemoryBank.card.bibtex,
        when="Some target images are labelled (the paper: 100 to 1,000 street scenes), beside a labelled source and many "
        "target images without labels.",
        fails="Labelled images that lack a class: nothing of it enters the memory. Compare with training on the source and "
        "the labelled images alone, from which part of any gain comes.",
        deviations=(
            "1. Source and labelled target images are both in every step and weigh the same; the authors take turns.",
            "2. At most max(1, round(size / images)) vectors of an image and class enter the memory; the authors' code "
            "keeps as many times the batch of the whole batch. Set images to the number of labelled images.",
            *MemoryBank.card.deviations[1:],
        ),
        tasks=("segmentation",),
    )

    def step(self, source: Batch, target: Batch, labelled: Batch, at: Progress) -> dict[str, Tensor]:  # type: ignore[override]
        images = torch.cat([labelled.x, target.views["strong"]])  # one domain, one batch for BatchNorm
        s, out = both(self.net, source.x, images, self.settings.norm)
        n = len(labelled.x)
        known, t = (Output(out.logits[i], out.features[i], {}) for i in (slice(n), slice(n, None)))
        self.bank.remember(self.teacher(labelled.x), labelled.y)
        supervised = (self.task.loss(s.logits, source.y) + self.task.loss(known.logits, labelled.y)) / 2
        return self.learn(supervised, (known, labelled.y), t, self.teacher(target.x), at)
