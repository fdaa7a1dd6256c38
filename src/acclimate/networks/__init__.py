"""Networks by name, and the contract that makes any module usable."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from acclimate import registry
from acclimate.errors import UsageError, nearest
from acclimate.networks.card import NetworkCard
from acclimate.networks.contract import Network, Output

__all__ = ["Network", "NetworkCard", "Output", "build", "card"]


def build(
    name: str, *, classes: int, channels: int = 3, size: int | Sequence[int] | None = None, **settings: Any
) -> Network:
    """The registered network ``name`` for ``classes`` classes and images ``(N, channels, H, W)``.

    Args:
        name: one of ``registry.names("networks")``.
        size: side of the images, or ``(height, width)``; default: what the network was made for.
        settings: further settings of that network.

    The result's ``recipe`` holds all settings, defaults included: ``build(recipe["name"], **recipe["settings"])`` makes
    the same architecture again. Raises :class:`UsageError` for an unknown name or setting, naming the nearest one.
    """
    factory = registry.load("networks", name)
    known = inspect.signature(factory).parameters
    for setting in settings:
        if setting not in known:
            raise UsageError(
                f"unknown setting {setting!r} of network {name!r}{nearest(setting, known)} (known: {', '.join(known)})"
            )
    if classes < 1 or channels < 1:
        raise UsageError(f"network {name!r} needs at least one class and one channel, not {classes} and {channels}")
    if size is None:
        size = factory.card.size
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or min(size) < 1:
        raise UsageError(f"size is a side in pixels or (height, width), not {size}")
    settings = {"classes": classes, "channels": channels, "size": size, **settings}
    net: Network = factory(**settings)
    if net.recipe is None:
        defaults = {key: parameter.default for key, parameter in known.items()}
        net.recipe = {"name": name, "settings": {**defaults, **settings, "size": list(size)}}
    return net


def card(name: str) -> NetworkCard:
    """Task, image size and a one-line summary of the registered network ``name``."""
    return registry.load("networks", name).card
