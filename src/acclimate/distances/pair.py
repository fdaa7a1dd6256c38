"""What every distance asks of its two sets of activations."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.errors import UsageError


def rows(x: Tensor, name: str = "x") -> Tensor:
    """``x`` as a detached ``(n, d)`` float64 matrix.

    Raises :class:`UsageError` unless ``x`` is a finite floating-point matrix with at least 2 rows and 1 column.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise UsageError(
            f"{name} must be a floating-point matrix (rows, channels), not {tuple(x.shape)} {x.dtype}; "
            "move the channels last and flatten the positions"
        )
    if len(x) < 2 or x.shape[1] < 1:
        raise UsageError(f"{name} has shape {tuple(x.shape)}; give at least 2 rows and 1 channel")
    x = x.detach().to(torch.float64)
    if not x.isfinite().all():
        raise UsageError(f"{name} holds values that are not finite; remove those rows first")
    return x


def pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as float64 matrices on the device of ``x``.

    Raises :class:`UsageError` as :func:`rows` does, and where the numbers of channels differ.
    """
    if x.ndim == y.ndim == 2 and x.shape[1] != y.shape[1]:
        raise UsageError(f"x has {x.shape[1]} channels and y has {y.shape[1]}; take both from the same layer")
    return rows(x), rows(y, "y").to(x.device)
