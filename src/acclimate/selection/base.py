"""What a label-free score may see of a model, and what a score says of itself."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from acclimate.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model makes of both domains, without a target label.

    A row is an image, or a pixel of a segmented image: the same ones for all models that are compared. Everything is
    float32 (labels: int64) on the CPU. What is of the source is None where there is none; the source passes through the
    network under BatchNorm statistics of its own, as in training.
    """

    zt: Tensor  # (N, K) logits of the target
    ft: Tensor  # (N, D) features of the target: what enters the head, or what the network aligns
    image_t: Tensor  # (N,) the image that each row belongs to, counted from 0
    zs: Tensor | None = None  # (M, K) logits of source images that training has not seen
    fs: Tensor | None = None  # (M, D) their features
    ys: Tensor | None = None  # (M,) their labels, none is -1
    image_s: Tensor | None = None  # (M,) the image that each of these rows belongs to
    fs_train: Tensor | None = None  # (L, D) features of source images that were trained on
    consensus: Tensor | None = None  # (N, K) of the target rows: the mean of all compared models' probabilities
    masks_t: Sequence[Tensor] | None = None  # segmentation: each target image's predicted classes (h, w)
    masks_s: Sequence[Tensor] | None = (
        None  # segmentation: label maps (h, w) of the source at the same scale, -1: ignore
    )
    classes: int = 0  # K

    @property
    def images(self) -> int:
        """How many target images the rows are of."""
        return int(self.image_t.max()) + 1

    def without(self, group: int, groups: int) -> Seen:
        """The same without every ``groups``-th image of both domains, from number ``group`` on."""
        at_target, at_source = self.image_t % groups != group, slice(None)
        if self.image_s is not None:
            at_source = self.image_s % groups != group  # type: ignore[assignment]

        def source(rows: Tensor | None) -> Tensor | None:
            return None if rows is None else rows[at_source]

        def maps(of: Sequence[Tensor] | None) -> Sequence[Tensor] | None:
            return None if of is None else [map_ for i, map_ in enumerate(of) if i % groups != group]

        return dataclasses.replace(
            self,
            zt=self.zt[at_target],
            ft=self.ft[at_target],
            image_t=self.image_t[at_target],
            zs=source(self.zs),
            fs=source(self.fs),
            ys=source(self.ys),
            image_s=source(self.image_s),
            consensus=None if self.consensus is None else self.consensus[at_target],
            masks_t=maps(self.masks_t),
            masks_s=maps(self.masks_s),
        )


@dataclasses.dataclass(frozen=True)
class Score:
    """A label-free score: ``function`` is pure, and the names of its parameters are fields of :class:`Seen`.

    A parameter with a default is a setting of the score.
    """

    name: str
    title: str
    function: Callable[..., float]
    better: Literal["high", "low"]
    paper: str
    when: str  # when it can be trusted
    fails: str  # when it misleads
    tasks: tuple[str, ...] = ("classification", "segmentation")
    cost: Literal["pass", "training"] = "pass"  # a pass over the images, or a training of its own

    @property
    def takes(self) -> tuple[str, ...]:
        """What it has to see."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(each.name for each in parameters if each.default is inspect.Parameter.empty)

    def missing(self, seen: Seen) -> list[str]:
        """What it has to see and what is not there."""
        return [name for name in self.takes if getattr(seen, name) is None]

    def __call__(self, seen: Seen) -> float:
        """The value. Raises :class:`UsageError` where something it has to see is not there."""
        if missing := self.missing(seen):
            raise UsageError(f"{self.name} needs {', '.join(missing)}, which these runs do not give")
        return float(self.function(**{name: getattr(seen, name) for name in self.takes}))

    def gain(self, value: float) -> float:
        """The value with the sign that makes larger ones better."""
        return value if self.better == "high" else -value
