"""Translated images as a folder that is a source again: the images, and their labels where there are any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acclimate.data.domain import Domain
from acclimate.data.folder import CLASS_FILE
from acclimate.engine.model import Model
from acclimate.engine.translate import check_translates, translations
from acclimate.errors import DataError, UsageError
from acclimate.exchange.predictions import (
    Pictures,
    Place,
    Progress,
    check_distinct,
    named_files,
    not_inside,
    refuse,
)
from acclimate.files import write_json

IGNORED = 255  # the value of "ignore" in a mask file


def write_translations(
    model: Model, domain: Domain, out: Path, *, force: bool = False, progress: Progress | None = None
) -> list[Path]:
    """Redraw the images of a source and write them into ``out``, which can be adapted from like the source itself.

    Images have the names that they had, as PNG, because JPEG would leave traces that the source has not; a TIFF stack
    gives a TIFF stack. Classes are sub-folders; masks hold class numbers, 255 for "ignore", and ``classes.json`` names
    them. Returns the images' files.

    Raises :class:`UsageError` for a method that does not translate, where something would be written into the folder of
    the images, or where a file would be replaced (unless ``force``); :class:`DataError` where two images would become
    one file.
    """
    check_translates(model.method)
    segmented = domain.task == "segmentation" and domain.labels is not None
    if segmented and len(domain.classes) > IGNORED:
        raise UsageError(f"{len(domain.classes)} classes do not fit into masks of 8 bits")
    drawn = image_files(domain)
    masks: list[Place] = []
    if segmented:
        masks = [(Path("masks") / file, page) for file, page in drawn]
        drawn = [(Path("images") / file, page) for file, page in drawn]
    files = [out / file for file in dict.fromkeys(file for file, _ in drawn)]  # a stack's pages have one file
    planned = [*files, *(out / file for file in dict.fromkeys(file for file, _ in masks))]
    not_inside(out, planned, domain)
    refuse(planned + ([out / CLASS_FILE] if segmented else []), force)
    written = Pictures(out, [*drawn, *masks])
    for i, image in enumerate(translations(model, domain)):
        written.add(drawn[i], image[..., 0] if image.shape[-1] == 1 else image)
        if segmented:
            assert domain.labels is not None
            label = np.asarray(domain.labels[i])
            written.add(masks[i], np.where(label < 0, IGNORED, label).astype(np.uint8))
        if progress:
            progress(i + 1, len(domain))
    if segmented:
        write_json(out / CLASS_FILE, {"classes": list(domain.classes)})
    return files


def image_files(domain: Domain) -> list[Place]:
    """For each image where it goes; of classes in a sub-folder for each.

    Raises :class:`DataError` where two images would be one file, or a class cannot be the name of a folder.
    """
    places = named_files(domain.names)
    if domain.task == "classification" and domain.labels is not None:
        names = [domain.classes[int(domain.labels[i])] for i in range(len(domain))]
        if wrong := next((name for name in names if "/" in name or name.startswith(".")), None):
            raise DataError(f"the class {wrong!r} cannot be the name of a folder; rename it")
        places = [
            (file if file.parts[0] == name else Path(name) / file, page) for name, (file, page) in zip(names, places)
        ]
    check_distinct(places, domain.names)
    return places
