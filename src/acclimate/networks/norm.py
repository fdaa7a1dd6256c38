"""BatchNorm is part of a method: which statistics normalise, and which domain moves the running ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.errors import UsageError
from acclimate.networks.contract import Network, Output

NormPolicy = Literal["joint", "separate", "target", "source", "frozen"]
"""How two domains pass through BatchNorm in one training step.

``joint``: one batch that mixes both. ``separate``: two passes, both move the running statistics. ``target`` or
``source``: two passes, each normalised with its own batch statistics; only that domain moves the running ones.
``frozen``: the running statistics normalise and nobody moves them.
"""


def batch_norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """The BatchNorm layers (SyncBatchNorm included) that keep running statistics, with their names, in order."""
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]


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


@torch.no_grad()
def restat(net: nn.Module, batches: Iterable[Tensor], total: Callable[[Tensor], Tensor] = lambda value: value) -> None:
    """Replace every BatchNorm's running mean and variance by the moments of its input over all ``batches``.

    Moments are pooled over all images and positions, mu = sum x / n and sigma^2 = sum x^2 / n - mu^2, each batch weighing
    as much as it has values, so the variance between batches counts (``momentum=None`` averages the variances of batches
    and loses it). During the pass a layer sees the layers before it normalised with their batch's own statistics.

    Args:
        net: any module; scales and shifts stay as they are.
        batches: images ``(N, C, H, W)``.
        total: sums a tensor over all processes.

    Raises :class:`UsageError` if the network has no BatchNorm with running statistics.
    """
    layers = batch_norms(net)
    if not layers:
        raise UsageError(
            "this network has no BatchNorm with running statistics, so there is nothing to re-estimate; "
            "choose a method that trains (acclimate methods) or a network with BatchNorm"
        )
    device = next(net.parameters()).device
    sums = {name: torch.zeros(3, layer.num_features, dtype=torch.float64, device=device) for name, layer in layers}

    def moments(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().float()
            variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
            mean, variance, n = mean.double(), variance.double(), x.numel() // x.shape[1]
            sums[name] += torch.stack([torch.full_like(mean, n), n * mean, n * (variance + mean.square())])

        return hook

    hooks = [layer.register_forward_pre_hook(moments(name)) for name, layer in layers]
    modes = {module: module.training for module in net.modules()}
    net.eval()
    for _, layer in layers:
        layer.train()
    try:
        with held(net):
            for x in batches:
                net.forward(x)  # not net(x): compiled code need not run hooks registered after its first trace
    finally:
        for handle in hooks:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    for name, layer in layers:
        n, first, second = total(sums[name])
        if not n.any():
            continue  # a layer that this mode never calls (an auxiliary head) keeps its statistics
        mean = first / n
        layer.running_mean.copy_(mean)  # type: ignore[union-attr]
        layer.running_var.copy_((second / n - mean.square()).clamp_min(0) * n / (n - 1).clamp_min(1))  # type: ignore[union-attr]
