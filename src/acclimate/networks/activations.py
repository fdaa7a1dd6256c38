"""What the BatchNorm layers of a network give: the places at which two domains are compared."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from acclimate.errors import UsageError, unknown
from acclimate.networks.norm import batch_norms
from acclimate.random import generator


class Activations(NamedTuple):
    """A layer's outputs at some positions of some images."""

    values: Tensor  # (n, C) float32 on the CPU
    images: Tensor  # (n,) which image each row comes from


@contextlib.contextmanager
def watched(modules: Iterable[tuple[str, nn.Module]], look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``look(name, output)`` whenever one of the named modules has run."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _module, _inputs, output: look(name, output.detach())

    handles = [module.register_forward_hook(hook(name)) for name, module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def activations(
    net: nn.Module,
    batches: Iterable[Tensor],
    *,
    layers: Sequence[str] | None = None,
    positions: int | None = 16,
    seed: int = 0,
    outputs: Callable[[Any], None] | None = None,
) -> dict[str, Activations]:
    """The outputs of BatchNorm layers, before any ReLU, with the network in evaluation mode.

    After a ReLU the distributions have a spike at zero that breaks Gaussian distances.

    Args:
        net: any module.
        batches: images ``(N, C, H, W)``.
        layers: names; default: all BatchNorm layers with running statistics.
        positions: how many positions of each image are kept, the same number for all, drawn at random without
            replacement (all where a map has fewer); None: the mean over all positions, one row an image.
        seed: of the positions. Images of two domains see different positions where seeds differ.
        outputs: called with what the network gives for each batch, so that one pass serves both.

    Returns a mapping from layer name, in the order of definition, to :class:`Activations`.
    Raises :class:`UsageError` for a network without BatchNorm or an unknown layer.
    """
    found = dict(batch_norms(net))
    if not found:
        raise UsageError("this network has no BatchNorm with running statistics, so there is no layer to compare at")
    for name in layers or ():
        if name not in found:
            raise unknown("BatchNorm layer", name, found)
    chosen = {name: found[name] for name in (layers or found)}
    kept: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in chosen}
    draws = {name: generator("positions", seed, name) for name in chosen}
    seen = 0

    def look(name: str, output: Tensor) -> None:
        flat = output.flatten(2).float() if output.ndim > 2 else output.float()[..., None]
        n, _, places = flat.shape
        if positions is None:
            rows = flat.mean(2, keepdim=True)
        else:
            count = min(positions, places)
            # Ranks of uniform numbers: distinct positions, drawn per image.
            at = torch.rand(n, places, generator=draws[name]).topk(count, dim=1).indices.to(flat.device)
            rows = flat.gather(2, at[:, None, :].expand(-1, flat.shape[1], -1))
        which = torch.arange(seen, seen + n).repeat_interleave(rows.shape[2])
        kept[name].append((rows.transpose(1, 2).flatten(0, 1).cpu(), which))

    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with watched(chosen.items(), look):
            for x in batches:
                given = net.forward(x)  # not net(x): compiled code need not run hooks registered after its first trace
                seen += len(x)
                if outputs is not None:
                    outputs(given)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {
        name: Activations(torch.cat([values for values, _ in parts]), torch.cat([images for _, images in parts]))
        for name, parts in kept.items()
        if parts
    }
