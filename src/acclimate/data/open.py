"""From what a person types to a domain: a folder, or the name of a set in the catalog."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from acclimate import registry
from acclimate.data.decode import MAX_PIXELS
from acclimate.data.domain import Domain
from acclimate.data.folder import TASKS, match_classes, open_folder, split_folders
from acclimate.errors import DataError, UsageError, nearest


def open_domain(
    ref: str | os.PathLike[str],
    split: str | None = None,
    task: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    scale16: int | None = None,
) -> Domain:
    """The domain that ``ref`` names: a folder, or a catalog set such as ``"mnist"`` or ``"camvid:day"``.

    A bare name is looked up in the catalog first; ``"./mnist"`` is always a folder. ``split`` (or what follows a colon)
    is one of the set's splits, or a sub-folder ``train/``, ``test/`` of the folder.

    Args:
        task: what the domain has to be ("classification", "segmentation"), or "unlabelled" to leave labels aside.
        max_pixels, scale16: for folders, see :func:`~acclimate.data.folder.open_folder`.

    Raises :class:`UsageError` for a name or split that does not exist, :class:`DataError` for unusable files.
    """
    place, part = _parse(ref)
    if split and part and split != part:
        raise UsageError(f"{os.fspath(ref)} already names a split; leave out {split!r}")
    split = split or part
    if isinstance(place, str):
        return _as_task(registry.load("datasets", place).open(split), task)
    folder = place
    if split:
        known = split_folders(place)
        if split not in known:
            raise UsageError(f"{place} has no split {split!r} (it has {', '.join(known) or 'none'})")
        folder = place / split
    return open_folder(folder, task, max_pixels=max_pixels, scale16=scale16)


def open_splits(
    ref: str | os.PathLike[str],
    holdout: float = 0.2,
    task: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    scale16: int | None = None,
) -> tuple[Domain, Domain]:
    """What to train on and what to score on, without an image in common: ``(train, test)``.

    A catalog set with the splits "train" and "test" (or "val", where the test's labels are not public), and a folder with
    the sub-folders ``train/`` and ``test/``, keep their own; ``"camvid:day"`` takes "day-train" and "day-test" where the set
    has them. Everything else is split at random, the same way each time, with the share ``holdout`` for the test. With
    ``holdout=0`` both are the same, whole domain: a transductive protocol, as papers on Office-31 have it, scores on the
    very images that were adapted to.

    Raises what :func:`open_domain` raises.
    """
    place, part = _parse(ref)
    if isinstance(place, str):
        dataset = registry.load("datasets", place)
        test_name = "val" if part is None and "test" not in dataset.card.splits else "test"
        own = [f"{part}-{half}" if part else half for half in ("train", test_name)]
        if set(own) <= set(dataset.card.splits):
            train, test = (_as_task(dataset.open(split), task) for split in own)
            return train, test
    elif part is None and {"train", "test"} <= set(split_folders(place)):
        train = open_domain(place, "train", task, max_pixels=max_pixels, scale16=scale16)
        # One scale for both, or the same grey value would mean two things.
        scale16 = scale16 or train.facts.get("scale16")
        test = open_domain(place, "test", task, max_pixels=max_pixels, scale16=scale16)
        return train, match_classes(train, test) if train.labels is not None and test.labels is not None else test
    whole = open_domain(ref, None, task, max_pixels=max_pixels, scale16=scale16)
    return whole.holdout(holdout) if holdout else (whole, whole)


def _parse(ref: str | os.PathLike[str]) -> tuple[str | Path, str | None]:
    """The name of a catalog set, or a folder, and the split after the colon.

    Raises :class:`UsageError` where ``ref`` is neither.
    """
    text = os.fspath(ref)
    known = registry.names("datasets")
    head, colon, tail = text.rpartition(":")
    if isinstance(ref, str):
        if text in known:
            return text, None
        if head in known:
            return head, tail
    if Path(text).exists():
        return Path(text), None
    if colon and Path(head).is_dir():
        return Path(head), tail
    raise UsageError(
        f"{text!r} is neither a folder here (no such path) nor a data set of the catalog"
        f"{nearest(head if colon else text, known)} (acclimate datasets lists them)"
    )


def _as_task(domain: Domain, task: str | None) -> Domain:
    if task not in (None, *TASKS):
        raise UsageError(f"unknown task {task!r}{nearest(str(task), TASKS)} (known: {', '.join(TASKS)})")
    if task == "unlabelled":
        return dataclasses.replace(domain.unlabelled(), task=None, classes=())
    if task is not None and domain.task != task:
        raise DataError(f"{domain.name} is for {domain.task}, not for {task}; choose another data set")
    return domain
