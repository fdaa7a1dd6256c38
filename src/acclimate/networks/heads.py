"""Further heads like a network's own."""

from __future__ import annotations

import copy

import torch
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks.contract import Network, _Keep


def fresh_head(net: Network) -> nn.Module:
    """A module built like ``net.head``, with weights drawn anew from torch's global generator; features to logits.

    Raises :class:`UsageError` where a weight cannot be drawn anew: two equal heads would always agree.
    """
    head = copy.deepcopy(net.head)
    for module in head.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(hook, _Keep):  # the copy reads for no network; it would keep whole graphs alive
                    del hooks[number]
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    for (name, mine), theirs in zip(head.named_parameters(), net.head.parameters()):
        if mine.ndim > 1 and torch.equal(mine, theirs):
            raise UsageError(
                f"the head {net.head_name!r} cannot be drawn anew: give the module that holds {name!r} a function "
                "reset_parameters(), or choose a head of torch's own layers"
            )
    return head
