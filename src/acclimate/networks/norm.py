"""BatchNorm is part of a method: which statistics normalise, and which domain moves the running ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from acclimate.networks.contract import Network, Output
from acclimate.networks.statistics import (
    LayerChange,
    Layers,
    Mode,
    Moments,
    batch_norms,
    call_order,
    check,
    compare,
    measure,
    recommended_prior,
    restat,
    schneider_bound,
    set_statistics,
    statistics,
)

__all__ = [
    "LayerChange",
    "Layers",
    "Mode",
    "Moments",
    "NormPolicy",
    "batch_norms",
    "both",
    "call_order",
    "check",
    "compare",
    "frozen",
    "held",
    "measure",
    "recommended_prior",
    "restat",
    "schneider_bound",
    "set_statistics",
    "statistics",
]

NormPolicy = Literal["joint", "separate", "target", "source", "frozen"]
"""How two domains pass through BatchNorm in one training step.

``joint``: one batch that mixes both. ``separate``: two passes, both move the running statistics. ``target`` or
``source``: two passes, each normalised with its own batch statistics; only that domain moves the running ones.
``frozen``: the running statistics normalise and nobody moves them.
"""


@contextlib.contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Normalise with batch statistics but leave the running ones as they are."""
    layers = [layer for _, layer in batch_norms(module)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Normalise with the running statistics and leave them as they are; the rest of the module stays in its mode."""
    layers = [layer for _, layer in batch_norms(module)]
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes):
            layer.train(mode)


def both(net: Network, xs: Tensor, xt: Tensor, policy: NormPolicy) -> tuple[Output, Output]:
    """Pass ``(N, C, H, W)`` and ``(M, C, H, W)`` through ``net`` under ``policy``.

    Where the result cannot depend on who shares the batch (no BatchNorm, or frozen), one pass serves both: it is faster.
    """
    if policy == "frozen":
        with frozen(net):
            return _together(net, xs, xt)
    if policy == "joint" or (not batch_norms(net) and xs.shape[1:] == xt.shape[1:]):
        return _together(net, xs, xt)
    with held(net) if policy == "target" else contextlib.nullcontext():
        source = net(xs)
    with held(net) if policy == "source" else contextlib.nullcontext():
        target = net(xt)
    return source, target


def _together(net: Network, xs: Tensor, xt: Tensor) -> tuple[Output, Output]:
    logits, features, taps = net(torch.cat([xs, xt]))
    n = len(xs)
    source = Output(logits[:n], features[:n], {name: value[:n] for name, value in taps.items()})
    return source, Output(logits[n:], features[n:], {name: value[n:] for name, value in taps.items()})
