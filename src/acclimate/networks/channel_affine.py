"""Per-channel matching of activations, carried by the state that layers have anyway: no new layer, no hook, no new name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from acclimate.errors import UsageError, nearest
from acclimate.networks.contract import Network
from acclimate.networks.statistics import Moments, moments_of, pooled

EPSILON = 1e-5  # added to variances, as BatchNorm does


def channels(net: nn.Module, name: str) -> int:
    """How many channels the layer's activations have."""
    layer: Any = net.get_submodule(name)
    return layer.num_features if isinstance(layer, _BatchNorm) else len(layer.bias)


def matchable_layers(net: Network, layers: Sequence[str] | None = None) -> list[str]:
    """The layers whose activations can be scaled and shifted per channel by their own state, in the order of first calls.

    BatchNorm is one by its running statistics; convolutions, dense layers, GroupNorm and LayerNorm are by weight and bias.
    Left out are the layer that gives the logits, layers without a bias, and layers whose output enters BatchNorm at once:
    what BatchNorm does matches it too, in training mode it would undo any such change before it.

    Args:
        layers: names or prefixes as in ``net.named_modules()``, whose ``module.`` may be left out; None: all.

    Raises :class:`UsageError` if none is left, or a name fits none.
    """
    calls, shadowed = _trial(net)
    order = list(dict.fromkeys(calls))
    head = [name for name in order if f"{name}.".startswith(f"module.{net.head_name}.")]
    able = [name for name in order if name not in (*shadowed, *head[-1:]) and _able(net.get_submodule(name))]
    if not able:
        raise UsageError(
            "this network has no layer with a bias or with running statistics before its logits, so there is nothing "
            "to match; choose a method that trains, such as dann (acclimate methods)"
        )
    if layers is None:
        return able
    chosen: set[str] = set()
    for wanted in layers:
        found = {name for name in able if f"{name}.".startswith((f"{wanted}.", f"module.{wanted}."))}
        if not found:
            raise UsageError(
                f"no layer that can be matched is named or begins with {wanted!r}{nearest(wanted, able)} "
                f"(layers: {', '.join(able)})"
            )
        chosen |= found
    return [name for name in able if name in chosen]


@torch.no_grad()
def measure_activations(
    net: Network,
    batches: Iterable[Tensor],
    layers: Sequence[str],
    total: Callable[[Tensor], Tensor] = lambda value: value,
    like: Mapping[str, Moments] | None = None,
) -> dict[str, Moments]:
    """The moments of the named layers' activations over all ``batches``; ``net`` stays as it is.

    The activations of BatchNorm are its input, those of other layers their output. Where a layer is called more than once,
    all calls count, and a match, which changes the input of later ones, is approximate. Layers are in evaluation mode, and
    a pass ends at the last of them.

    Args:
        total: sums a tensor over all processes.
        like: meanwhile bring every batch to these moments, by its own, so that later layers see matched activations.

    Raises :class:`UsageError` without an image.
    """
    found = {name: _nothing(net, name) for name in layers}
    waiting: list[str] = []

    def look(name: str, x: Tensor) -> Tensor | None:
        last = _channels_last(net.get_submodule(name))
        a = x.movedim(-1, 1) if last else x
        batch = moments_of(a)
        found[name] = pooled(found[name], batch)
        waiting.remove(name)
        if not waiting:
            raise _Reached
        if like is None:
            return None
        scale = _scale(like[name], batch)
        shape = [1, -1] + [1] * (a.ndim - 2)
        matched = (a - batch.mean.view(shape)) * scale.view(shape) + like[name].mean.view(shape)
        return (matched.movedim(1, -1) if last else matched).to(x.dtype)

    calls = [name for name in _trial(net)[0] if name in layers]
    with _watched(net, layers, look):
        for x in batches:
            if len(x):  # a process may have no share
                waiting[:] = calls
                with contextlib.suppress(_Reached):
                    net.forward(x)  # compiled code need not run hooks registered after its first trace
    return {name: _over_processes(moments, total) for name, moments in found.items()}


@torch.no_grad()
def match(net: nn.Module, name: str, source: Moments, target: Moments) -> None:
    """Change the layer's state so that its activations A become sigma_s (A - mu_t) / sigma_t + mu_s, in each channel.

    A convolution or dense layer A = W x + b gets r W and r (b - mu_t) + mu_s, r = sigma_s / sigma_t. BatchNorm, which
    normalises by m and v, gets mu_t - (mu_s - m) / r and v / r^2: where m and v are the source's moments, the target's.
    """
    layer: Any = net.get_submodule(name)
    r = _scale(source, target, getattr(layer, "eps", EPSILON))
    if isinstance(layer, _BatchNorm):
        mean, variance = layer.running_mean.double(), layer.running_var.double()  # type: ignore[union-attr]
        layer.running_mean.copy_(target.mean - (source.mean - mean) / r)  # type: ignore[union-attr]
        layer.running_var.copy_(((variance + layer.eps) / r.square() - layer.eps).clamp_min(0))  # type: ignore[union-attr]
        return
    shape = [1] * layer.weight.ndim
    shape[_weight_axis(layer)] = -1
    layer.weight.copy_(layer.weight.double() * r.view(shape))
    layer.bias.copy_(r * (layer.bias.double() - target.mean) + source.mean)


# -- layers and their channels ----------------------------------------------------------------------------------------


def _able(layer: Any) -> bool:
    """Whether running statistics, or a weight and a bias of its own (not a parametrisation's), can carry the change."""
    if isinstance(layer, _BatchNorm):
        return layer.running_mean is not None
    weight, bias = (layer._parameters.get(name) for name in ("weight", "bias"))
    return weight is not None and bias is not None and weight.shape[_weight_axis(layer)] == bias.numel()


def _weight_axis(layer: nn.Module) -> int:
    return 1 if isinstance(layer, _ConvTransposeNd) else 0


def _channels_last(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Linear, nn.LayerNorm))


def _nothing(net: nn.Module, name: str) -> Moments:
    zeros = torch.zeros(channels(net, name), dtype=torch.float64, device=next(net.parameters()).device)
    return Moments(zeros, zeros, 0)


def _scale(source: Moments, target: Moments, epsilon: float = EPSILON) -> Tensor:
    """sigma_s / sigma_t per channel; epsilon keeps a channel that is silent on the target from growing without bound."""
    return ((source.running().double() + epsilon) / (target.running().double() + epsilon)).sqrt()


def _over_processes(mine: Moments, total: Callable[[Tensor], Tensor]) -> Moments:
    count = total(mine.mean.new_tensor(mine.count))
    if not count:
        raise UsageError("there is no image to take statistics from; give batches, not an iterator that is used up")
    mean = total(mine.count * mine.mean) / count
    return Moments(mean, total(mine.count * (mine.variance + (mine.mean - mean).square())) / count, count.item())


@torch.no_grad()
def _trial(net: Network) -> tuple[list[str], set[str]]:
    """The layers in the order of all their calls, by a pass of zeros, and those whose output enters BatchNorm at once."""
    kinds = (_BatchNorm, _ConvNd, nn.Linear, nn.GroupNorm, nn.LayerNorm)
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, kinds)}
    calls: list[str] = []
    shadowed: set[str] = set()
    given: list[tuple[str, Tensor, int]] = []  # outputs stay alive, so that no later tensor takes their place in memory

    def look(name: str, x: Tensor) -> None:
        calls.append(name)
        if not isinstance(layers[name], _BatchNorm):
            given.append((name, x, x._version))
            return
        for before, output, version in given:
            # The version tells a tensor that an operation has changed in place.
            if (output.data_ptr(), output.shape, version) == (x.data_ptr(), x.shape, x._version):
                shadowed.add(before)

    parameter = next(net.parameters())
    with _watched(net, layers, look):
        net.forward(torch.zeros(1, *net.input_shape, device=parameter.device, dtype=parameter.dtype))
    return calls, shadowed


# -- passes -----------------------------------------------------------------------------------------------------------

Look = Callable[[str, Tensor], Tensor | None]


class _Reached(Exception):
    """All layers of interest have been seen: the rest of the forward pass is of no use."""


@contextlib.contextmanager
def _watched(net: nn.Module, names: Iterable[str], look: Look) -> Iterator[None]:
    """In eval mode, ``look(name, activations)`` sees those of each named layer and may give others instead."""

    def hook(name: str) -> Any:
        if isinstance(net.get_submodule(name), _BatchNorm):
            return lambda layer, inputs: look(name, inputs[0])
        return lambda layer, inputs, output: look(name, output)

    handles = []
    for name in names:
        layer = net.get_submodule(name)
        before = isinstance(layer, _BatchNorm)
        handles.append((layer.register_forward_pre_hook if before else layer.register_forward_hook)(hook(name)))
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        if isinstance(net, Network):
            net._kept.clear()  # a pass that was cut short leaves activations behind
