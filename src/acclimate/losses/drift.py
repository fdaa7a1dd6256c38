"""How far weights have moved."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


def weight_drift(of: nn.Module, reference: nn.Module, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """Squared distance of two modules' weights, sum_v reduce((theta_v - ref_v)^2) over their parameters v.

    Args:
        of: the module that learns.
        reference: a module of the same structure; no gradient reaches it.
        reduction: inside one parameter: ``"sum"`` gives ||theta - ref||^2 (3C-GAN, Li et al., CVPR 2020); ``"mean"``
            weighs small and large layers alike (released code of Huang et al., ECCV 2018).
    """
    pairs = zip(of.parameters(), reference.parameters(), strict=True)
    squares = [(mine - theirs.detach()).square() for mine, theirs in pairs]
    return torch.stack([square.sum() if reduction == "sum" else square.mean() for square in squares]).sum()
