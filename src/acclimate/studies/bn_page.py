"""From the cells of the BatchNorm study to its page: every sentence follows from the numbers."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

from acclimate import __version__
from acclimate.report.compose import percent, points
from acclimate.report.document import Cell, Document, Figure, Section, Table, picture, write_document
from acclimate.studies import bn_figures as figures
from acclimate.studies.bn import SIZES, BNStudy, Cells, Pair
from acclimate.studies.bn_numbers import (
    SMALL,
    Correlation,
    best,
    centres,
    correlations,
    gain,
    inverted,
    kind,
    mean,
    most_asymmetric,
    named,
    over_seeds,
)
from acclimate.studies.bn_numbers import points as points_of

BOTTLENECK, DOCUMENT = "bottleneck", "bhattacharyya"
PREDICTIONS = {
    "positive": "x → a x + b with a > 0 is repaired exactly",
    "negative": "a < 0 is never repaired: the complement is predicted",
    "proportion": "another share of the object: adaptation harms",
    "noise": "less contrast to noise: not regained in full",
}


def write_page(cells: Cells, folder: Path, command: str | None = None) -> tuple[Path, Document]:
    """``report.html`` and ``report.json`` in ``folder``."""
    found = correlations(cells)
    first, second = most_asymmetric(cells)
    strongest = best(found)
    shown = [strongest] if strongest else []
    shown += [c for c in found if (c.distance, c.layer, c.when) == (DOCUMENT, BOTTLENECK, "before") and c != strongest]
    drawn = {
        "images": [figures.examples(cells)],
        "grid": [figures.matrices(cells)],
        "white": [figures.all_white(cells)],
        "asymmetry": [figures.asymmetry(cells, first, second)],
        "latent": [figures.histograms(cells)],
        "distances": [figures.scatter([points_of(cells, c.distance, c.layer, c.when) for c in shown], shown)]
        if shown
        else [],
        "irregular": [figures.irregular(cells)],
    }
    words: dict[str, list[Figure]] = {name: [figure for figure, _ in some] for name, some in drawn.items()}
    sections = [
        Section(title="The images", text=[setting(cells)], figures=words["images"]),
        Section(title="When it works", text=grid_text(cells), tables=[grid_table(cells)], figures=words["grid"]),
        Section(title="All white, all black", text=white_text(cells), figures=words["white"]),
        Section(
            title="What theory predicts",
            text=[
                "Behind a first linear layer with BatchNorm, two-class white noise looks the same for equal share of the "
                "object and equal signed contrast to noise (μ₁ − μ₂) / σ. Four things follow, each tested on the net of "
                f"{named(cells.study.regular)}."
            ],
            tables=[theory_table(cells)],
        ),
        Section(
            title="One direction and the other",
            text=asymmetry_text(cells, first, second),
            tables=[asymmetry_table(cells, first, second)],
            figures=words["asymmetry"],
        ),
        Section(
            title="The latent space", text=latent_text(cells), tables=[latent_table(cells)], figures=words["latent"]
        ),
        Section(
            title="Does a distance predict the gain?",
            text=distance_text(found),
            tables=[
                rank_table(
                    found, "before", "Spearman's rank correlation of the gain with each distance before adaptation"
                ),
                rank_table(found, "after", "The same with the distance that is left after adaptation"),
                null_table(cells),
            ],
            figures=words["distances"],
        ),
        Section(
            title="Can it correct irregular training?",
            text=irregular_text(cells),
            tables=[irregular_table(cells)],
            figures=words["irregular"],
        ),
    ]
    document = Document(
        schema_version=1,
        acclimate=__version__,
        kind="study",
        title="When does BatchNorm adaptation work?",
        verdict=verdict(cells, strongest),
        sections=sections,
        command=command or repeat_command(cells.study, len(cells.seeds), folder),
        notes=notes(cells),
    )
    images = {figure.name: picture(drawing) for some in drawn.values() for figure, drawing in some}
    return write_document(document, images, folder), document


def repeat_command(study: BNStudy, seeds: int, folder: Path) -> str:
    """The command line of a named size, else Python that does the same."""
    for size, settings in SIZES.items():
        if settings == study:
            return shlex.join(["acclimate", "study", "bn", "--size", size, "--seeds", str(seeds), "--out", str(folder)])
    settings = json.loads(study.model_dump_json(exclude_defaults=True))
    return (
        "from pathlib import Path\nfrom acclimate.studies.bn import BNStudy, measure\n"
        "from acclimate.studies.bn_page import write_page\n\n"
        f"folder = Path({str(folder)!r})\n"
        f"write_page(measure(BNStudy(**{settings!r}), folder, seeds={seeds}), folder)"
    )


def verdict(cells: Cells, strongest: Correlation | None) -> str:
    """The study in two sentences."""
    shifted = [cell for (_, source, target), cell in cells.pairs.items() if source != target]
    before, after = (mean(cell[role]["iou"] for cell in shifted) for role in ("without", "with"))
    kinds = {
        "where the object stays on its side of the background's brightness": False,
        "where the contrast is inverted": True,
    }
    gains = {words: _mean_gain(cells, invert) for words, invert in kinds.items()}
    parts = [f"{points(value)} {words}" for words, value in gains.items() if not math.isnan(value)]
    said = (
        f"BatchNorm adaptation changes the mean IoU over {len(shifted)} shifts from {percent(before)} % to "
        f"{percent(after)} % ({points(after - before)} points): {', '.join(parts)}."
    )
    if strongest and strongest.rank is not None:
        said += f" The distance whose order follows the gain best is {_describe(strongest)}."
    return said


def _mean_gain(cells: Cells, invert: bool) -> float:
    return mean(gain(cell) for (_, s, t), cell in cells.pairs.items() if s != t and inverted(s, t) == invert)


def _describe(found: Correlation) -> str:
    return f"{found.words()} (rank correlation {_signed(found.rank or 0.0)}, {found.cells} cells)"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def setting(cells: Cells) -> str:
    """What was trained on what."""
    study = cells.study
    return (
        f"Shapes cut from Perlin noise; white noise of mean μ₁ inside and μ₂ outside, standard deviation {study.sigma:g}; "
        f"{100 * study.share[0]:g} to {100 * study.share[1]:g} % of each image is object. A U-Net of "
        f"{study.width * 2**study.depth} bottleneck channels is trained on {study.images} images of {study.side} x "
        f"{study.side} pixels for each of {len(study.sources)} sources ({study.steps} steps of {study.batch}, Adam "
        f"{study.lr:g}, no weight decay), adapted with {study.target_images} images of each of {len(study.tested())} "
        f"targets, and scored on as many others."
    )


# -- the grid ---------------------------------------------------------------------------------------------------------


def grid_text(cells: Cells) -> list[str]:
    """How many pairs are repaired, and which are harmed."""
    gains = over_seeds(cells, gain)
    after = over_seeds(cells, lambda cell: cell["with"]["iou"])
    home = {source: after[source, source] for source in cells.study.sources}
    shifted = [pair for pair in gains if pair[0] != pair[1]]
    same = [pair for pair in shifted if not inverted(*pair)]
    other = [pair for pair in shifted if inverted(*pair)]
    repaired = [pair for pair in same if after[pair] > 0.9 * home[pair[0]]]
    text = [
        f"With adaptation, {len(repaired)} of {len(same)} pairs with the same sign of contrast reach at least 90 % of the "
        f"net's IoU at home; of {len(other)} pairs with inverted contrast "
        f"{sum(after[pair] > 0.9 * home[pair[0]] for pair in other)} do."
    ]
    harmed = sorted((pair for pair in shifted if gains[pair] < -SMALL), key=lambda pair: gains[pair])
    if harmed:
        source, target = harmed[0]
        text.append(
            f"Adaptation harms {len(harmed)} of {len(shifted)} pairs by more than {percent(SMALL)} points, most of all "
            f"{named(source)} on {named(target)} ({points(gains[source, target])} points); "
            f"{sum(inverted(*pair) for pair in harmed)} of them have inverted contrast."
        )
    else:
        text.append(f"No pair is harmed by more than {percent(SMALL)} points.")
    return text


def grid_table(cells: Cells) -> Table:
    """Mean scores by kind of shift."""
    rows: list[list[Cell]] = []
    for wanted in figures.KINDS:
        some = [cell for (_, s, t), cell in cells.pairs.items() if kind(s, t) == wanted]
        if some:
            before, after = (mean(cell[role]["iou"] for cell in some) for role in ("without", "with"))
            better = mean(float(gain(cell) > SMALL) for cell in some)
            worse = mean(float(gain(cell) < -SMALL) for cell in some)
            rows.append([wanted, len(some), before, after, after - before, better, worse])
    return Table(
        caption=f"Mean foreground IoU by kind of shift, and the share of cells that gain or lose more than {SMALL:g}.",
        header=["shift", "cells", "without", "with", "gain", "better", "worse"],
        rows=rows,
    )


def white_text(cells: Cells) -> list[str]:
    """What share of the image is called object, both ways."""
    dark, bright = cells.study.dark_bright
    text = []
    for source, target, which in ((dark, bright, "brighter"), (bright, dark, "darker")):
        some = [cells.pairs[seed, source, target] for seed in cells.seeds]
        without, adapted, truth = (
            mean(cell[role][what] for cell in some)
            for role, what in (("without", "share"), ("with", "share"), ("without", "truth"))
        )
        called = "all white" if without > 0.95 else "all black" if without < 0.05 else "neither all white nor all black"
        text.append(
            f"The net of {named(source)} calls {percent(without)} % of the {which} images {named(target)} object: {called}; "
            f"with adaptation {percent(adapted)} % (truth {percent(truth)} %)."
        )
    middle = [sum(pair) / 2 for pair in (dark, bright)]
    return [
        *text,
        f"Without adaptation a net that cuts near the middle of its own two means, at {middle[0]:g} or {middle[1]:g}, puts "
        "all pixels of the other domain on one side.",
    ]


# -- theory -----------------------------------------------------------------------------------------------------------


def theory_table(cells: Cells) -> Table:
    """Each prediction with its numbers, and whether it held."""
    first = cells.theory[cells.seeds[0]]
    average: list[dict[str, Any]] = [
        {
            role: {what: mean(cells.theory[seed][i][role][what] for seed in cells.seeds) for what in first[i][role]}
            for role in ("without", "with")
        }
        for i in range(len(first))
    ]
    home = average[0]["with"]["iou"]
    rows: list[list[Cell]] = []
    for row, found in zip(first, average):
        before, after, complement = found["without"]["iou"], found["with"]["iou"], found["with"]["complement"]
        held = {
            "none": None,
            "positive": abs(after - home) <= SMALL,
            "negative": after < 0.1 and complement > 0.5,
            "proportion": after < before - SMALL,
            "noise": after < home - SMALL,
        }[row["prediction"]]
        answer = None if held is None else "yes" if held else "no"
        rows.append([row["name"], PREDICTIONS.get(row["prediction"]), before, after, complement, answer])
    return Table(
        caption=f"IoU of the net of {named(cells.study.regular)} on changed images, mean over seeds; the last but one column "
        f"is its IoU with the complement of the truth after adaptation. Exactly: within {SMALL:g} of the unchanged "
        f"images' IoU after adaptation; harm and loss: by more than {SMALL:g}; complement: IoU below 0.1, with the "
        "complement above 0.5.",
        header=["change", "prediction", "without", "with", "complement", "held"],
        rows=rows,
    )


def asymmetry_table(cells: Cells, first: Pair, second: Pair) -> Table:
    """Scores and what the theory says a BatchNorm layer sees of either domain."""
    rows: list[list[Cell]] = []
    for source, target in ((first, second), (second, first)):
        some = [cells.pairs[seed, source, target] for seed in cells.seeds]
        before, after = (mean(cell[role]["iou"] for cell in some) for role in ("without", "with"))
        seen = centres(cells.study, source)
        rows.append([f"{named(source)} to {named(target)}", before, after, after - before, *seen.values()])
    return Table(
        caption="Both directions, with the source's signed contrast (μ₁ − μ₂) / σ and where its classes and its noise lie "
        "after normalisation, by theory.",
        header=["direction", "without", "with", "gain", "(μ₁ − μ₂) / σ", "z object", "z background", "noise"],
        rows=rows,
    )


def asymmetry_text(cells: Cells, first: Pair, second: Pair) -> list[str]:
    """Which direction gains more, by what, and why."""
    roles = ("without", "with")
    there, back = (
        [mean(cells.pairs[seed, source, target][role]["iou"] for seed in cells.seeds) for role in roles]
        for source, target in ((first, second), (second, first))
    )
    gains = [there[1] - there[0], back[1] - back[0]]
    text = [
        f"From {named(first)} to {named(second)} adaptation takes the IoU from {percent(there[0])} to {percent(there[1])} % "
        f"({points(gains[0])} points), from {named(second)} to {named(first)} from {percent(back[0])} to "
        f"{percent(back[1])} % ({points(gains[1])} points)."
    ]
    start, end = back[0] - there[0], there[1] - back[1]
    text.append(
        f"Of the difference of {points(gains[0] - gains[1])} points, {points(start)} come from the scores without "
        f"adaptation and {points(end)} from those with it."
    )
    a, b = (centres(cells.study, pair)["contrast"] for pair in (first, second))
    if a * b < 0:
        why = (
            "The contrast is inverted, which normalisation cannot undo in either direction: what differs is where each "
        )
        why += "net's own threshold lies among the other's values before adaptation."
    elif math.isclose(abs(a), abs(b), rel_tol=0.01):
        why = "Share and signed contrast to noise are equal, so that theory sees one domain after normalisation: the "
        why += "directions can differ before adaptation only, by which side of the net's threshold the target lies on."
    else:
        low, high = (first, second) if abs(a) < abs(b) else (second, first)
        why = f"The contrast to noise of {named(low)} is lower ({min(abs(a), abs(b)):.2f} against "
        why += f"{max(abs(a), abs(b)):.2f}): after normalisation its classes overlap more, so the net of {named(high)} "
        why += (
            f"meets noise that it never saw, while the net of {named(low)} meets images that are easier than its own."
        )
    return [*text, why]


# -- latent space -----------------------------------------------------------------------------------------------------


def latent_table(cells: Cells) -> Table:
    """How degenerate the bottleneck is in each of the four cases."""
    rows: list[list[Cell]] = [
        [net, place, facts["channels"], facts["dead"], *(facts["at zero"][r] for r in ("source", "target", "adapted"))]
        for net, places in cells.latent["nets"].items()
        for place, facts in places.items()
    ]
    return Table(
        caption="Share of dead channels at the bottleneck (variance on the source below a millionth of the median channel's) "
        "and share of values that are exactly zero.",
        header=["trained with", "read", "channels", "dead", "zero: source", "zero: target", "zero: adapted"],
        rows=rows,
    )


def latent_text(cells: Cells) -> list[str]:
    """The artefact in numbers."""
    nets = cells.latent["nets"]
    bad, good = nets["weight decay"]["after the ReLU"], nets["no weight decay"]["before the ReLU"]
    return [
        f"After the ReLU of the net trained with weight decay {cells.latent['decay']:g}, {percent(bad['at zero']['source'])} "
        f"% of the source's values are exactly zero and {percent(bad['dead'])} % of the channels are dead; before the ReLU "
        f"of the net trained without, {percent(good['at zero']['source'])} % and {percent(good['dead'])} %.",
        "Distances below are taken before the ReLU, of nets trained without weight decay.",
    ]


# -- distances --------------------------------------------------------------------------------------------------------


def rank_table(found: list[Correlation], when: str, caption: str) -> Table:
    """Distances by layers."""
    chosen = [c for c in found if c.when == when]
    layers, distances = (list(dict.fromkeys(getattr(c, name) for c in chosen)) for name in ("layer", "distance"))
    ranks = {(c.distance, c.layer): c.rank for c in chosen}
    return Table(
        caption=f"{caption}, over all cells; each distance less its mean between halves of the source. Layers: the last "
        "BatchNorm of each block, before its ReLU. A blank was not measured.",
        header=["distance", *layers],
        rows=[[distance, *(ranks[distance, layer] for layer in layers)] for distance in distances],
    )


def null_table(cells: Cells) -> Table:
    """What each distance says at the bottleneck where nothing has changed, and where something has."""
    rows: list[list[Cell]] = []
    for distance in cells.study.distances:
        nulls = [source["null"][distance].get(BOTTLENECK, {}) for source in cells.sources.values()]
        some = [cell["distances"][distance].get(BOTTLENECK, {}) for (_, s, t), cell in cells.pairs.items() if s != t]
        values = [
            mean(null.get("mean") for null in nulls),
            mean(null.get("quantile") for null in nulls),
            *(mean(cell.get(when) for cell in some) for when in ("before", "after")),
        ]
        rows.append([distance, *(None if math.isnan(value) else value for value in values)])
    return Table(
        caption="Each distance at the bottleneck: between halves of the source (mean, and 95 % quantile over splits by "
        "image), and between source and shifted target before and after adaptation; means over sources and cells.",
        header=["distance", "source, mean", "source, 95 %", "before", "after"],
        rows=rows,
    )


def distance_text(found: list[Correlation]) -> list[str]:
    """The best before, the best after, and the document's."""
    text = []
    for when in ("before", "after"):
        strongest = best([c for c in found if c.when == when])
        if strongest:
            text.append(f"Strongest {when} adaptation: {_describe(strongest)}.")
    own = [c for c in found if (c.distance, c.layer, c.when) == (DOCUMENT, BOTTLENECK, "before") and c.rank is not None]
    if own:
        text.append(f"The Bhattacharyya distance per channel, as in the original study: {_describe(own[0])}.")
    text.append(
        f"The strongest of {len(found)} correlations is chosen after the fact, on the same cells, which share nets and "
        "targets: read it as a candidate, not as a test."
    )
    return text


# -- irregular training -----------------------------------------------------------------------------------------------


def irregular_table(cells: Cells) -> Table:
    """Own domain and another brightness, with statistics from three places."""
    roles = ("without", "source statistics", "target statistics")
    seeds = range(cells.study.irregular_seeds)
    rows: list[list[Cell]] = [
        [
            name,
            *(
                mean(cells.irregular[s, name][place][role] for s in seeds)
                for place in ("own", "moved")
                for role in roles
            ),
        ]
        for name in cells.study.irregular
    ]
    moved = named(cells.study.moved)
    return Table(
        caption=f"Mean foreground IoU over {len(seeds)} seeds on the own domain {named(cells.study.regular)} and on {moved}: "
        "with the statistics of training, estimated anew on the training images, and on images of the tested domain.",
        header=[
            "training",
            *(f"{where}: {role}" for where in ("own", moved) for role in ("as trained", "source", "target")),
        ],
        rows=rows,
    )


def irregular_text(cells: Cells) -> list[str]:
    """Yes or no for each kind of training: every seed has to gain."""
    text = []
    answers = []
    seeds = range(cells.study.irregular_seeds)
    kinds = list(cells.study.irregular)
    full = mean(cells.irregular[s, kinds[0]]["own"]["without"] for s in seeds)
    for name in kinds:
        own = [cells.irregular[s, name]["own"] for s in seeds]
        gains = [found["source statistics"] - found["without"] for found in own]
        before, after, fresh = (mean(found[role] for found in own) for role in own[0])
        helps = min(gains) > 0 and mean(gains) > SMALL
        if name != kinds[0]:
            answers.append(helps)
        lost = full - before
        back = (
            f", {percent((after - before) / lost)} % of what it lacks to the regular net" if helps and lost > 0 else ""
        )
        text.append(
            f"{name}: {'yes' if helps else 'no'}. On its own domain {percent(before)} % as trained, {percent(after)} % with "
            f"statistics estimated anew on the training images ({', '.join(points(value) for value in gains)} points by "
            f"seed{back}), {percent(fresh)} % on fresh images."
        )
    overall = "yes" if answers and all(answers) else "no" if not any(answers) else "it depends on the irregularity"
    return [
        f"Without any shift, can new statistics correct a net whose training was irregular? Here: {overall}. Yes means more "
        f"than {percent(SMALL)} points on average and a gain in every seed, on the own domain.",
        *text,
    ]


def notes(cells: Cells) -> list[str]:
    """How to read the page."""
    return [
        "IoU: of the object, from one confusion matrix over all scored images; gain: IoU with adaptation less IoU without.",
        "Adaptation: the moments of each BatchNorm layer's input on unlabelled target images replace the source's; no weight "
        "changes. The images it is estimated on are not those that are scored.",
        "Target labels are used to score, and for nothing else.",
        f"The grid has {len(cells.seeds)} {'seed' if len(cells.seeds) == 1 else 'seeds'}; cells of one source share a net, so "
        "they are not independent.",
        "Distances after adaptation compare the source through the source's statistics with the target through its own: "
        "mean and variance at the input of each layer then agree by construction, and what is left is shape, correlation "
        "between channels, and place.",
    ]
