"""Translated images as a folder that is a source again: the images, and their labels where there are any."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from acclimate.data.domain import Domain
from acclimate.data.folder import CLASS_FILE
from acclimate.engine.model import Model
from acclimate.engine.translate import check_translates, translations
from acclimate.errors import DataError, UsageError
from acclimate.exchange.predictions import Progress, encoded, mask_files, not_inside, refuse
from acclimate.files import write_bytes, write_json

IGNORED = 255  # the value of "ignore" in a mask file


def write_translations(
    model: Model, domain: Domain, out: Path, *, force: bool = False, progress: Progress | None = None
) -> list[Path]:
    """Redraw the images of a source and write them into ``out``, which can be adapted from like the source itself.

    Images have the names that they had, as PNG, because JPEG would leave traces that the source has not; a TIFF stack
    gives a TIFF stack. Classes are sub-folders; masks hold class numbers, 255 for "ignore", and ``classes.json`` names
    them. Returns the images' files.

    Raises :class:`UsageError` for a method that does not translate, where ``out`` is inside the folder of the images,
    or where a file would be replaced (unless ``force``).
    """
    check_translates(model.method)
    not_inside(out, domain)
    segmented = domain.task == "segmentation" and domain.labels is not None
    if segmented and len(domain.classes) > IGNORED:
        raise UsageError(f"{len(domain.classes)} classes do not fit into masks of 8 bits")
    places = image_files(domain)
    files = list(dict.fromkeys(file for file, _ in places))
    roots = ("images", "masks") if segmented else ("",)
    refuse([out / root / file for root in roots for file in files] + ([out / CLASS_FILE] if segmented else []), force)
    pages = Counter(Path(root) / file for root in roots for file, _ in places)
    waiting: dict[Path, dict[int, np.ndarray]] = {}

    def keep(file: Path, page: int | None, picture: np.ndarray) -> None:
        if page is None:
            write_bytes(out / file, encoded([picture], "PNG"))
            return
        kept = waiting.setdefault(file, {})
        kept[page] = picture
        if len(kept) == pages[file]:
            write_bytes(out / file, encoded([kept[number] for number in sorted(kept)], "TIFF"))
            del waiting[file]

    for i, image in enumerate(translations(model, domain)):
        file, page = places[i]
        keep(Path(roots[0]) / file, page, image[..., 0] if image.shape[-1] == 1 else image)
        if segmented:
            assert domain.labels is not None
            label = np.asarray(domain.labels[i])
            keep(Path("masks") / file, page, np.where(label < 0, IGNORED, label).astype(np.uint8))
        if progress:
            progress(i + 1, len(domain))
    if segmented:
        write_json(out / CLASS_FILE, {"classes": list(domain.classes)})
    return [out / roots[0] / file for file in files]


def image_files(domain: Domain) -> list[tuple[Path, int | None]]:
    """For each image its path, and its page in a stack; of classes in a sub-folder for each."""
    places = mask_files(domain.names)
    if domain.task != "classification" or domain.labels is None:
        return places
    found = []
    for i, (file, page) in enumerate(places):
        name = domain.classes[int(domain.labels[i])]
        if "/" in name or name.startswith("."):
            raise DataError(f"the class {name!r} cannot be the name of a folder; rename it")
        found.append((file if file.parts[0] == name else Path(name) / file, page))
    return found
