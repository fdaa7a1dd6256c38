"""Classification and segmentation: the only rooms that know classes, metrics and "ignore"."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.errors import unknown
from acclimate.tasks.base import Task
from acclimate.tasks.classification import Classification
from acclimate.tasks.segmentation import Segmentation

__all__ = ["Classification", "Segmentation", "Task", "build"]


def build(name: str, classes: Sequence[str]) -> Task:
    """The task called ``name``, for these classes."""
    tasks: dict[str, type[Task]] = {task.name: task for task in (Classification, Segmentation)}
    if name not in tasks:
        raise unknown("task", name, tasks)
    return tasks[name](classes)
