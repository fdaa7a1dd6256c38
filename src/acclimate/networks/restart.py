"""A network as it was before it learnt anything."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from acclimate.errors import UsageError

Module = TypeVar("Module", bound=nn.Module)


def restarted(module: Module) -> Module:
    """A copy with new random weights, drawn by each layer's own ``reset_parameters`` from torch's global generator.

    Raises :class:`UsageError` if a layer has weights or statistics and does not know how to begin.
    """
    fresh = copy.deepcopy(module)
    for name, layer in fresh.named_modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        elif [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            raise UsageError(
                f"{name or type(layer).__name__} cannot begin afresh; give {type(layer).__name__} a function reset_parameters"
            )
    return fresh
