"""What the catalog knows of a public data set: a card, and a loader for the layout its authors publish."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.data.decode import IMAGE_SUFFIXES
from acclimate.data.domain import Domain, Lazy
from acclimate.data.folder import ImageReader
from acclimate.errors import DataError, UsageError, nearest

VARIABLE = "ACCLIMATE_DATA"


@dataclasses.dataclass(frozen=True)
class Remote:
    """A published file. Without a known ``sha256`` it is never fetched, only described."""

    url: str
    name: str
    sha256: str | None = None
    size: int | None = None  # bytes
    folder: str = ""  # where an archive is extracted, inside the data set's folder


@dataclasses.dataclass(frozen=True)
class Card:
    """What people should know before they use a data set; the text for a fact that nobody states is "not stated"."""

    name: str
    title: str
    task: str  # "classification" or "segmentation"
    classes: tuple[str, ...]
    splits: tuple[str, ...]  # the first one is the default
    layout: str  # the files as the authors publish them, a tree in text
    homepage: str
    licence: str
    citation: str  # BibTeX
    files: tuple[Remote, ...] = ()
    terms: str | None = None  # what a user has to agree to, or register for, before the download
    notes: str = ""
    subsets: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # of classes, that papers average

    @property
    def bundled(self) -> bool:
        """Whether the data comes with acclimate, so that nothing has to be on the disk."""
        return not self.files

    @property
    def fetchable(self) -> bool:
        """Whether ``acclimate download`` can fetch it: every checksum is known."""
        return bool(self.files) and all(remote.sha256 for remote in self.files)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A card and the function that opens one split: ``load(folder, split) -> Domain``."""

    card: Card
    load: Callable[[Path, str], Domain]

    @property
    def folder(self) -> Path:
        """Where the files of this set are expected: ``$ACCLIMATE_DATA/<name>``."""
        return data_root() / self.card.name

    @property
    def present(self) -> bool:
        """Whether the set can be opened (its folder exists, or it is bundled)."""
        return self.card.bundled or self.folder.is_dir()

    def open(self, split: str | None = None) -> Domain:
        """One split, by default the first.

        Raises :class:`UsageError` for an unknown split, :class:`DataError` where files are missing: it says how to get
        them and where they belong.
        """
        card = self.card
        split = split or card.splits[0]
        if split not in card.splits:
            raise UsageError(
                f"{card.name} has no split {split!r}{nearest(split, card.splits)} (known: {', '.join(card.splits)})"
            )
        if not self.present:
            raise DataError(f"{card.name} is not in {self.folder}. {how_to_get(card, self.folder)}")
        domain = self.load(self.folder, split)
        if card.bundled:
            return domain  # made, or read from the package
        return dataclasses.replace(domain, facts={"folder": str(self.folder), **domain.facts})


def data_root() -> Path:
    """The folder of all catalog sets: ``$ACCLIMATE_DATA``, or ``~/.cache/acclimate/data``."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/acclimate/data").expanduser()


def how_to_get(card: Card, folder: Path) -> str:
    """What to do to have a set in ``folder``: the command, or where its files are published and where they belong."""
    if card.fetchable:
        action = f"Type: acclimate download {card.name}"
    else:
        files = "\n".join(f"  {remote.url}" for remote in card.files)
        action = (
            f"acclimate cannot fetch it (no checksum is published); get it from {card.homepage}\n{files}\n"
            f"and put it into {folder}"
        )
    terms = f"\nTerms: {card.terms}" if card.terms else ""
    return f"{action}{terms}\nLayout of {folder}:\n{card.layout}"


def need(path: Path, card: Card, folder: Path) -> Path:
    """``path`` itself, a part of the set in ``folder``.

    Raises :class:`DataError` where it does not exist, with what to do.
    """
    if not path.exists():
        raise DataError(f"{path} is missing. {how_to_get(card, folder)}")
    return path


def inside(card: Card, folder: Path, *places: str) -> Path:
    """The first of ``places`` that exists in ``folder``: archives come with and without a folder of their own.

    Raises :class:`DataError` where none does, with what to do.
    """
    found = next((folder / place for place in places if (folder / place).exists()), None)
    return found or need(folder / places[0], card, folder)


def arrays(card: Card, split: str, images: np.ndarray, labels: np.ndarray) -> Domain:
    """A domain of images that are in memory already: ``images`` ``(N, H, W)`` or ``(N, H, W, C)``, ``uint8``."""
    if len(images) != len(labels):
        raise DataError(f"{card.name}: {len(images)} images but {len(labels)} labels; get the files again")
    images = images[..., None] if images.ndim == 3 else images
    names = [f"{split}/{index:06d}" for index in range(len(images))]
    return Domain(f"{card.name}:{split}", card.task, card.classes, as_sequence(images), as_sequence(labels), names)


def pictures(card: Card, split: str, folder: Path, files: Sequence[Path], labels: Sequence[int]) -> Domain:
    """A classification domain of colour image files, decoded when asked for."""
    items = [(str(path), 0) for path in files]
    names = [path.relative_to(folder).as_posix() for path in files]
    images = Lazy(items, ImageReader(channels=3))
    return Domain(f"{card.name}:{split}", card.task, card.classes, images, as_sequence(np.array(labels)), names)


def masked(
    card: Card,
    split: str,
    folder: Path,
    pairs: Sequence[tuple[Path, Path]],
    reader: Callable[[Any], np.ndarray],
    *,
    pages: Sequence[int] | None = None,
    channels: int = 3,
) -> Domain:
    """A segmentation domain of (image, mask) files, decoded when asked for; ``pages`` says which page of each."""
    numbers = [0] * len(pairs) if pages is None else pages
    names = [path.relative_to(folder).as_posix() for path, _ in pairs]
    if pages is not None:
        names = [f"{name}#{page}" for name, page in zip(names, numbers)]
    images = Lazy([(str(image), page) for (image, _), page in zip(pairs, numbers)], ImageReader(channels))
    labels = Lazy([(str(mask), page, str(image)) for (image, mask), page in zip(pairs, numbers)], reader)
    facts = {"subsets": {name: list(classes) for name, classes in card.subsets.items()}} if card.subsets else {}
    return Domain(f"{card.name}:{split}", card.task, card.classes, images, labels, names, facts)


def class_folders(card: Card, split: str, folder: Path, root: Path) -> Domain:
    """A classification domain of one sub-folder per class, named exactly as the card's classes."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(card.classes):
        found = sorted(path for path in need(root / name, card, folder).iterdir() if _is_picture(path))
        files += found
        labels += [label] * len(found)
    return pictures(card, split, folder, files, labels)


def image_files(root: Path) -> list[Path]:
    """All image files below ``root``, in the order of their names."""
    return sorted(path for path in root.rglob("*") if _is_picture(path))


def as_sequence(array: np.ndarray) -> Sequence[Any]:
    """An array, as the sequence of its rows that it is."""
    return array  # type: ignore[return-value]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
