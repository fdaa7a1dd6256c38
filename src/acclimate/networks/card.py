"""What a user should know of a network before choosing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeVar

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class NetworkCard:
    """Facts about a network."""

    task: Literal["classification", "segmentation"]
    size: int  # side of the images that it was made for, and its default
    summary: str


def network(task: Literal["classification", "segmentation"], size: int) -> Callable[[Factory], Factory]:
    """Give a factory ``f(classes, channels, size, *, ...) -> Network`` its ``card``; the docstring's first line is the
    summary."""

    def describe(factory: Factory) -> Factory:
        summary = (factory.__doc__ or "").strip().partition("\n")[0]
        factory.card = NetworkCard(task, size, summary)  # type: ignore[attr-defined]
        return factory

    return describe
