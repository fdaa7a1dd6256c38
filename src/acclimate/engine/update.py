"""The only place where weights change, and the guard that keeps non-finite values out of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from acclimate.engine.optimisers import PlayerOptimiser
from acclimate.engine.world import World
from acclimate.errors import UsageError

_GROWTH_INTERVAL, _MOST_SKIPS = 2000, 50


@dataclasses.dataclass(frozen=True)
class Failure:
    """The first value that was not finite."""

    step: int
    players: tuple[str, ...]
    term: str


class Updater:
    """Carries out ``Method.update``: backward for the named players, reduction over processes, guard, clipping, step.

    Everything stays on the device. A non-finite term or gradient latches a flag; from then on every step is a no-op, so
    the weights are those before the first bad step. The host reads the flag with :meth:`read`.
    """

    def __init__(self, device: torch.device, world: World, clip: float | None, half: bool) -> None:
        self.device, self.world, self.clip = device, world, clip
        self.optimisers: dict[str, PlayerOptimiser] = {}
        self.failed = torch.zeros((), device=device)
        self.first = torch.full((3,), -1, dtype=torch.int64, device=device)  # step, site, term
        self.step, self.call = 0, 0
        self.sites: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}  # (players, terms) seen so far, numbered
        self._vectors: dict[tuple[str, ...], list[Tensor]] = {}
        self.half = half  # float16 needs a scaled loss
        self.scale = torch.full((), 2.0**16, device=device)
        self.growth = torch.zeros((), dtype=torch.int32, device=device)
        self.skips = torch.zeros((), device=device)

    def begin(self, step: int) -> None:
        """Before each step of a stage."""
        self.step, self.call = step, 0

    def update(self, terms: Mapping[str, Tensor], players: Sequence[str]) -> None:
        """See :meth:`acclimate.methods.base.Method.update`."""
        unknown = [name for name in players if name not in self.optimisers]
        if unknown or not players or not terms:
            raise UsageError(
                f"update needs terms and players of this method; got players {list(players)}, terms {list(terms)} "
                f"(players: {', '.join(self.optimisers)})"
            )
        moving = [self.optimisers[name] for name in players]
        parameters = [p for optimiser in moving for p in optimiser.parameters]
        for p in parameters:
            p.grad = None
        names, values = tuple(terms), [term.detach().float() for term in terms.values()]
        total = torch.stack([term.float() for term in terms.values()]).sum()
        if total.requires_grad:
            (total * self.scale if self.half else total).backward(inputs=parameters)
        for name, optimiser in zip(players, moving):
            if all(p.grad is None for p in optimiser.parameters):
                raise UsageError(f"update: player {name!r} got no gradient from {', '.join(names)}")
        gradients = self._gradients(parameters)
        self._guarded_step(moving, gradients, names, values, tuple(players))
        if torch.is_autocast_enabled(self.device.type):
            torch.clear_autocast_cache()  # it holds low-precision copies of the weights that have just moved

    def _gradients(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Gradients with their parameter's strides, averaged over processes in one flat reduction."""
        moved = [p for p in parameters if p.grad is not None]
        if self.world.size > 1:
            flat = torch.cat([p.grad.reshape(-1) for p in moved])  # type: ignore[union-attr]
            flat = self.world.total(flat) / self.world.size
            for p, part in zip(moved, flat.split([p.numel() for p in moved])):
                p.grad.copy_(part.view(p.grad.shape))  # type: ignore[union-attr]
        for p in moved:
            if p.grad.stride() != p.stride():  # type: ignore[union-attr]
                # A fused optimiser walks the memory of both: other strides would permute the values.
                p.grad = torch.empty_like(p).copy_(p.grad)  # type: ignore[arg-type]
        return [p.grad for p in moved]  # type: ignore[misc]

    @torch.no_grad()
    def _guarded_step(
        self,
        moving: Sequence[PlayerOptimiser],
        gradients: list[Tensor],
        names: tuple[str, ...],
        values: list[Tensor],
        players: tuple[str, ...],
    ) -> None:
        if self.half:
            torch._foreach_mul_(gradients, self.scale.reciprocal())
        norms = [torch.stack(torch._foreach_norm(optimiser.gradients())).norm() for optimiser in moving]
        seen = torch.stack([*values, torch.stack(norms).norm()])
        bad = ~torch.isfinite(seen)
        if self.world.size > 1:
            bad = self.world.total(bad.float()) > 0
        overflow = bad[-1]
        if self.half:
            bad = bad.clone()
            self.skips = torch.where(overflow, self.skips + 1, 0)
            bad[-1] = self.skips > _MOST_SKIPS
        now = bad.any()
        site = self.sites.setdefault((players, names), len(self.sites))
        self.call += 1
        fresh = now & (self.failed == 0)
        term = bad.int().argmax()
        self.first = torch.where(
            fresh, torch.stack([term.new_full((), self.step), term.new_full((), site), term]), self.first
        )
        self.failed = torch.maximum(self.failed, now.float())
        if self.clip is not None:
            for optimiser, norm in zip(moving, norms):
                torch._foreach_mul_(optimiser.gradients(), (self.clip / (norm + 1e-6)).clamp_max(1.0))
        skip = torch.maximum(self.failed, overflow.float()) if self.half else self.failed
        for optimiser in moving:
            optimiser.step(skip)
        if self.half:
            torch._amp_update_scale_(self.scale, self.growth, overflow.float(), 2.0, 0.5, _GROWTH_INTERVAL)
        self._add(names, seen[:-1])

    def record(self, metrics: Mapping[str, Tensor]) -> None:
        """Add a step's own metrics (device scalars) to the averages of the interval."""
        if metrics:
            self._add(tuple(metrics), torch.stack([value.detach().float() for value in metrics.values()]))

    def _add(self, names: tuple[str, ...], values: Tensor) -> None:
        self._vectors.setdefault(names, []).append(values)

    def read(self) -> tuple[dict[str, float], Failure | None]:
        """The means since the last reading, and the first failure. The only place where the host waits for the device."""
        keys = sorted(self._vectors)  # the same order after a resume
        means = [self.world.total(torch.stack(self._vectors[names]).mean(0)) / self.world.size for names in keys]
        sent = torch.cat([*(m.double() for m in means), self.failed.double()[None], self.first.double()]).tolist()
        self._vectors = {}
        flat = [name for names in keys for name in names]
        logged: dict[str, list[float]] = {}
        for name, value in zip(flat, sent):
            logged.setdefault(name, []).append(value)
        averages = {name: sum(found) / len(found) for name, found in logged.items()}
        failed, step, site, term = sent[len(flat) :]
        if not failed:
            return averages, None
        players, names = list(self.sites)[int(site)]
        return averages, Failure(int(step), players, names[int(term)] if term < len(names) else "gradient norm")

    def finite(self) -> bool:
        """Whether nothing has failed so far; waits for the device."""
        return not bool(self.failed)

    def state(self) -> dict[str, Tensor]:
        """The averages begun since the last reading, and what float16 needs; with it an interval resumes in its middle."""
        pending = {f"pending/{'|'.join(names)}": torch.stack(values) for names, values in self._vectors.items()}
        scaling = {"scale": self.scale, "growth": self.growth, "skips": self.skips} if self.half else {}
        return pending | scaling

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            if name.startswith("pending/"):
                names = tuple(name.removeprefix("pending/").split("|"))
                self._vectors[names] = list(value.to(self.device))
            else:
                getattr(self, name).copy_(value)
