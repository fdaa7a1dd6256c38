"""Folders of images: class sub-folders, ``images/`` beside ``masks/``, or plain images. Nothing is written there."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from acclimate.data.decode import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Header,
    UnusableFile,
    header,
    image_size,
    limit16,
    read_image,
    read_mask,
)
from acclimate.data.domain import IGNORE, Chain, Domain, Lazy, Subset
from acclimate.errors import DataError, UsageError, nearest
from acclimate.files import read_json
from acclimate.settings import Settings

SPLITS = ("train", "test", "val", "valid", "validation")
TASKS = ("classification", "segmentation", "unlabelled")
CLASS_FILE = "classes.json"

_UNKNOWN = -2
_MOST_IDS = 64


class ClassFile(Settings):
    """``classes.json`` of a segmentation folder: the classes, and which value in a mask file means which class.

    A class that ``values`` does not mention is written as its own index. 255 means "ignore" unless ``values`` says
    otherwise.
    """

    classes: list[str] = Field(min_length=2)
    values: dict[int, int | str] = {}
    ignore: int | list[int] = []

    def table(self) -> dict[int, int]:
        """Value in the file -> label.

        Raises :class:`DataError` for a class name that appears twice or does not exist, and for a value that is out of
        range or means both a class and "ignore".
        """
        if len(set(self.classes)) < len(self.classes):
            raise DataError('"classes" names a class twice')
        ignored = self.ignore if isinstance(self.ignore, list) else [self.ignore]
        if wrong := [value for value in (*self.values, *ignored) if not 0 <= value < 1 << 16]:
            raise DataError(f"{wrong[0]} is a value that no mask file can hold")
        named = {value: self._index(meant) for value, meant in self.values.items()}
        counted = {index: index for index in range(len(self.classes)) if index not in named.values()} | named
        if both := [value for value in ignored if value in counted]:
            raise DataError(f'the value {both[0]} is in "ignore" and means {self.classes[counted[both[0]]]!r} too')
        return {value: IGNORE for value in (255, *ignored)} | counted

    def _index(self, meant: int | str) -> int:
        if meant in self.classes:
            return self.classes.index(str(meant))
        if isinstance(meant, int) and 0 <= meant < len(self.classes):
            return meant
        raise DataError(f'"values" leads to {meant!r}, which is none of the {len(self.classes)} classes')


@dataclasses.dataclass(frozen=True)
class ImageReader:
    """Decodes a (path, page) pair the way its domain wants: channels, and the scale of 16-bit values."""

    channels: int | None = None  # 3: grey images are repeated; None: as they are
    scale16: int | None = None
    max_pixels: int = MAX_PIXELS

    def __call__(self, item: tuple[str, int]) -> np.ndarray:
        image = read_image(*item, scale16=self.scale16, max_pixels=self.max_pixels)
        return np.repeat(image, 3, axis=2) if self.channels == 3 and image.shape[2] == 1 else image


@dataclasses.dataclass(frozen=True)
class MaskReader:
    """Decodes a (mask path, page, image path) triple to labels ``(H, W)``, ``int16``; -1 is "ignore"."""

    table: Mapping[int, int]  # value in the file -> label
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        lookup = np.full(1 << 16, _UNKNOWN, np.int16)
        lookup[list(self.table)] = list(self.table.values())
        object.__setattr__(self, "_lookup", lookup)

    def __call__(self, item: tuple[str, int, str]) -> np.ndarray:
        path, page, image = item
        ids = read_mask(path, page, ignore=None, max_pixels=self.max_pixels)
        labels: np.ndarray = self._lookup[ids]  # type: ignore[attr-defined]
        if (labels == _UNKNOWN).any():
            found = sorted(np.unique(ids[labels == _UNKNOWN]).tolist())
            known = ", ".join(map(str, sorted(self.table)))
            problem = f"the mask holds unknown ids: {', '.join(map(str, found[:8]))} (known: {known})"
            raise UnusableFile(path, "mask", problem, f'correct the mask, or add the id to "values" in {CLASS_FILE}')
        size = image_size(image, page, self.max_pixels)
        if labels.shape != size:
            problem = f"the mask has {labels.shape[1]} x {labels.shape[0]} pixels, its image {size[1]} x {size[0]}"
            raise UnusableFile(path, "mask", problem, "make them equal, or remove the pair")
        return labels


@dataclasses.dataclass(frozen=True)
class Relabel:
    """Labels of one list of classes to labels of another; "ignore" stays "ignore"."""

    table: tuple[int, ...]  # new label of each old one

    def __call__(self, label: Any) -> Any:
        lookup = np.array([*self.table, IGNORE], np.int16)  # index -1 is the last one
        new = lookup[np.asarray(label)]
        return new if new.ndim else int(new)


def open_folder(
    path: str | os.PathLike[str],
    task: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    scale16: int | None = None,
) -> Domain:
    """The images of a folder, decoded when asked for.

    - Sub-folders that hold images are the classes of a classification domain, sorted by name.
    - ``images/`` and ``masks/`` (same names but for the suffix) are a segmentation domain. ``classes.json`` beside them
      (or in the folder above) names the classes: ``{"classes": ["background", "mitochondria"], "values": {"255": 1}}``;
      without it every id found in the masks is a class named after itself.
    - Anything else is a domain without labels. A multi-page TIFF is a stack of images ``name.tif#0``, ``#1``, ...

    Args:
        task: what the folder has to be, or "unlabelled" to read all images below it without labels.
        max_pixels: the largest image to decode; recorded in ``facts``.
        scale16: what 16-bit grey values are divided by (see :func:`~acclimate.data.decode.read_image`); by default the
            power of two above the largest value in the folder, recorded in ``facts``.

    Raises :class:`DataError` naming the file and what to do, :class:`UsageError` for an unknown task.
    """
    if task not in (None, *TASKS):
        raise UsageError(f"unknown task {task!r}{nearest(str(task), TASKS)} (known: {', '.join(TASKS)})")
    root = Path(path)
    if root.is_file():
        raise DataError(f"{root} is a file; give a folder (extract an archive first)")
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; check the path")
    reading = _Reading(root, max_pixels, scale16)
    folders, images = reading.top()
    if task == "unlabelled":
        return reading.plain(root / "images" if "images" in folders else root)
    if "masks" in folders and "images" not in folders:
        raise DataError(f"{root} has masks/ but no images/; put the images into {root / 'images'}")
    if "images" in folders and ("masks" in folders or task != "classification"):
        domain = reading.segmentation() if "masks" in folders else reading.plain(root / "images")
    elif splits := split_folders(root):
        raise DataError(f"{root} holds the splits {', '.join(splits)}; name one of them: {root / splits[0]}")
    elif any(reading.has_images(name) for name in folders):
        if images:
            raise DataError(
                f"{root} holds images ({images[0]}, ...) beside folders of images ({folders[0]}, ...); move the images "
                'into the folder of their class, or read everything without labels with task="unlabelled"'
            )
        domain = reading.classification(folders)
    else:
        domain = reading.plain(root)
    if task is not None and domain.task != task:
        layouts = {"classification": "one sub-folder per class", "segmentation": "images/ and masks/"}
        raise DataError(
            f"{root} is no {task} folder (it looks like {domain.task or 'plain images'}); it needs {layouts[task]}"
        )
    return domain


def split_folders(root: Path) -> list[str]:
    """The splits of a folder that holds nothing but ``train/`` and its like, in the order train, test, validation."""
    try:
        folders = [entry.name for entry in _visible(root) if entry.is_dir()]
    except DataError:
        return []
    return sorted(folders, key=SPLITS.index) if "train" in folders and set(folders) <= set(SPLITS) else []


def match_classes(source: Domain, target: Domain, mapping: Mapping[str, str] | None = None) -> Domain:
    """The target with its labels counted in the source's classes, matched by name.

    ``mapping`` says what differs: ``{"their class": "our class"}``; "ignore" instead of a class is the label -1,
    which nothing counts. A target without labels only takes over the names of the classes.

    Raises :class:`DataError` listing target classes that the source does not have, or for another task;
    :class:`UsageError` for a mapping that names unknown classes.
    """
    if target.labels is None:
        return dataclasses.replace(target, task=source.task, classes=source.classes)
    if source.task != target.task:
        raise DataError(f"{source.name} is for {source.task}, {target.name} for {target.task}; give two of one kind")
    mapping = dict(mapping or {})
    for theirs, ours in mapping.items():
        if theirs not in target.classes:
            raise UsageError(f"{target.name} has no class {theirs!r}{nearest(theirs, target.classes)}")
        if ours != "ignore" and ours not in source.classes:
            raise UsageError(f"{source.name} has no class {ours!r}{nearest(ours, source.classes)}")
    named = [mapping.get(name, name) for name in target.classes]
    unmatched = [
        theirs
        for theirs, ours in zip(target.classes, named)
        if ours not in source.classes and not (theirs in mapping and ours == "ignore")
    ]
    if unmatched:
        raise DataError(
            f"{target.name} has classes that {source.name} does not have: {', '.join(unmatched)}. Say which of "
            f"{', '.join(source.classes)} each one is, or leave it out: "
            + " ".join(f"--map {theirs}={_guess(theirs, source.classes)}" for theirs in unmatched[:3])
        )
    if named == list(source.classes):
        return target
    relabel = Relabel(tuple(source.classes.index(name) if name in source.classes else IGNORE for name in named))
    labels: Any = Lazy(target.labels, relabel)
    if target.task == "classification":
        labels = np.array(list(labels), np.int64)
    facts = {**target.facts, "mapped": dict(zip(target.classes, named))}
    return dataclasses.replace(target, classes=source.classes, labels=labels, facts=facts)


def origin(values: Sequence[Any], index: int) -> str | None:
    """The file that element ``index`` of a domain's images or labels is decoded from, where there is one."""
    if isinstance(values, Subset):
        return origin(values.base, int(values.indices[index]))
    if isinstance(values, Chain):
        first = len(values.first)
        return origin(values.first, index) if index < first else origin(values.second, index - first)
    if not isinstance(values, Lazy):
        return None
    if isinstance(values.items, Lazy | Subset | Chain):
        return origin(values.items, index)
    item = values.items[index]  # what decodes files gets tuples that start with a file's path
    return item[0] if isinstance(item, tuple) and isinstance(item[0], str) else None


@dataclasses.dataclass
class _Reading:
    """One reading of one folder."""

    root: Path
    max_pixels: int
    scale16: int | None
    ignored: int = 0

    def top(self) -> tuple[list[str], list[str]]:
        """The names of the folders and of the images directly inside the root."""
        folders, images = [], []
        for entry in _visible(self.root):
            if entry.is_dir():
                folders.append(entry.name)
            elif _is_image(entry):
                images.append(entry.name)
        return sorted(folders), sorted(images)

    def has_images(self, name: str) -> bool:
        return any(is_image for _, is_image in self._walk(self.root / name))

    def classification(self, classes: list[str]) -> Domain:
        if len(classes) == 1:
            raise DataError(
                f"{self.root} has one class folder only ({classes[0]}), and one class needs no classifier; add a "
                f'folder for each further class, or read {self.root} as plain images with task="unlabelled"'
            )
        files, owners = [], []
        for label, name in enumerate(classes):
            found = self._files(self.root / name)
            files += found
            owners += [label] * len(found)
        items, names, headers = self._pages(files)
        owner = dict(zip(files, owners))
        labels: Any = np.array([owner[path] for path, _ in items], np.int64)
        return self._domain("classification", tuple(classes), items, names, headers, labels)

    def plain(self, folder: Path) -> Domain:
        files = self._files(folder)
        if not files:
            known = " ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{folder} holds no image ({known}); check the path")
        return self._domain(None, (), *self._pages(files), None)

    def segmentation(self) -> Domain:
        images, masks = (self._files(self.root / part) for part in ("images", "masks"))
        if not images:
            raise DataError(f"{self.root / 'images'} holds no image; check the path")
        pictures, by_stem = self._stems(images, "images"), self._stems(masks, "masks")
        if missing := [stem for stem in pictures if stem not in by_stem]:
            raise DataError(
                f"{pictures[missing[0]]}: there is no mask {self.root / 'masks' / missing[0]}.* for it "
                f"({len(missing)} of {len(images)} images have none); add the mask or remove the image"
            )
        items, names, headers = self._pages(images)
        mask_of = {path: by_stem[stem] for stem, path in pictures.items()}
        mask_items = [(mask_of[path], page, path) for path, page in items]
        self._check_stacks(items, mask_of)
        classes, table = self._classes(mask_items)
        labels = Lazy(mask_items, MaskReader(table, self.max_pixels))
        facts = {"mask_values": dict(table), "masks_without_image": len(set(by_stem) - set(pictures))}
        return self._domain("segmentation", classes, items, names, headers, labels, facts)

    def _classes(self, masks: list[tuple[str, int, str]]) -> tuple[tuple[str, ...], dict[int, int]]:
        for folder in (self.root, self.root.parent):
            if (folder / CLASS_FILE).is_file() and (folder == self.root or self.root.name in SPLITS):
                return read_class_file(folder / CLASS_FILE)
        found: set[int] = set()
        broken = None
        for path, page, _ in masks:
            try:
                ids = read_mask(path, page, ignore=None, max_pixels=self.max_pixels)
            except UnusableFile as error:  # named when it is read or checked; the others tell the classes
                broken = error
                continue
            found |= set(np.flatnonzero(np.bincount(ids.ravel())).tolist())
        if not found and broken is not None:
            raise broken
        write = f"write {self.root / CLASS_FILE}, for example"
        if found == {0, 255}:
            example = '{"classes": ["background", "object"], "values": {"255": 1}}'
            raise DataError(
                f'{self.root / "masks"} holds the values 0 and 255 only, and 255 would mean "ignore"; {write} {example}'
            )
        ids_found = sorted(found - {255})
        if not 2 <= len(ids_found) <= _MOST_IDS:
            example = '{"classes": ["background", "object"]}'
            raise DataError(
                f"{self.root / 'masks'} holds {len(ids_found)} different ids, which do not look like classes; "
                f"{write} {example}"
            )
        return tuple(map(str, ids_found)), {255: IGNORE} | {value: label for label, value in enumerate(ids_found)}

    def _check_stacks(self, items: list[tuple[str, int]], mask_of: dict[str, str]) -> None:
        for path, last in dict(items).items():  # the last page of each file
            try:
                pages = header(mask_of[path], self.max_pixels).pages
            except UnusableFile:
                continue
            if pages != last + 1:
                raise DataError(
                    f"{mask_of[path]} has {pages} page(s), its image {path} has {last + 1}; make them equal, or remove "
                    "the pair"
                )

    def _stems(self, files: list[str], part: str) -> dict[str, str]:
        stems: dict[str, str] = {}
        for path in files:
            stem = os.path.splitext(os.path.relpath(path, self.root / part))[0]
            if stem in stems:
                raise DataError(f"{path} and {stems[stem]} have one name; rename or remove one of them")
            stems[stem] = path
        return stems

    def _pages(self, files: list[str]) -> tuple[list[tuple[str, int]], list[str], dict[str, Header]]:
        items: list[tuple[str, int]] = []
        names: list[str] = []
        headers: dict[str, Header] = {}
        start = len(str(self.root)) + 1
        for path in files:
            name = path[start:].replace(os.sep, "/")
            try:
                found = header(path, self.max_pixels)
            except UnusableFile:  # named when it is read or checked; a listing goes on
                items.append((path, 0))
                names.append(name)
                continue
            headers[path] = found
            if found.pages == 1:
                items.append((path, 0))
                names.append(name)
            else:
                items += [(path, page) for page in range(found.pages)]
                names += [f"{name}#{page}" for page in range(found.pages)]
        return items, names, headers

    def _domain(
        self,
        task: str | None,
        classes: tuple[str, ...],
        items: list[tuple[str, int]],
        names: list[str],
        headers: dict[str, Header],
        labels: Sequence[Any] | None,
        more: Mapping[str, Any] | None = None,
    ) -> Domain:
        facts: dict[str, Any] = {"folder": str(self.root), **(more or {})}
        channels = max((found.channels for found in headers.values()), default=3)
        facts["channels"] = channels
        scale16 = self.scale16
        if deep := [item for item in items if item[0] in headers and headers[item[0]].deep]:
            scale16 = facts["scale16"] = scale16 or limit16(deep, self.max_pixels)
        if transparent := sum(found.transparent for found in headers.values()):
            facts["transparent"] = f"{transparent} files, laid on black"
        if self.max_pixels != MAX_PIXELS:
            facts["max_pixels"] = self.max_pixels
        if self.ignored:
            facts["other_files"] = self.ignored
        images = Lazy(items, ImageReader(channels, scale16, self.max_pixels))
        return Domain(self.root.resolve().name, task, classes, images, labels, names, facts)

    def _files(self, folder: Path) -> list[str]:
        found = list(self._walk(folder))
        self.ignored += sum(not is_image for _, is_image in found)
        return sorted(path for path, is_image in found if is_image)

    def _walk(self, folder: Path) -> Iterator[tuple[str, bool]]:
        """All files below a folder, and whether each is an image; each folder once, however links may run."""
        seen: set[tuple[int, int]] = set()
        waiting = [os.fspath(folder)]
        while waiting:
            current = waiting.pop()
            status = os.stat(current)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in _visible(current):
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    yield entry.path, _is_image(entry)


def read_class_file(path: Path) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes of a ``classes.json`` and its table from values in mask files to labels.

    Raises :class:`DataError` naming the file and what is wrong in it.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f'{path}: expected {{"classes": ["background", "object"], "values": {{"255": 1}}}}')
    try:
        parsed = ClassFile(**content)
        return tuple(parsed.classes), parsed.table()
    except (UsageError, DataError) as error:
        raise DataError(f"{path}: {error}; correct the file") from error


def _guess(name: str, classes: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(name, classes, n=1)), "ignore")


def _visible(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The entries of a folder, without hidden files and what operating systems leave behind."""
    junk = {"__MACOSX", "Thumbs.db", "desktop.ini"}
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in junk]
    except PermissionError as error:
        raise DataError(f"{folder}: permission denied; make it readable: chmod u+rx {folder}") from error


def _is_image(entry: os.DirEntry[str]) -> bool:
    if os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES:
        return False
    # A dangling link is reported when it is read; a pipe would wait for ever.
    return entry.is_file() or not os.path.exists(entry.path)
