"""Weights learnt on ImageNet: how their input is normalised, and whether a file holds what a network's body needs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from acclimate.errors import DataError

IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}
"""Channels -> mean and std of the input in units of 0..1; for one channel the mean over colours."""


def check_weights(path: str, found: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str, hint: str) -> None:
    """Raise :class:`DataError` unless ``found`` has the names and shapes of ``own``, and no more.

    BatchNorm's counters may be absent: older files have none.

    Args:
        what: the network whose weights the file should hold, for the message.
        hint: what to do if a name is absent, foreign, or has another shape.
    """
    absent = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    foreign = [name for name in found if name not in own]
    other = [name for name in own if name in found and found[name].shape != own[name].shape]
    for names, verb in ((absent, "lacks"), (foreign, "also has"), (other, "has another shape of")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DataError(f"{path}: these are not the weights of {what}: it {verb} {names[0]}{more}; {hint}")
