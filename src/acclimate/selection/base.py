"""What a label-free score may see of a model, and what a score says of itself."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from acclimate.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model makes of both domains, without a target label.

    A row is an image, or a pixel of a segmented image: the same ones for all models that are compared. Images come in a
    drawn order, so neighbouring rows are of one image or have nothing in common. Everything is
    float32 (labels: int64) on the CPU. What is of the source is None where there is none; it passes through the network
    as it did in training, :func:`acclimate.selection.see.see`.
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
        """The same without every ``groups``-th image, from number ``group`` on, of those by which models are judged.

        Groups are equally large: the last images stay out where their number is no multiple of ``groups``. So do those
        of the source, where there are enough of them for as many groups; what was trained on stays.
        """
        at_target = _staying(self.image_t, group, groups)
        changes: dict[str, Any] = {name: getattr(self, name)[at_target] for name in ("zt", "ft", "image_t")}
        if self.consensus is not None:
            changes["consensus"] = self.consensus[at_target]
        if self.masks_t is not None:
            stay = _staying(torch.arange(len(self.masks_t)), group, groups)
            changes["masks_t"] = [mask for mask, stays in zip(self.masks_t, stay) if stays]
        if self.image_s is not None and int(self.image_s.max()) + 1 >= groups:
            at_source = _staying(self.image_s, group, groups)
            changes |= {name: getattr(self, name)[at_source] for name in ("zs", "fs", "ys", "image_s")}
        return dataclasses.replace(self, **changes)


def _staying(images: Tensor, group: int, groups: int) -> Tensor:
    """Which rows stay when a group of images leaves."""
    count = int(images.max()) + 1
    return (images % groups != group) & (images < count - count % groups)


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
        """The value with the sign that makes larger ones better; what is no number is the worst."""
        if math.isnan(value):
            return -math.inf
        return value if self.better == "high" else -value
