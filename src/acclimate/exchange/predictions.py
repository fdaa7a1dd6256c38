"""Predictions as files: a table for classes, masks for pixels."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from acclimate.data.domain import Domain
from acclimate.data.folder import origin
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.files import write_bytes, write_json, write_text

OPAQUE = 0.4
COLOURS = np.array(  # Okabe and Ito's, which colour-blind people can tell apart; class 0 is not coloured
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]],
    np.float32,
)

Progress = Callable[[int, int], None]
Place = tuple[Path, int | None]
"""Where a picture goes: a file inside the output folder, and its page in a stack (None: a file of its own)."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written, and how often each class was predicted (images or pixels)."""

    files: list[Path]
    shares: dict[str, float]


def write_predictions(
    model: Model,
    domain: Domain,
    out: Path,
    *,
    overlay: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Predict all images of a domain and write the results into ``out``.

    Classification gives ``predictions.csv``. Segmentation gives one PNG of class numbers per image, with the same stem,
    and a TIFF stack for each stack; ``classes.json`` names the numbers; ``overlay`` draws them over the images.

    Raises :class:`UsageError` where something would be written into the folder of the images, where a file would be
    replaced (unless ``force``), or for an overlay of classes; :class:`DataError` where two images would become one file.
    """
    classification = model.method.task.name == "classification"
    if classification and overlay:
        raise UsageError("--overlay draws masks; this model predicts one class per image")
    return (_table if classification else _masks)(
        model, domain, out, overlay, force, progress or (lambda done, total: None)
    )


def not_inside(out: Path, files: Iterable[Path], domain: Domain) -> None:
    """Raise :class:`UsageError` where a file to be written lies among those that a domain is read from.

    However links may run: below the domain's folder or beside an image or mask of it, or in the place of one.
    """
    parts = [domain.images] if domain.labels is None else [domain.images, domain.labels]
    read = {path for part in parts for i in range(len(domain)) if (path := origin(part, i)) is not None}
    folders = {os.path.dirname(path) for path in read}
    if "folder" in domain.facts:
        folders.add(str(domain.facts["folder"]))
    kept = {Path(folder).resolve() for folder in folders}
    taken = {os.path.realpath(path) for path in read}
    asked = list(files)
    for place in dict.fromkeys([out, *(file.parent for file in asked)]):
        real = place.resolve()
        if not kept.isdisjoint([real, *real.parents]):
            raise UsageError(f"{place} is inside the folder of the images, which stays as it is; choose another --out")
    if replaced := next((file for file in asked if os.path.realpath(file) in taken), None):
        raise UsageError(f"{replaced} is one of the images, which stay as they are; choose another --out")


def refuse(files: list[Path], force: bool) -> None:
    """Raise :class:`UsageError` if one of the files exists, unless ``force``."""
    taken = [file for file in files if file.exists()]
    if taken and not force:
        raise UsageError(f"{taken[0]} exists; choose another --out, or --force to replace {len(taken)} file(s)")


def _table(model: Model, domain: Domain, out: Path, overlay: bool, force: bool, progress: Progress) -> Written:
    path = out / "predictions.csv"
    not_inside(out, [path], domain)
    refuse([path], force)
    classes = model.method.task.classes
    rows: dict[int, torch.Tensor] = {}
    for index, logits in model.logits(domain):
        rows.update(zip(index, logits.double().softmax(1).cpu()))
        progress(len(rows), len(domain))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class", *(f"probability {name}" for name in classes)])
    counts: Counter[str] = Counter()
    for i, name in enumerate(domain.names):
        best = classes[int(rows[i].argmax())]
        counts[best] += 1
        writer.writerow([name, best, *(f"{value:.6f}" for value in rows[i].tolist())])
    write_text(path, text.getvalue())
    return Written([path], {name: counts[name] / len(domain) for name in classes})


def _masks(model: Model, domain: Domain, out: Path, overlay: bool, force: bool, progress: Progress) -> Written:
    classes = model.method.task.classes
    if len(classes) > 255:
        raise UsageError(f"{len(classes)} classes do not fit into masks of 8 bits")
    places = mask_files(domain.names)
    drawn = [(Path("overlay") / file, page) for file, page in places] if overlay else []
    check_distinct([*places, *drawn], [*domain.names, *domain.names])
    planned = [out / file for file in dict.fromkeys(file for file, _ in [*places, *drawn])]
    not_inside(out, planned, domain)
    refuse([*planned, out / "classes.json"], force)
    written = Pictures(out, [*places, *drawn])
    counts = np.zeros(len(classes), np.int64)
    done = 0
    for index, logits in model.logits(domain):
        for i, label in zip(index, logits.argmax(1).to(torch.uint8).cpu().numpy()):
            counts += np.bincount(label.ravel(), minlength=len(classes))
            written.add(places[i], label)
            if overlay:
                written.add(drawn[i], drawn_over(np.asarray(domain.images[i]), label))
        done += len(index)
        progress(done, len(domain))
    write_json(out / "classes.json", {"classes": list(classes)})
    return Written(planned, dict(zip(classes, (counts / counts.sum()).tolist())))


class Pictures:
    """Writes pictures as they come: a PNG at once, a TIFF stack when the last of its pages is there."""

    def __init__(self, out: Path, places: Iterable[Place]) -> None:
        self.out = out
        self._pages = Counter(file for file, page in places if page is not None)
        self._waiting: dict[Path, dict[int, np.ndarray]] = {}

    def add(self, place: Place, picture: np.ndarray) -> None:
        """Take one picture ``(H, W)`` or ``(H, W, 3)``."""
        file, page = place
        if page is None:
            write_bytes(self.out / file, encoded([picture], "PNG"))
            return
        pages = self._waiting.setdefault(file, {})
        pages[page] = picture
        if len(pages) == self._pages[file]:
            write_bytes(self.out / file, encoded([pages[number] for number in sorted(pages)], "TIFF"))
            del self._waiting[file]


def mask_files(names: Sequence[str]) -> list[Place]:
    """For each image where its mask goes: the image's name with another suffix.

    Raises :class:`DataError` where two masks would be one file, or a name leads out of the folder.
    """
    found = named_files(names)
    check_distinct(found, names)
    return found


def check_distinct(places: Sequence[Place], names: Sequence[str]) -> None:
    """Raise :class:`DataError`, which names two images, where they have one place."""
    owners: dict[Place, str] = {}
    for place, name in zip(places, names):
        if place in owners:
            page = "" if place[1] is None else f", page {place[1]}"
            raise DataError(f"two images would be written as {place[0]}{page}: {owners[place]} and {name}; rename one")
        owners[place] = name


def named_files(names: Sequence[str]) -> list[Place]:
    """What :func:`mask_files` gives, whether or not two are one."""
    listed = list(names)
    if all(name.startswith("images/") for name in listed):
        listed = [name.removeprefix("images/") for name in listed]
    split = []
    for name in listed:
        base, mark, page = name.rpartition("#")
        stacked = bool(mark) and page.isdecimal() and os.path.splitext(base)[1].lower() in (".tif", ".tiff")
        split.append((base, int(page)) if stacked else (name, None))
    owners: dict[str, set[str]] = {}
    for base, _ in split:
        owners.setdefault(os.path.splitext(base)[0], set()).add(base)
    found: list[Place] = []
    for base, number in split:
        stem = os.path.splitext(base)[0]
        stem = stem if len(owners[stem]) == 1 else base  # a.png and a.jpg: a.png.png and a.jpg.png
        path = Path(f"{stem}.{'png' if number is None else 'tif'}")
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{base}: the name leads out of the folder; rename the image")
        found.append((path, number))
    return found


def drawn_over(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The image ``(H, W, 3)`` with every class but the first in a colour."""
    picture = np.repeat(image, 3, axis=2) if image.shape[-1] == 1 else image
    colour = COLOURS[(label.astype(int) - 1) % len(COLOURS)]
    mixed = (1 - OPAQUE) * picture + OPAQUE * colour
    return np.where((label > 0)[..., None], mixed, picture).round().astype(np.uint8)


def encoded(pictures: list[np.ndarray], kind: str) -> bytes:
    """A file of one picture, or a TIFF stack."""
    stream = io.BytesIO()
    first, *others = [Image.fromarray(picture) for picture in pictures]
    if kind == "TIFF":
        first.save(stream, "TIFF", save_all=True, append_images=others, compression="tiff_lzw")
    else:
        first.save(stream, kind)
    return stream.getvalue()
