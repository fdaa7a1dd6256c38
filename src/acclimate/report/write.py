"""The page and its JSON twin, from what a run left on the disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from torch import Tensor

from acclimate.engine.checkpoint import read_tensors
from acclimate.errors import DataError
from acclimate.files import write_bytes
from acclimate.report import figures
from acclimate.report.compose import (
    compose,
    duration,
    in_words,
    percent,
    points,
    read,
    repeat_command,
    short,
    spoken,
    spoken_became,
    unbroken,
    words,
)
from acclimate.report.evidence import TENSORS
from acclimate.report.pictures import CHANGES, CLASS_COLOURS, Picture, disagreement, overlay, strip, within
from acclimate.report.schema import Report, load

Rows = list[list[Picture]]

HERE = Path(__file__).parent
PAGE, TWIN = "report.html", "report.json"
PAGE_BYTES = 2_900_000  # of the whole page, which stays under 3 MB
PICTURE_BYTES = 1_700_000  # of all target images; this and the next two share what words and charts leave of the page
DRAWN_BYTES = 400_000  # of all images that methods draw
TRANSLATED_BYTES = 300_000  # of all source images and what methods make of them
MOST_CELLS = 12  # classes up to which a confusion matrix is shown in full
MOST_SHARES = 30  # classes of the share chart


def write(folder: Path, command: str | None = None) -> Path:
    """``report.html`` and ``report.json`` in ``folder``, from its ``results.json`` and evidence.

    Args:
        command: the exact command that repeats the run; default: that of an earlier report, else Python that does it.

    Raises :class:`DataError` if a file is missing, damaged, or of another schema version.
    """
    results, evidence = read(folder)
    tensors = read_tensors(folder / TENSORS)
    report = compose(results, evidence, tensors, folder, command or _earlier(folder) or repeat_command(results, folder))
    return publish(report, tensors, folder)


def publish(report: Report, tensors: Mapping[str, Tensor], folder: Path) -> Path:
    """Write a report's twin and its page; returns the page."""
    write_bytes(folder / TWIN, report.model_dump_json(indent=1).encode() + b"\n")
    write_bytes(folder / PAGE, render(report, tensors).encode())
    return folder / PAGE


def _earlier(folder: Path) -> str | None:
    try:
        return load(folder / TWIN).command
    except DataError:
        return None  # there is none, or another release wrote it


def render(report: Report, tensors: Mapping[str, Tensor]) -> str:
    """The page of a report. ``tensors`` hold the images; everything else comes from the report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "words": words,
        "duration": duration,
        "unbroken": unbroken,
        "short": short,
        "thousands": "{:,}".format,
        "became": spoken_became,
        "in_words": in_words,
        "spoken": spoken,
    }
    css = (HERE / "page.css").read_text()
    shown = [player for player in report.players if player.role != "oracle" and player.name not in report.left_out]
    scored = [player for player in report.players if player.target_test]
    page = functools.partial(
        environment.get_template("page.html.j2").render,
        report=report,
        css=Markup(css),  # the package's own file
        colours=CLASS_COLOURS,
        changes=CHANGES,
        figures=figures,
        style=figures.style(report.players),
        shown=shown,
        scored=scored,
        homes={name: short(run.folder) for run in report.runs for name in run.players} if len(report.runs) > 1 else {},
        seeds_differ=len({tuple(player.seeds) for player in report.players}) > 1,
        score_axis=figures.score_axis(scored) if scored else [],
        share_axis=share_axis(report),
        share_classes=share_classes(report),
        shared_settings=shared_settings(report),
        matrix=report.task == "classification" and len(report.classes) <= MOST_CELLS,
        numbered=len(report.classes) <= figures.MOST_NUMBERED,
    )
    rows = pictures(report, tensors, [player.name for player in shown])
    strips, couples = drawn(report, tensors), pairs(report, tensors)

    def filled(encode: Callable[[float, Rows], list[list[str]]]) -> str:
        """The page with its pictures; ``encode`` gets a budget in bytes and rows of pictures."""
        return page(
            pictures=list(zip(report.examples.items, encode(PICTURE_BYTES, rows))),
            drawn={name: [uri for (uri,) in encode(DRAWN_BYTES / len(strips), row)] for name, row in strips.items()},
            pairs={name: encode(TRANSLATED_BYTES / len(couples), row) for name, row in couples.items()},
        )

    empty = filled(lambda budget, rows: [[""] * len(row) for row in rows])
    asked = PICTURE_BYTES + (DRAWN_BYTES if strips else 0) + (TRANSLATED_BYTES if couples else 0)
    room = (PAGE_BYTES - len(empty.encode())) / asked
    return filled(lambda budget, rows: within(int(budget * min(1.0, max(0.0, room))), rows))


def pictures(report: Report, tensors: Mapping[str, Tensor], players: list[str]) -> Rows:
    """Of each example its pictures: the image; of a segmented one each player's overlay, the changes and any truth."""
    rows = []
    for place in range(len(report.examples.items)):
        image = tensors[f"image/{place}"].numpy()
        if report.task == "classification":
            rows.append([image])
            continue
        maps = {name: tensors[f"prediction/{name}/{place}"].numpy() for name in players}
        truth = tensors[f"truth/{place}"].numpy() if report.scored and f"truth/{place}" in tensors else None
        row = [overlay(image, np.full(image.shape[:2], 0, np.int16), 2)]
        row += [overlay(image, labels, len(report.classes)) for labels in maps.values()]
        if report.examples.items[place].became:
            before, after = (maps[name] for name in (report.examples.reference, report.examples.compared))
            row.append(disagreement(image, before, after, truth))
        if truth is not None:
            row.append(overlay(image, truth, len(report.classes)))
        rows.append(row)
    return rows


def drawn(report: Report, tensors: Mapping[str, Tensor]) -> dict[str, Rows]:
    """By player one picture per class that it draws: its images beside each other."""
    return {
        found.player: [[strip(list(row.numpy()))] for row in tensors[f"generated/{found.player}"]]
        for found in report.generated
    }


def pairs(report: Report, tensors: Mapping[str, Tensor]) -> dict[str, Rows]:
    """By player each source image and what it makes of it."""
    return {
        found.player: [
            [tensors[f"source/{i}"].numpy(), tensors[f"translated/{found.player}/{i}"].numpy()]
            for i in range(len(found.names))
        ]
        for found in report.translated
    }


def share_axis(report: Report) -> list[float]:
    """Ticks from 0 to the largest class share."""
    columns = [*report.shares.players.values(), report.shares.source or [], report.shares.truth or []]
    return figures.ticks(0.0, max(value for column in columns for value in column), 4)


def share_classes(report: Report) -> list[int]:
    """The classes of the share chart: all, or the 30 whose share differs most between players."""
    columns = list(zip(*report.shares.players.values()))
    order = sorted(range(len(columns)), key=lambda k: min(columns[k]) - max(columns[k]))
    return sorted(order[:MOST_SHARES])


def shared_settings(report: Report) -> dict[str, Any]:
    """The settings that are the same for all players."""
    first, *others = (resolved.settings for resolved in report.settings)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
