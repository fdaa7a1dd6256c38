"""Optimisers per player, their schedules, and their state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.errors import UsageError
from acclimate.networks.contract import Network
from acclimate.plan import Optimiser

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "dann": lambda p: (1 + 10 * p) ** -0.75,
    "poly": lambda p: (1 - p) ** 0.9,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
}


UNSCALED: Mapping[int, float] = MappingProxyType({})


def factor(settings: Optimiser, fraction: float) -> float:
    """What the learning rate is multiplied by at the progress p in [0, 1) of a stage."""
    rise = min(1.0, fraction / settings.warmup) if settings.warmup else 1.0
    return rise * SCHEDULES[settings.schedule](fraction)


def lr_scales(module: nn.Module) -> dict[int, float]:
    """By a parameter's ``id``: what the networks inside ``module`` multiply its learning rate by."""
    return {
        id(p): scale
        for net in module.modules()
        if isinstance(net, Network)
        for name, scale in net.lr_scales.items()
        for p in net.module.get_submodule(name).parameters()
    }


def groups(player: Any, scales: Mapping[int, float] = UNSCALED) -> list[dict[str, Any]]:
    """A player as parameter groups of those parameters that may move, a group for each learning rate.

    ``scales`` are those of :func:`lr_scales`; a group's own ``lr_scale`` multiplies them.
    """
    if isinstance(player, nn.Module):
        player = list(player.parameters())
    listed = list(player)
    if listed and not isinstance(listed[0], Mapping):
        listed = [{"params": listed}]
    chosen: dict[tuple[int, float], list[nn.Parameter]] = {}
    for place, group in enumerate(listed):
        for p in group["params"]:
            if p.requires_grad:
                scale = group.get("lr_scale", 1.0) * scales.get(id(p), 1.0)
                chosen.setdefault((place, scale), []).append(p)
    return [{**listed[place], "params": params, "lr_scale": scale} for (place, scale), params in chosen.items()]


class PlayerOptimiser:
    """One player's parameters with a fused optimiser, whose step a device flag can turn into a no-op.

    State is made here, not at the first step: a fused SGD that skips its first step would leave its momentum undefined.
    """

    def __init__(self, player: Any, settings: Optimiser, scales: Mapping[int, float] = UNSCALED) -> None:
        self.settings = settings
        listed = groups(player, scales)
        self.parameters: list[nn.Parameter] = [p for group in listed for p in group["params"]]
        for group in listed:
            group["scale"] = group.pop("lr_scale")
        shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
        self.optimiser: torch.optim.Optimizer
        if settings.kind == "sgd":
            self.optimiser = torch.optim.SGD(listed, momentum=settings.momentum, **shared)
        else:
            kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
            self.optimiser = kinds[settings.kind](listed, betas=settings.betas, **shared)
        for p in self.parameters:
            state = self.optimiser.state[p]
            if settings.kind == "sgd":
                if settings.momentum:
                    state["momentum_buffer"] = torch.zeros_like(p)
            else:
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)

    def gradients(self) -> list[Tensor]:
        """Of those parameters that got one in the last backward pass."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def schedule(self, fraction: float) -> None:
        """Set the learning rates for the progress p of the stage."""
        rate = self.settings.lr * factor(self.settings, fraction)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]

    def step(self, skip: Tensor) -> None:
        """Step unless the device scalar ``skip`` is 1."""
        self.optimiser.found_inf = skip  # type: ignore[attr-defined]  # what torch's own gradient scaler sets
        self.optimiser.step()

    def state(self) -> dict[str, Tensor]:
        """All state tensors as ``"parameter number/name"``."""
        return {
            f"{i}/{name}": value
            for i, p in enumerate(self.parameters)
            for name, value in self.optimiser.state[p].items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy values into the state, keeping each tensor's own strides."""
        mine = self.state()
        if mine.keys() != state.keys():
            raise UsageError(f"the optimiser's saved state has other entries: {sorted(mine.keys() ^ state.keys())[:4]}")
        for name, tensor in mine.items():
            tensor.copy_(state[name])


def check_disjoint(players: Mapping[str, Sequence[nn.Parameter]]) -> None:
    """Raise :class:`UsageError` if two players share a parameter: both would move it."""
    owner: dict[int, str] = {}
    for name, parameters in players.items():
        for p in parameters:
            if owner.setdefault(id(p), name) != name:
                raise UsageError(f"players {owner[id(p)]!r} and {name!r} share a parameter of shape {tuple(p.shape)}")


def make(
    players: Mapping[str, Any],
    default: Optimiser,
    own: Mapping[str, Optimiser],
    scales: Mapping[int, float] = UNSCALED,
) -> dict[str, PlayerOptimiser]:
    """One optimiser per player: the stage's own where it names one, else the default; ``scales`` as in :func:`groups`."""
    if strange := own.keys() - players.keys():
        raise UsageError(f"a stage names an optimiser for {sorted(strange)}, which are not players")
    made = {
        name: PlayerOptimiser(player, own.get(name, default), scales)
        for name, player in players.items()
        if groups(player)
    }
    check_disjoint({name: optimiser.parameters for name, optimiser in made.items()})
    return made
