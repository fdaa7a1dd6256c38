"""From the cells of the study of few labels to its page: every sentence follows from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acclimate import __version__
from acclimate.experiment import BASELINE
from acclimate.report.compose import minutes, percent, points
from acclimate.report.document import Cell, Document, Figure, Section, Table, picture, write_document
from acclimate.studies.bn_figures import ADAPTED, SOURCE, TARGET, Drawn, drawing, plain
from acclimate.studies.few_labels import Cells, beats_from, by_draw, deviation, mean, values

COLOURS = (SOURCE, ADAPTED, TARGET, "#cc79a7", "#6b7280", "#e69f00")
ERRORS, LEAST = 2, 0.005  # a difference is clear beyond two standard errors over draws, from half a point on


def write_page(cells: Cells, folder: Path, command: str, following: str | None = None) -> tuple[Path, Document]:
    """``report.html`` and ``report.json`` in ``folder``."""
    figure, drawn = chart(cells)
    document = Document(
        schema_version=1,
        acclimate=__version__,
        kind="study",
        title="What are a few labelled target images worth?",
        verdict=verdict(cells),
        warnings=warnings(cells),
        sections=[
            Section(
                title="Labels against adaptation",
                text=[setting(cells)],
                tables=[curve_table(cells), line_table(cells)],
                figures=[figure],
            ),
            Section(title="The model to take away", text=[kept_text(cells)]),
            *([Section(title="What did not run, and why", text=cells.failed)] if cells.failed else []),
        ],
        next_command=following,
        command=command,
        notes=notes(cells),
    )
    return write_document(document, {figure.name: picture(drawn)}, folder), document


def line(cells: Cells, name: str) -> float:
    """A player's score without labels."""
    return cells.lines[name]["score"]["value"]


def zero(cells: Cells, start: str) -> float:
    """Where the curve of a start begins: its network alone, which is what fine-tuning trains and what predicts afterwards."""
    return cells.lines[start]["net"]["value"]


def means(cells: Cells, start: str) -> dict[int, float]:
    """Over draws, by k; without a k whose trainings all diverged."""
    return {k: mean(found) for k in cells.counts if (found := values(cells, start, k))}


def clear(differences: Sequence[float]) -> int:
    """1 or -1 where the mean over draws is clearly above or below 0, else 0; nothing is clear of one draw."""
    around = deviation(differences)
    if around is None:
        return 0
    middle, error = mean(differences), around / math.sqrt(len(differences))
    return (1 if middle > 0 else -1) if abs(middle) >= max(ERRORS * error, LEAST) else 0


def spread(found: Sequence[float]) -> str:
    """``63.5 ± 1.6``; without a deviation for one value, blank for none."""
    if not found:
        return ""
    around = deviation(found)
    return percent(mean(found)) + ("" if around is None else f" ± {percent(around)}")


# -- words ------------------------------------------------------------------------------------------------------------


def verdict(cells: Cells) -> str:
    """From how many labels on fine-tuning beats adaptation, whether adapting first helps, and where labels harm."""
    first = BASELINE if BASELINE in cells.starts else cells.starts[0]
    adapted = cells.adapted
    said = [without_labels(cells)]
    if adapted is None or adapted == first:
        said.append(f"Fine-tuning {first} {_beats(cells, first, first, 'that')}.")
    else:
        said.append(f"Fine-tuning {first} on labelled images {_beats(cells, first, adapted, adapted)}.")
        if adapted in cells.starts:
            said.append(adapting_first(cells, first, adapted))
    said += [harm(cells, start) for start in cells.starts]
    return " ".join(filter(None, said))


def without_labels(cells: Cells) -> str:
    """The scores that fine-tuning has to beat."""
    shown = [name for name in (cells.adapted, BASELINE) if name in cells.lines] or list(cells.lines)
    listed = ", ".join(f"{name} {percent(line(cells, name))} %" for name in shown if name is not None)
    return f"Without a target label ({cells.primary}): {listed}."


def _beats(cells: Cells, start: str, opponent: str, called: str) -> str:
    found = means(cells, start)
    if not found:
        return "diverged with every number that was tried"
    counts, reached = list(found), list(found.values())
    most, last = counts[-1], percent(reached[-1])
    since = beats_from(counts, reached, line(cells, opponent))
    if since is None:
        return f"does not beat {called} with up to {_labels(most)} ({last} %)"
    beyond = beats_from(counts, reached, cells.lines[opponent]["score"]["interval"][1])
    sure = "; never beyond its 95 % interval"
    if beyond is not None:
        sure = ", beyond its 95 % interval" + ("" if beyond == since else f" from {beyond} on")
    return f"beats {called} from {_labels(since)} on{sure} ({last} % with {most})"


def adapting_first(cells: Cells, first: str, adapted: str) -> str:
    """Whether fine-tuning is better begun from the adapted model: the draws are the same for both."""
    gains = {}
    for k in cells.counts:
        theirs, ours = by_draw(cells, adapted, k), by_draw(cells, first, k)
        if both := [theirs[draw] - ours[draw] for draw in theirs if draw in ours]:
            gains[k] = both
    if not gains:
        return ""
    answers = []
    for sign, what in ((1, "helps"), (-1, "harms"), (0, "makes no clear difference")):
        some = [k for k, found in gains.items() if clear(found) == sign]
        if some:
            answers.append(f"{what} with {_labels(*some) if len(some) < len(gains) else 'any number that was tried'}")
    listed = ", ".join(f"{points(mean(gains[k]))} points with {k}" for k in dict.fromkeys((min(gains), max(gains))))
    every = [gain for found in gains.values() for gain in found]
    return (
        f"Adapting first {', '.join(answers)} ({listed}; better in {sum(g > 0 for g in every)} of {len(every)} pairs of "
        "trainings)."
    )


def harm(cells: Cells, start: str) -> str:
    """With how many labels a start becomes clearly worse than it was; empty where it never does."""
    level = zero(cells, start)
    changes = {k: [value - level for value in values(cells, start, k)] for k in cells.counts}
    lost = {k: points(mean(found)) for k, found in changes.items() if clear(found) < 0}
    return f"Fine-tuning harms {start} with {_labels(*lost)} ({', '.join(lost.values())} points)." if lost else ""


def _labels(*counts: int) -> str:
    return f"{', '.join(map(str, counts))} labelled image" + ("" if counts == (1,) else "s")


def warnings(cells: Cells) -> list[str]:
    """What a reader has to know before believing the curve."""
    said = []
    if cells.dropped:
        listed = ", ".join(map(str, cells.dropped))
        said.append(f"Left out, since only {len(cells.images.pool)} labelled images can be drawn: {listed}.")
    if cells.missing:
        listed = ", ".join(cells.missing[:6]) + (", ..." if len(cells.missing) > 6 else "")
        said.append(f"No labelled image shows {listed}: fine-tuning may forget what is not shown to it.")
    if cells.study.draws == 1:
        said.append(
            "One draw of labelled images: another may say otherwise, and no difference is clear. Use --draws 3."
        )
    for start in cells.starts:
        if zero(cells, start) != line(cells, start):
            said.append(
                f"{start} predicts with more than the network that is fine-tuned, which alone reaches "
                f"{percent(zero(cells, start))} %: its curve begins there."
            )
    if cells.failed:
        tried = len(cells.runs) + 1
        said.append(f"{len(cells.failed)} of {tried} trainings diverged and are left blank, such as {cells.failed[0]}")
    return said


def setting(cells: Cells) -> str:
    """What was trained on what."""
    study, given = cells.study, cells.images
    where = (
        f"the {len(given.test)} images of {given.test.name}" if given.given else f"{len(given.test)} held-out images"
    )
    how = "as alike per class as can be" if cells.task == "classification" else "at random"
    rate = "" if study.lr is None else f" at the rate {study.lr:g}"
    return (
        f"k images in all are drawn {how} from {len(given.pool)} of {given.everything.name}, {study.draws} times; a smaller k is "
        f"part of a larger one, and all starts see the same images. {study.steps} steps{rate}, then the score on {where}, which "
        f"no training saw with a label. {minutes(cells.seconds / 60)} minutes for everything."
    )


def kept_text(cells: Cells) -> str:
    """Where the model is, and what is known of it."""
    kept = cells.kept
    if "why" in kept:
        return "There is none, because its training diverged."
    text = (
        f"{kept['folder']}: {kept['of']['start']}, fine-tuned on all {kept['images']} labelled images, those held out above "
        "included. "
    )
    if kept["score"] is None:
        return text + (
            "So nothing is left to score it by. It has seen more labels than the last point of the curve, but that it is as "
            "good is an expectation, not a measurement."
        )
    text = text.replace(", those held out above included", "")
    low, high = kept["score"]["interval"]
    return text + (
        f"On {cells.images.test.name} it reaches {percent(kept['score']['value'])} % "
        f"({percent(low)} to {percent(high)})."
    )


def notes(cells: Cells) -> list[str]:
    """How to read the page."""
    drawn = (
        ["Draws go round the classes, which takes knowing them: who labels at random gets some classes later."]
        if cells.task == "classification"
        else []
    )
    return [
        "± is the sample deviation over draws; intervals are bootstrapped over the scored images, 95 %.",
        f"A difference is clear from {ERRORS} standard errors over draws on, and from {points(LEAST)[1:]} points on.",
        "No score chose anything: the number of steps is fixed, and which model is kept was said beforehand.",
        "An adapted model may have seen the scored images without their labels, if they were its target.",
        *drawn,
    ]


# -- numbers ----------------------------------------------------------------------------------------------------------


def curve_rows(cells: Cells) -> list[list[str]]:
    """k, then each start's mean ± deviation, as text."""
    none = ["0", *(percent(zero(cells, start)) for start in cells.starts)]
    return [none, *([str(k), *(spread(values(cells, start, k)) for start in cells.starts)] for k in cells.counts)]


def curve_table(cells: Cells) -> Table:
    """A row for each k."""
    rows: list[list[Cell]] = [list(row) for row in curve_rows(cells)]
    return Table(
        caption=f"{cells.primary} in per cent, mean ± deviation over {cells.study.draws} draws, by the model that is "
        "fine-tuned; 0: its network as it was.",
        header=["labelled images", *cells.starts],
        rows=rows,
    )


def line_table(cells: Cells) -> Table:
    """Every player without labels."""
    rows: list[list[Cell]] = []
    for name, cell in cells.lines.items():
        low, high = cell["score"]["interval"]
        rows.append([name, percent(cell["score"]["value"]), f"{percent(low)} to {percent(high)}"])
    return Table(
        caption=f"{cells.primary} without a target label, in per cent.", header=["method", "score", "95 %"], rows=rows
    )


def chart(cells: Cells) -> Drawn:
    """k against the score, with the level of each method that reads no label."""
    figure = drawing(7.2, 4)
    axes = figure.subplots()
    ticks = [0, *cells.counts]
    places = list(range(len(ticks)))
    names = [*cells.starts, *(name for name in cells.lines if name not in cells.starts)]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    data: dict[str, Any] = {"labelled images": ticks, "fine-tuned": {}, "without labels": {}}
    for name in names:
        level = line(cells, name)
        low, high = cells.lines[name]["score"]["interval"]
        axes.axhline(100 * level, color=colours[name], lw=1, ls="--", label=f"{name}, no label")
        axes.axhspan(100 * low, 100 * high, color=colours[name], alpha=0.08, lw=0)
        data["without labels"][name] = {"value": level, "interval": [low, high]}
    for start in cells.starts:
        found = [[zero(cells, start)], *(values(cells, start, k) for k in cells.counts)]
        middle = [100 * mean(some) if some else math.nan for some in found]
        around = [100 * (deviation(some) or 0.0) for some in found]
        axes.errorbar(
            places,
            middle,
            around,
            color=colours[start],
            lw=2,
            marker="o",
            ms=4,
            capsize=3,
            label=f"{start}, fine-tuned",
        )
        data["fine-tuned"][start] = found
    axes.set_xticks(places, [str(k) for k in ticks])
    axes.set_xlabel("labelled target images", fontsize=8)
    axes.set_ylabel(f"{cells.primary}, %", fontsize=8)
    plain(axes)
    figure.legend(fontsize=8, frameon=False, loc="outside upper center", ncols=2)
    words = Figure(
        name="labels",
        caption=f"Mean and deviation over {cells.study.draws} draws of k labelled images. Dashed, with its 95 % interval: "
        "each method without labels. The steps between the k are not to scale.",
        alt=f"{cells.primary} against the number of labelled target images, fine-tuned from {' and from '.join(cells.starts)}, "
        "beside horizontal lines of the methods that read no label.",
        data=data,
    )
    return words, figure
