"""Predictions as files: a table for classes, masks for pixels."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from acclimate.data.domain import Domain
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.files import write_bytes, write_json, write_text

OPAQUE = 0.4
COLOURS = np.array(  # Okabe and Ito's, which colour-blind people can tell apart; class 0 is not coloured
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]],
    np.float32,
)

Progress = Callable[[int, int], None]


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

    Raises :class:`UsageError` where ``out`` is inside the folder of the images, where a file would be replaced (unless
    ``force``), or for an overlay of classes.
    """
    not_inside(out, domain)
    classification = model.method.task.name == "classification"
    if classification and overlay:
        raise UsageError("--overlay draws masks; this model predicts one class per image")
    return (_table if classification else _masks)(
        model, domain, out, overlay, force, progress or (lambda done, total: None)
    )


def not_inside(out: Path, domain: Domain) -> None:
    """Raise :class:`UsageError` where ``out`` is in the folder that a domain was read from."""
    folder = domain.facts.get("folder")
    if folder is None:
        return
    inside, place = Path(str(folder)).resolve(), out.resolve()
    if place == inside or inside in place.parents:
        raise UsageError(f"{out} is inside the folder of the images, which stays as it is; choose another --out")


def refuse(files: list[Path], force: bool) -> None:
    """Raise :class:`UsageError` if one of the files exists, unless ``force``."""
    taken = [file for file in files if file.exists()]
    if taken and not force:
        raise UsageError(f"{taken[0]} exists; choose another --out, or --force to replace {len(taken)} file(s)")


def _table(model: Model, domain: Domain, out: Path, overlay: bool, force: bool, progress: Progress) -> Written:
    path = out / "predictions.csv"
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
    stacks = Counter(file for file, page in places if page is not None)
    drawn = [Path("overlay") / file for file, _ in places] if overlay else []
    planned = [out / file for file in dict.fromkeys([*(file for file, _ in places), *drawn])]
    refuse([*planned, out / "classes.json"], force)
    waiting: dict[Path, dict[int, np.ndarray]] = {}
    counts = np.zeros(len(classes), np.int64)
    done = 0

    def keep(file: Path, page: int | None, picture: np.ndarray) -> None:
        if page is None:
            write_bytes(out / file, encoded([picture], "PNG"))
            return
        name = Path(*(part for part in file.parts if part != "overlay")) if file.parts[0] == "overlay" else file
        pages = waiting.setdefault(file, {})
        pages[page] = picture
        if len(pages) == stacks[name]:
            write_bytes(out / file, encoded([pages[number] for number in sorted(pages)], "TIFF"))
            del waiting[file]

    for index, logits in model.logits(domain):
        for i, label in zip(index, logits.argmax(1).to(torch.uint8).cpu().numpy()):
            file, page = places[i]
            counts += np.bincount(label.ravel(), minlength=len(classes))
            keep(file, page, label)
            if overlay:
                keep(Path("overlay") / file, page, drawn_over(np.asarray(domain.images[i]), label))
        done += len(index)
        progress(done, len(domain))
    write_json(out / "classes.json", {"classes": list(classes)})
    return Written(planned, dict(zip(classes, (counts / counts.sum()).tolist())))


def mask_files(names: Sequence[str]) -> list[tuple[Path, int | None]]:
    """For each image the mask's path inside the output folder, and the page in a stack (None: a file of its own)."""
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
    found: list[tuple[Path, int | None]] = []
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
