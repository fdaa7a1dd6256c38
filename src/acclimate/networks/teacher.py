"""A copy of a network that labels what the network learns from."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from acclimate.networks.contract import Network, Output
from acclimate.networks.norm import batch_norms, held

Known = tuple[Output, Tensor]
"""What a network makes of images, and the labels that go with it."""


class Taught(NamedTuple):
    """What a teacher says of images."""

    out: Output
    label: Tensor  # (N, *)
    sure: Tensor  # (N, *), the probability of each label


class Teacher(nn.Module):
    """A copy of ``net``, without gradients; let the engine move it as an average of the network's weights.

    While the method trains, dropout rests and BatchNorm normalises each batch by its own statistics, or by the running ones
    where ``frozen``. Its passes move no running statistics.
    """

    def __init__(self, net: Network, frozen: bool = False) -> None:
        super().__init__()
        self.net, self.frozen = copy.deepcopy(net).requires_grad_(False), frozen

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)
        for _, layer in batch_norms(self.net):
            layer.train(mode and not self.frozen)
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Taught:
        """Output and labels of images ``(N, C, H, W)``."""
        with held(self.net):
            out = self.net(x)
        sure, label = out.logits.float().softmax(1).max(1)
        return Taught(out, label, sure)
