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
    changes,
    correlations,
    gain,
    inverted,
    kind,
    mean,
    measured,
    most_asymmetric,
    named,
    over_seeds,
)
from acclimate.studies.bn_numbers import points as points_of

BOTTLENECK = "bottleneck"
DOCUMENT = {"bhattacharyya-histogram": "from histograms", "bhattacharyya": "of Gaussians"}  # its density is not stated
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
    shown = list(dict.fromkeys([*([strongest] if strongest else []), *documents(found)]))
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
            text=[*distance_text(found), scale_text(cells)],
            tables=[
                chosen_table(found),
                rank_table(
                    cells,
                    found,
                    "before",
                    "Spearman's rank correlation of the gain with each distance before adaptation",
                ),
                rank_table(cells, found, "after", "The same with the distance that is left after adaptation"),
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
        verdict=verdict(cells, found),
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


def verdict(cells: Cells, found: list[Correlation]) -> str:
    """The study in two or three sentences."""
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
    strongest = best(found)
    if strongest:
        said += (
            f" The distance whose order follows the gain best is {_describe(strongest)}, the best of "
            f"{len(measured(found))}, chosen after the fact"
        )
        said += "." if strongest.same is None else f"; while the contrast keeps its sign, {_signed(strongest.same)}."
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
    pairs = (*study.sources, *study.tested())
    room = min(min(value, 1 - value) for pair in pairs for value in pair) / study.sigma
    cut = max(cell["clipped"] for cell in cells.pairs.values())
    cut_in_theory = max(row["clipped"] for rows in cells.theory.values() for row in rows)
    return (
        f"Shapes cut from Perlin noise; white noise of mean μ₁ inside and μ₂ outside, standard deviation {study.sigma:g}; "
        f"{100 * study.share[0]:g} to {100 * study.share[1]:g} % of each image is object. A U-Net of "
        f"{study.width * 2**study.depth} bottleneck channels is trained on {study.images} images of {study.side} x "
        f"{study.side} pixels for each of {len(study.sources)} sources ({study.steps} steps of {study.batch}, Adam "
        f"{study.lr:g}, no weight decay), adapted with {study.target_images} images of each of {len(study.tested())} "
        f"targets, and scored on as many others. Images have 8 bits; so that the noise stays what theory speaks of and is "
        f"not cut off at black and white, all means lie at least {room:.1f} standard deviations from both: at most "
        f"{100 * cut:.2f} % of the pixels of a target are black or white ({100 * cut_in_theory:.2f} % in the tests of "
        "theory, where the noise is made stronger)."
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
        f"With adaptation, {len(repaired)} of {len(same)} pairs with the same sign of contrast reach more than 90 % of the "
        f"net's IoU at home, its statistics estimated anew there too; of {len(other)} pairs with inverted contrast "
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
            rows.append([wanted, len(some), *map(_short, (before, after, after - before, better, worse))])
    return Table(
        caption=f"Mean foreground IoU by kind of shift, and the share of cells that gain or lose more than {SMALL:g}.",
        header=["shift", "cells", "without", "with", "gain", "better", "worse"],
        rows=rows,
    )


def white_text(cells: Cells) -> list[str]:
    """What share of the image is called object, both ways."""
    dark, bright = cells.study.dark_bright
    text: list[str] = []
    called: dict[str, float] = {}
    for source, target, which in ((dark, bright, "brighter"), (bright, dark, "darker")):
        some = [cells.pairs[seed, source, target] for seed in cells.seeds]
        without, adapted, truth = (
            mean(cell[role][what] for cell in some)
            for role, what in (("without", "share"), ("with", "share"), ("without", "truth"))
        )
        called[which] = without
        word = "all white" if without > 0.95 else "all black" if without < 0.05 else "neither all white nor all black"
        text.append(
            f"The net of {named(source)} calls {percent(without)} % of the {which} images {named(target)} object: {word}; "
            f"with adaptation {percent(adapted)} % (truth {percent(truth)} %)."
        )
    if called["brighter"] > 0.95 and called["darker"] < 0.05:
        middle = [sum(pair) / 2 for pair in (dark, bright)]
        text.append(
            f"So would a net that cuts at the middle of its own two means, {middle[0]:g} or {middle[1]:g}: the other "
            f"domain's means lie {(min(bright) - middle[0]) / cells.study.sigma:.1f} standard deviations of the noise above "
            f"the first and {(middle[1] - max(dark)) / cells.study.sigma:.1f} below the second, or more."
        )
    return text


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
    for i, (row, found) in enumerate(zip(first, average)):
        cut = mean(100 * cells.theory[seed][i]["clipped"] for seed in cells.seeds)
        before, after, complement = found["without"]["iou"], found["with"]["iou"], found["with"]["complement"]
        held = {
            "none": None,
            "positive": abs(after - home) <= SMALL,
            "negative": after < 0.1 and complement > 0.5,
            "proportion": after < before - SMALL,
            "noise": after < home - SMALL,
        }[row["prediction"]]
        answer = None if held is None else "yes" if held else "no"
        rows.append(
            [row["name"], PREDICTIONS.get(row["prediction"]), *map(_short, (before, after, complement, cut)), answer]
        )
    return Table(
        caption=f"IoU of the net of {named(cells.study.regular)} on changed images, mean over seeds; complement: IoU "
        "with the complement of the truth after adaptation; clipped: per cent of pixels that are black or white. "
        f"Exactly: within {SMALL:g} of the unchanged "
        f"images' IoU after adaptation; harm and loss: by more than {SMALL:g}; complement: IoU below 0.1, with the "
        "complement above 0.5.",
        header=["change", "prediction", "without", "with", "complement", "clipped", "held"],
        rows=rows,
    )


def asymmetry_table(cells: Cells, first: Pair, second: Pair) -> Table:
    """Scores and what the theory says a BatchNorm layer sees of either domain."""
    rows: list[list[Cell]] = []
    for source, target in ((first, second), (second, first)):
        some = [cells.pairs[seed, source, target] for seed in cells.seeds]
        before, after = (mean(cell[role]["iou"] for cell in some) for role in ("without", "with"))
        seen = centres(cells.study, source)
        scores = map(_short, (before, after, after - before, *seen.values()))
        rows.append([f"{named(source)} to {named(target)}", *scores])
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
        [
            net,
            place,
            facts["channels"],
            *map(_short, (facts["dead"], *(facts["at zero"][r] for r in ("source", "target", "adapted")))),
        ]
        for net, places in cells.latent["nets"].items()
        for place, facts in places.items()
    ]
    return Table(
        caption="Share of dead channels at the bottleneck (variance on the source below a millionth of the median of the "
        "channels that vary) and share of values that are exactly zero.",
        header=["trained with", "read", "channels", "dead", "zero: source", "zero: target", "zero: adapted"],
        rows=rows,
    )


def latent_text(cells: Cells) -> list[str]:
    """The artefact in numbers."""
    nets = cells.latent["nets"]
    zero, dead = (
        [
            value(nets[net][place])
            for place in ("after the ReLU", "before the ReLU")
            for net in ("weight decay", "no weight decay")
        ]
        for value in (lambda facts: facts["at zero"]["source"], lambda facts: facts["dead"])
    )
    return [
        f"{what}: after the ReLU {percent(found[0])} % with weight decay {cells.latent['decay']:g} and {percent(found[1])} % "
        f"without, before the ReLU {percent(found[2])} % and {percent(found[3])} %. {removed(*found[:3])}"
        for what, found in (("The source's values at exactly zero", zero), ("Dead channels", dead))
    ] + ["Distances below are taken before the ReLU, of nets trained without weight decay."]


def removed(both: float, without_decay: float, before: float) -> str:
    """Which of the two remedies takes away a share found after the ReLU with weight decay: the one that halves it."""
    if both < 0.001:
        return "There is nothing to remove."
    remedies = {"training without weight decay": without_decay, "reading before the ReLU": before}
    help_, fail = ([name for name, left in remedies.items() if (left <= both / 2) == helps] for helps in (True, False))
    if not fail:
        return "Either remedy alone removes them: training without weight decay, or reading before the ReLU."
    if not help_:
        return "Neither training without weight decay nor reading before the ReLU removes them."
    return f"What removes them is {help_[0]}; {fail[0]} alone does not."


# -- distances --------------------------------------------------------------------------------------------------------


def documents(found: list[Correlation]) -> list[Correlation]:
    """The original study's distance at the bottleneck: both densities, before and after adaptation."""
    wanted = [(distance, BOTTLENECK, when) for distance in DOCUMENT for when in ("before", "after")]
    known = {(c.distance, c.layer, c.when): c for c in measured(found)}
    return [known[name] for name in wanted if name in known]


def chosen_table(found: list[Correlation]) -> Table:
    """The strongest and the document's: over all cells, and while the contrast keeps its sign."""
    strongest = [best([c for c in found if c.when == when]) for when in ("before", "after")]
    chosen = dict.fromkeys(c for c in (*strongest, *documents(found)) if c is not None)
    return Table(
        caption="Rank correlation with the gain of the strongest before and after adaptation and of the original study's: "
        "over all cells; over shifted cells whose contrast keeps its sign; and its square there, the share of the variance "
        "of the gain's ranks that the distance explains.",
        header=["distance", "layer", "adaptation", "all", "same sign", "explained"],
        rows=[
            [c.distance, c.layer, c.when, _short(c.rank), _short(c.same), _short(None if c.same is None else c.same**2)]
            for c in chosen
        ],
    )


def rank_table(cells: Cells, found: list[Correlation], when: str, caption: str) -> Table:
    """Distances by layers."""
    chosen = [c for c in found if c.when == when]
    layers, distances = (list(dict.fromkeys(getattr(c, name) for c in chosen)) for name in ("layer", "distance"))
    ranks = {(c.distance, c.layer): c.rank for c in chosen}
    slow = [name for name in cells.study.at_bottleneck if name in distances]
    return Table(
        caption=f"{caption}, over all cells; each distance less its mean between halves of the source. Layers: the last "
        "BatchNorm of each block, before its ReLU. A blank could not be taken"
        + (f", or was not: {', '.join(slow)} at the {BOTTLENECK} only." if slow else "."),
        header=["distance", *layers],
        rows=[[distance, *(_short(ranks[distance, layer]) for layer in layers)] for distance in distances],
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
        rows.append([distance, *(None if math.isnan(value) else _short(value) for value in values)])
    return Table(
        caption="Each distance at the bottleneck, in units of the source's deviations: between halves of the source (mean, "
        f"and 95 % quantile, over {cells.study.null_repeats} random splits by image), and between "
        "source and shifted target before and after adaptation; means over sources and cells.",
        header=["distance", "source, mean", "source, 95 %", "before", "after"],
        rows=rows,
    )


def distance_text(found: list[Correlation]) -> list[str]:
    """The best before, the best after, what is left of them while the contrast keeps its sign, and the document's."""
    text = []
    for when in ("before", "after"):
        strongest = best([c for c in found if c.when == when])
        if strongest:
            text.append(f"Strongest {when} adaptation: {_describe(strongest)}. {_within(strongest)}")
    own = documents(found)
    if own:
        ranks = ", ".join(f"{_signed(c.rank or 0.0)} {DOCUMENT[c.distance]} {c.when} adaptation" for c in own)
        text.append(
            "The original study took the Bhattacharyya distance per channel, without assuming Gaussians; its density "
            "estimate is not stated there, nor whether it was taken before or after adaptation. Rank correlations at the "
            f"{BOTTLENECK}: {ranks}."
        )
    text.append(
        f"The strongest of {len(measured(found))} correlations is chosen after the fact, on the same cells, which share nets and "
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
            changes(cells.study, name),
            *(
                _short(mean(cells.irregular[s, name][place][role] for s in seeds))
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
            "changed",
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
            f"{name} ({changes(cells.study, name)}): {'yes' if helps else 'no'}. On its own domain {percent(before)} % "
            f"as trained, {percent(after)} % with statistics estimated anew on the training images "
            f"({', '.join(points(value) for value in gains)} points by seed{back}), {percent(fresh)} % on fresh images."
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
        "mean and variance at the output of each BatchNorm layer then agree, up to training's running averages and to the "
        "batches in which the statistics were taken, and what is left is shape, correlation between channels, and place.",
    ]


def scale_text(cells: Cells) -> str:
    """In what units distances are taken, and what was left out."""
    channels, unusable = (sum(source[what] for source in cells.sources.values()) for what in ("channels", "unusable"))
    return (
        "Each channel is divided by the source's standard deviation before any distance is taken, so that channels of "
        f"large spread do not decide alone; {unusable} of {channels} channels (all layers, sources and seeds), which hardly "
        "vary on the source, are left out. The classifier never sees one image in both training and test."
    )


def _within(found: Correlation) -> str:
    """What is left of a correlation when both signs of contrast are not thrown together."""
    if found.same is None:
        return f"Within the {found.same_cells} cells whose contrast keeps its sign it cannot be taken."
    apart = abs(found.same) < abs(found.rank or 0.0)
    return (
        f"Within the {found.same_cells} shifted cells whose contrast keeps its sign, changes of brightness and contrast "
        f"alone, its rank correlation is {_signed(found.same)}: it explains {percent(found.same**2)} % of the variance of the "
        "gain's ranks." + (" That inverted contrast lies apart adds to the number over all cells." if apart else "")
    )


def _short(value: float | None) -> float | None:
    """A table's number with three decimals, and no minus before zero."""
    return None if value is None else round(value, 3) + 0.0
