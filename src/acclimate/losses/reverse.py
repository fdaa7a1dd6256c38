"""The gradient-reversal layer and its ramp."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * -ctx.weight, None


def reverse(x: Tensor, weight: float = 1.0) -> Tensor:
    """R(x) = x with dR/dx = -weight I (Ganin et al., JMLR 2016, eq. 16-17); any shape."""
    return _Reverse.apply(x, weight)


def dann_ramp(fraction: float, gamma: float = 10.0) -> float:
    """2 / (1 + exp(-gamma p)) - 1, from 0 to almost 1 with the progress p (Ganin et al., JMLR 2016, section 5.2.2)."""
    return 2 / (1 + math.exp(-gamma * fraction)) - 1
