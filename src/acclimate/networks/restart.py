"""A network as it was before it learnt anything."""

from __future__ import annotations

import copy

from acclimate import networks
from acclimate.errors import UsageError
from acclimate.networks.contract import Network


def restarted(net: Network) -> Network:
    """A copy with new random weights, drawn from torch's global generator: as :func:`acclimate.networks.build` makes
    it, or, for a network made by hand, by each layer's own ``reset_parameters``.

    Raises :class:`UsageError` if a layer of the latter has weights or statistics and does not know how to begin.
    """
    fresh = copy.deepcopy(net)
    if net.recipe is not None:
        made = networks.build(net.recipe["name"], **net.recipe["settings"])
        fresh.load_state_dict(made.state_dict())
        return fresh
    for name, layer in fresh.module.named_modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        elif [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            raise UsageError(
                f"{name or type(layer).__name__} cannot begin afresh; give {type(layer).__name__} a function reset_parameters"
            )
    return fresh
