"""Integrity: what is wrong or odd in one or more domains, found by decoding every file."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from acclimate.data.decode import SUFFIXES, UnusableFile, header, orientation
from acclimate.data.domain import IGNORE, Domain
from acclimate.data.folder import origin
from acclimate.data.open import open_domain
from acclimate.errors import DataError, UsageError, nearest

POLICIES = ("error", "skip", "list")

_EXAMPLES = 5
_UNEVEN = 20
_FEW, _STRAY = 5, 0.1  # masks from which on a value can be rare; share of masks and of pixels below which it is

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing to know about a file or a domain."""

    severity: str  # "error": cannot be used; "warning": can mislead; "note": handled, good to know
    kind: str  # "truncated", "zero-byte", "wrong-extension", "animated", "duplicate", "leakage", ...
    file: str  # the file, or the domain
    message: str
    advice: str


def check(*domains: Domain | str | os.PathLike[str], progress: Progress | None = None) -> list[Finding]:
    """Decode everything in the domains and say what is wrong, odd, or the same in two of them.

    Args:
        domains: domains, or what :func:`~acclimate.data.open.open_domain` opens.
        progress: called with (images done, images in all).

    Returns the findings: errors first, then warnings, then notes. Raises only what is no property of the data, such as
    :class:`UsageError` for a name that does not exist.
    """
    findings: list[Finding] = []
    opened: list[Domain] = []
    for ref in domains:
        try:
            opened.append(ref if isinstance(ref, Domain) else open_domain(ref))
        except UnusableFile as error:
            findings.append(_unusable(error))
        except DataError as error:
            findings.append(Finding("error", "layout", os.fspath(ref), str(error), "correct the folder"))  # type: ignore[arg-type]
    total = sum(len(domain) for domain in opened)
    done = 0
    seen: dict[bytes, list[tuple[int, int]]] = defaultdict(list)  # pixels -> (domain, image)
    for number, domain in enumerate(opened):
        counts = np.zeros(len(domain.classes), np.int64)
        holders: dict[int, list[str]] = defaultdict(list)  # of each class, where it occurs
        for index in range(len(domain)):
            before = counts.copy()
            found, digest = _image(domain, index, counts)
            findings += found
            for label in np.flatnonzero(counts > before):
                holders[int(label)].append(domain.names[index])
            if digest is not None:
                seen[digest].append((number, index))
            done += 1
            if progress is not None:
                progress(done, total)
        findings += _balance(domain, counts)
        findings += _stray(domain, counts, holders)
    findings += _repeated(opened, [places for places in seen.values() if len(places) > 1])
    findings += _classes(opened)
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def usable(domain: Domain, policy: str = "error", *, progress: Progress | None = None) -> Domain:
    """The domain with every image known to decode, and ``facts["unusable"]`` saying what was left out.

    Args:
        policy: "error" stops at the first unusable file, "list" names all of them in one error, "skip" leaves them out.
            The list of images is fixed here, once, so that skipping never shifts an index later.

    Raises :class:`DataError` (policies "error" and "list", and where nothing is left), :class:`UsageError` for an
    unknown policy.
    """
    if policy not in POLICIES:
        raise UsageError(f"unknown policy {policy!r}{nearest(policy, POLICIES)} (known: {', '.join(POLICIES)})")
    good: list[int] = []
    bad: list[tuple[str, DataError]] = []
    for index in range(len(domain)):
        try:
            _decode(domain, index)
            good.append(index)
        except DataError as error:
            if policy == "error":
                raise
            bad.append((domain.names[index], error))
        if progress is not None:
            progress(index + 1, len(domain))
    if bad and (policy == "list" or not good):
        lines = "\n".join(f"  {error}" for _, error in bad)
        raise DataError(f"{domain.name}: {len(bad)} of {len(domain)} images cannot be used:\n{lines}")
    left = domain.subset(good) if bad else domain
    facts = {"policy": policy, "checked": len(domain), "left_out": len(bad), "files": [name for name, _ in bad]}
    return dataclasses.replace(left, facts={**domain.facts, "unusable": facts})


def _decode(domain: Domain, index: int) -> tuple[np.ndarray, Any]:
    """Image and label, with the mask's size compared.

    Raises :class:`DataError` where either cannot be used.
    """
    image = np.asarray(domain.images[index])
    label = None if domain.labels is None else domain.labels[index]
    if domain.task == "segmentation" and label is not None and np.shape(label) != image.shape[:2]:
        problem = f"the mask has {np.shape(label)} pixels (height, width), its image {image.shape[:2]}"
        raise UnusableFile(_place(domain, index), "mask", problem, "make them equal, or remove the pair")
    return image, label


def _image(domain: Domain, index: int, counts: np.ndarray) -> tuple[list[Finding], bytes | None]:
    place = _place(domain, index)
    path = origin(domain.images, index)
    findings = list(_file(path)) if path is not None else []
    try:
        image, label = _decode(domain, index)
    except UnusableFile as error:
        return [_unusable(error), *findings], None
    except DataError as error:
        return [Finding("error", "unreadable", place, str(error), "restore or remove it"), *findings], None
    if image.shape[:2] == (1, 1):
        findings.append(Finding("warning", "1x1", place, "the image is a single pixel", "remove it if it is a stub"))
    if label is not None:
        known = np.asarray(label).reshape(-1)
        known = known[known != IGNORE]
        if domain.task == "segmentation" and known.size == 0:
            findings.append(Finding("warning", "mask", place, 'every pixel of its mask is "ignore"', "check the mask"))
        counts += np.bincount(known, minlength=len(counts))[: len(counts)]
    return findings, _digest(image)


def _file(path: str) -> Iterator[Finding]:
    """What the header of a file tells; a file that has no readable header is reported when it is decoded."""
    try:
        found = header(path)
    except UnusableFile:
        return
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES[found.format]:
        message = f"it is a {found.format} file named {suffix}"
        yield Finding("warning", "wrong-extension", path, message, "rename it: other programs go by the name")
    if found.mode == "CMYK":
        message = "its colours are meant for print (CMYK); they are converted to RGB without a colour profile"
        yield Finding("warning", "cmyk", path, message, "save it as RGB if colours matter")
    if found.transparent:
        message = "it has transparency; transparent pixels are laid on black"
        yield Finding("warning", "transparent", path, message, "lay it on the background of the other domain")
    if found.bits == 16 and found.mode != "F":
        message = "it has 16 bits per value; " + (
            "grey values are divided by one number for the whole domain" if found.deep else "the lower 8 are dropped"
        )
        yield Finding("note", "16-bit", path, message, "nothing to do if both domains are scaled alike")
    if (turned := orientation(path)) != 1:
        message = f"its EXIF orientation is {turned}; the image is turned upright"
        yield Finding("note", "exif-rotated", path, message, "look whether labels were drawn on the upright image")


def _balance(domain: Domain, counts: np.ndarray) -> Iterator[Finding]:
    if domain.labels is None or not counts.any():
        return
    what = "pixels" if domain.task == "segmentation" else "images"
    empty = [name for name, count in zip(domain.classes, counts) if count == 0]
    if np.count_nonzero(counts) == 1:
        only = domain.classes[int(counts.argmax())]
        message = f"all labels are {only!r}"
        yield Finding("error", "single-class", domain.name, message, "add images of a second class")
    elif empty:
        message = f"no {what} of {', '.join(empty)}"
        yield Finding("warning", "class-missing", domain.name, message, "scores of these classes will be blank")
    filled = counts[counts > 0]
    if domain.task == "classification" and filled.max() > _UNEVEN * filled.min():
        message = f"the largest class has {filled.max()} images, the smallest {filled.min()}"
        yield Finding("note", "imbalance", domain.name, message, "look at the accuracy per class")


def _stray(domain: Domain, counts: np.ndarray, holders: dict[int, list[str]]) -> Iterator[Finding]:
    """Values of next to no mask that became a class because no ``classes.json`` says which values are classes."""
    values = [value for value, label in sorted(domain.facts.get("mask_values", {}).items()) if label != IGNORE]
    if len(domain) < _FEW or len(values) <= 2 or domain.classes != tuple(map(str, values)):
        return
    for label, value in enumerate(values):
        found, share = holders[label], counts[label] / max(1, counts.sum())
        if found and len(found) <= max(1, _STRAY * len(domain)) and share < _STRAY:
            message = (
                f"the value {value} occurs in {len(found)} of {len(domain)} masks ({share:.1%} of the pixels), and counts as "
                f"a class of its own: {_some(found)}"
            )
            advice = "correct these masks, or say in classes.json which values are which classes"
            yield Finding("warning", "stray-value", domain.name, message, advice)


def _repeated(domains: list[Domain], groups: list[list[tuple[int, int]]]) -> Iterator[Finding]:
    within: dict[int, list[str]] = defaultdict(list)
    conflicts: dict[int, list[str]] = defaultdict(list)
    across: dict[tuple[int, int], list[str]] = defaultdict(list)
    for places in groups:
        by_domain = defaultdict(list)
        for number, index in places:
            by_domain[number].append(index)
        for number, indices in by_domain.items():
            domain = domains[number]
            if len(indices) == 1:
                continue
            same = " = ".join(domain.names[i] for i in indices)
            within[number].append(same)
            if domain.task == "classification" and domain.labels is not None:
                labels = Counter(int(domain.labels[i]) for i in indices)
                if len(labels) > 1:
                    conflicts[number].append(same)
        numbers = sorted(by_domain)
        for first, second in itertools.pairwise(numbers):
            names = (domains[n].names[by_domain[n][0]] for n in (first, second))
            across[first, second].append(" = ".join(names))
    for number, found in within.items():
        message = f"{len(found)} images appear more than once: {_some(found)}"
        yield Finding("warning", "duplicate", domains[number].name, message, "remove the copies before splitting")
    for number, found in conflicts.items():
        message = f"{len(found)} images have two different labels: {_some(found)}"
        yield Finding("warning", "label-conflict", domains[number].name, message, "correct the labels")
    for (first, second), found in across.items():
        where = f"{domains[first].name} and {domains[second].name}"
        message = f"{len(found)} images are in both: {_some(found)}"
        yield Finding("warning", "leakage", where, message, "remove them from one side, or scores will be too good")


def _classes(domains: list[Domain]) -> Iterator[Finding]:
    labelled = [domain for domain in domains if domain.labels is not None]
    for other in labelled[1:]:
        first = labelled[0]
        if first.task != other.task:
            message = f"{first.name} is for {first.task}, {other.name} for {other.task}"
            yield Finding("error", "classes-differ", other.name, message, "give two domains of one kind")
            continue
        if extra := [name for name in other.classes if name not in first.classes]:
            message = f"{first.name} does not have its classes {', '.join(extra)}"
            yield Finding("error", "classes-differ", other.name, message, f"map each of them: --map {extra[0]}=ignore")
        if absent := [name for name in first.classes if name not in other.classes]:
            message = f"it does not have the classes {', '.join(absent)} of {first.name}"
            yield Finding("note", "classes-differ", other.name, message, "choose a method for partial overlap")


def _unusable(error: UnusableFile) -> Finding:
    return Finding("error", error.kind, error.path, error.problem, error.advice)


def _place(domain: Domain, index: int) -> str:
    return origin(domain.images, index) or f"{domain.name}: {domain.names[index]}"


def _digest(image: np.ndarray) -> bytes:
    """The same for the same picture, whether it is kept with one channel or with three equal ones."""
    if image.shape[2] == 3 and (image == image[..., :1]).all():
        image = image[..., :1]
    return hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()


def _some(found: list[str]) -> str:
    return "; ".join(found[:_EXAMPLES]) + ("; ..." if len(found) > _EXAMPLES else "")
