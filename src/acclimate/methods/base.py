"""The words in which every method is told: needs, players, stages, update."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from acclimate.errors import UsageError
from acclimate.networks.contract import Network, Output
from acclimate.networks.norm import NormPolicy, both, frozen, held
from acclimate.plan import Optimiser, Plan
from acclimate.settings import Settings

if TYPE_CHECKING:
    from acclimate.data.streams import Batch
    from acclimate.tasks.base import Task

Player = nn.Module | Sequence[nn.Parameter] | Sequence[Mapping[str, Any]]
"""A module, its parameters, or parameter groups ``{"params": [...], "lr_scale": 10.0, "weight_decay": 0.0}``."""


class Need(enum.Flag):
    """What a method may open. The engine builds no stream that is not needed."""

    SOURCE = enum.auto()
    TARGET = enum.auto()
    SOURCE_MODEL = enum.auto()  # starts from a network trained on the source
    TARGET_LABELS = enum.auto()  # oracles only
    FEW_TARGET_LABELS = enum.auto()  # an explicit labelled list


@dataclasses.dataclass(frozen=True)
class Train:
    """``steps`` calls of the method's function ``step(**{one batch per stream}, at=Progress)``."""

    name: str
    step: str
    streams: tuple[str, ...]
    steps: int
    views: tuple[str, ...] = ("weak",)  # of each image; the first is ``batch.x``
    optimisers: Mapping[str, Optimiser] = dataclasses.field(default_factory=dict)  # per player, for this stage only
    continues: bool = False  # keep the optimisers of the stage before
    part: tuple[float, float] = (0.0, 1.0)  # of one schedule that several stages share: where this one begins and ends
    rare_classes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Of label maps: stream -> temperature of its rare-class sampling, :meth:`acclimate.data.streams.Stream.batch`."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One pass without gradients: ``step(**{an iterator of batches per stream})``; without streams, a plain call.

    The images come whole and as they are, with their labels where the stream has them.
    """

    name: str
    step: str
    streams: tuple[str, ...] = ()


Stage = Train | Sweep


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training stage stands."""

    stage: str
    step: int
    steps: int
    part: tuple[float, float] = (0.0, 1.0)

    @property
    def fraction(self) -> float:
        """p in [0, 1): the share of the stage that is done, or of the schedule that it is a part of."""
        begin, end = self.part
        return begin + (end - begin) * (self.step / self.steps)


@dataclasses.dataclass(frozen=True)
class Average:
    """An exponential moving average of a module, moved by the engine after each step of ``Train``."""

    of: nn.Module
    into: nn.Module
    decay: float
    ramp: bool = False  # after step k = 0, 1, ... of a stage min(1 - 1 / (k + 2), decay): a plain mean at first


@dataclasses.dataclass(frozen=True)
class Card:
    """What a user should know of a method before choosing it."""

    title: str
    paper: str
    year: int
    bibtex: str
    when: str
    fails: str
    deviations: tuple[str, ...]  # what the paper did, what is done here, why; empty: none
    tasks: tuple[str, ...] = ("classification", "segmentation")


class Conductor(Protocol):
    """What the engine offers to a method while it runs."""

    def update(self, terms: Mapping[str, Tensor], players: Sequence[str]) -> None: ...

    def keep(self, batch: Batch, columns: Mapping[str, Tensor]) -> None: ...

    def total(self, value: Tensor) -> Tensor: ...


class Method(nn.Module):
    """Who plays, what each player minimises, and in which stages.

    A method never opens a file, moves a tensor to a device, writes a log or knows how many processes there are. All that
    it learns or remembers is a submodule, a buffer, or a column kept by a Sweep.
    """

    class Settings(Settings):
        """Settings of the method, with the paper's values as defaults."""

    name: ClassVar[str]
    card: ClassVar[Card]
    needs: ClassVar[Need] = Need.SOURCE | Need.TARGET
    optimiser: ClassVar[Optimiser] = Optimiser(schedule="dann")
    watch: ClassVar[Mapping[str, tuple[float, float, str]]] = {}
    """Label-free alarms: metric -> (low, high, what to say when its mean at the end of a stage lies outside)."""

    def __init__(self, net: Network, task: Task, plan: Plan, **settings: Any) -> None:
        super().__init__()
        card = getattr(type(self), "card", None)  # a method of one's own needs none
        if card is not None and task.name not in card.tasks:
            raise UsageError(
                f"{self.name} is for {' and '.join(card.tasks)}; for {task.name} choose another method (acclimate methods)"
            )
        self.net, self.task, self.plan = net, task, plan
        self.settings = type(self).Settings(**settings)
        self.conductor: Conductor | None = None

    def players(self) -> Mapping[str, Player]:
        """Named, disjoint sets of parameters; each gets an optimiser of its own."""
        return {"net": self.net}

    def stages(self) -> Sequence[Stage]:
        """The same list at each call: it may depend on settings and plan, never on data or state."""
        raise NotImplementedError  # every method tells its own

    def averages(self) -> Sequence[Average]:
        """Averaged weights that the engine shall move."""
        return ()

    def report(self) -> Sequence[Mapping[str, Any]]:
        """What the method found, as the rows of a table; kept in ``results.json`` and shown in the report."""
        return ()

    def generate(self, labels: Tensor) -> Tensor | None:
        """Images ``(N, C, H, W)`` of the classes ``labels (N,)`` as the network's input; None where a method makes none."""
        return None

    def translate(self, x: Tensor) -> Tensor | None:
        """Source images ``(N, C, H, W)``, the network's input, drawn to look like the target's; None where a method does not."""
        return None

    def predict(self, x: Tensor) -> Tensor:
        """Logits ``(N, K, *)`` of images ``(N, C, H, W)``."""
        return self.net(x).logits

    def forward(self, source: Batch, target: Batch) -> tuple[Output, Output]:
        """Both domains through the network, under the method's BatchNorm policy (its setting ``norm``)."""
        policy: NormPolicy = self.settings.norm  # type: ignore[attr-defined]
        return both(self.net, source.x, target.x, policy)

    def passing(self, module: nn.Module, domain: Literal["source", "target"]) -> AbstractContextManager[None]:
        """While a further module of the method's own sees one domain: its BatchNorm follows the setting ``norm`` as well."""
        policy: NormPolicy = self.settings.norm  # type: ignore[attr-defined]
        if policy == "frozen":
            return frozen(module)
        return held(module) if policy in {"source", "target"} - {domain} else contextlib.nullcontext()

    def update(self, terms: Mapping[str, Tensor], *players: str) -> None:
        """Descend the sum of the named terms for the named players and for nobody else.

        The only place where weights change. Raises :class:`UsageError` if a named player got no gradient.
        """
        self._conductor.update(terms, players)

    def keep(self, batch: Batch, **columns: Tensor) -> None:
        """In a Sweep: remember a value per image (or per pixel), joined by index to later batches of the same stream."""
        self._conductor.keep(batch, columns)

    def total(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes; ``value`` itself where there is one."""
        return self._conductor.total(value)

    @property
    def _conductor(self) -> Conductor:
        if self.conductor is None:
            raise UsageError(f"{type(self).__name__} is not running: start it with acclimate.adapt(...)")
        return self.conductor


def rounds(steps: int, count: int) -> list[tuple[int, tuple[float, float]]]:
    """``steps`` as ``count`` rounds (as many as there are steps, if that is fewer): the steps and the ``part`` of each."""
    ends = [steps * i // min(count, steps) for i in range(min(count, steps) + 1)]
    return [(end - begin, (begin / steps, end / steps)) for begin, end in itertools.pairwise(ends)]


@torch.no_grad()
def same_weights(of: nn.Module, into: nn.Module) -> None:
    """Copy parameters and buffers; for Sweeps that re-initialise (an average, a second student)."""
    into.load_state_dict(of.state_dict())
