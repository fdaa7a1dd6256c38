"""From the cells of the DANN study to its page: every sentence follows from the numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from acclimate import __version__
from acclimate.report.compose import minutes as written
from acclimate.report.compose import percent, points
from acclimate.report.document import Cell, Document, Figure, Section, Table, picture, write_document
from acclimate.studies import dann_figures as figures
from acclimate.studies.dann import BUNDLED, CONTROL, FOOLED, HELPED, NONE, PAPER, SIZES, STARTS, Cells, DANNStudy
from acclimate.studies.dann_numbers import (
    SURE,
    Difference,
    Row,
    by_seed,
    deviation,
    difference,
    fate,
    kept_right,
    kept_shares,
    mean,
    minutes,
    names,
    path,
    pseudo_seeds,
    schedules,
    started,
    trusted,
    weights,
)

PUBLISHED = "52.25 % without adaptation and 76.66 % with DANN (Ganin et al., JMLR 2016, MNIST to MNIST-M)"


def write_page(cells: Cells, folder: Path, command: str | None = None) -> tuple[Path, Document]:
    """``report.html`` and ``report.json`` in ``folder``."""
    drawn = {
        "data": [figures.examples(cells)],
        "critic": [figures.curves(cells), figures.maps(cells)],
        "source": [figures.paired(cells)],
        "weight": [figures.weight_panels(cells), figures.schedule_panels(cells)],
        "labels": [figures.confidence_panels(cells), figures.self_training_panels(cells)],
    }
    words: dict[str, list[Figure]] = {name: [figure for figure, _ in some] for name, some in drawn.items()}
    sections = [
        Section(title="The experiment", text=[setting(cells)], figures=words["data"]),
        Section(
            title="1. Three branches, but no reversal: what happens?",
            text=critic_text(cells),
            tables=[critic_table(cells)],
            figures=words["critic"],
        ),
        Section(
            title="2. Why may the source degrade a bit?",
            text=source_text(cells),
            tables=[source_table(cells)],
            figures=words["source"],
        ),
        Section(
            title="3. How large should the reversed gradient be?",
            text=[*weight_text(cells), *schedule_text(cells)],
            tables=[weight_table(cells), schedule_table(cells)],
            figures=words["weight"],
        ),
        Section(
            title="4. Pseudo-labels",
            text=label_text(cells),
            tables=[start_table(cells), school_table(cells)],
            figures=words["labels"],
        ),
    ]
    document = Document(
        schema_version=1,
        acclimate=__version__,
        kind="study",
        title="What does a reversed gradient do?",
        verdict=verdict(cells),
        sections=sections,
        command=command or repeat_command(cells.study, len(cells.seeds), folder),
        notes=notes(cells),
    )
    images = {figure.name: picture(drawing) for some in drawn.values() for figure, drawing in some}
    return write_document(document, images, folder), document


def repeat_command(study: DANNStudy, seeds: int, folder: Path) -> str:
    """The command line of a named size, else Python that does the same."""
    for size, settings in SIZES.items():
        if study.pair in (PAPER, BUNDLED) and settings == study.replace(pair=None):
            return shlex.join(
                ["acclimate", "study", "dann", "--size", size, "--seeds", str(seeds), "--out", str(folder)]
            )
    settings = json.loads(study.model_dump_json(exclude_defaults=True))
    return (
        "from pathlib import Path\nfrom acclimate.studies.dann import DANNStudy, measure\n"
        "from acclimate.studies.dann_page import write_page\n\n"
        f"folder = Path({str(folder)!r})\n"
        f"write_page(measure(DANNStudy(**{settings!r}), folder, seeds={seeds}), folder)"
    )


# -- words ------------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> str:
    """``63.5 ± 1.6``; without a deviation for one value; "diverged" for none."""
    if not values:
        return "diverged"
    around = deviation(values)
    return percent(mean(values) or 0.0) + ("" if around is None else f" ± {percent(around)}")


def share(value: float | None) -> str:
    return "diverged" if value is None else f"{percent(value)} %"


def compared(found: Difference) -> str:
    """``lower by 1.1 points (by seed −1.0, −1.2)``, or ``not clearly other (...)`` where seeds disagree."""
    listed = ", ".join(points(value) for value in found.by_seed)
    if not found.by_seed:
        return "not known, since a training diverged"
    if not found.same_sign:
        return f"not clearly other ({points(found.mean)} points on average; by seed {listed})"
    seeds = f"by seed {listed}" if len(found.by_seed) > 1 else "one seed"
    return f"{'higher' if found.mean > 0 else 'lower'} by {percent(abs(found.mean))} points ({seeds})"


def verdict(cells: Cells) -> str:
    """The study in a few sentences."""
    gained, lost, helped = (
        difference(cells, *which) for which in ((FOOLED, "target"), (FOOLED, "source"), (HELPED, "target"))
    )
    critics = {name: mean(by_seed(cells, name, "critic accuracy")) for name in names()}
    said = [
        f"DANN changes the target's accuracy from {spread(by_seed(cells, NONE, 'target'))} % to "
        f"{spread(by_seed(cells, FOOLED, 'target'))} % ({points(gained.mean)} points) and the source's by "
        f"{points(lost.mean)}.",
        f"With the same three branches but without the reversal the critic ends at {share(critics[HELPED])}, not "
        f"{share(critics[FOOLED])}, and the target changes by {points(helped.mean)} points.",
    ]
    first = started(cells, STARTS[0])["thresholds"][SURE]
    if first["right"] is not None:
        said.append(
            f"Before adaptation the network is surer than {first['threshold']:g} of {share(first['kept'])} of the target, and "
            f"right in {share(first['right'])} of those (an oracle's figure)."
        )
    return " ".join(said)


def setting(cells: Cells) -> str:
    """What was trained on what."""
    study, facts = cells.study, cells.facts
    images = facts["images"]
    return (
        f"Source: {images['source']:,} labelled images of {facts['names']['source']}; target: {images['target']:,} images of "
        f"{facts['names']['target']}, whose labels no training sees. The network is the paper's for MNIST (two convolutions, "
        f"three dense layers, no BatchNorm; a critic of 100 hidden units on the flattened convolutions), {study.steps:,} steps "
        f"of {study.batch} + {study.batch} images, SGD {study.lr:g} with momentum 0.9, {study.precision}, on {facts['device']}"
        + (f" ({facts['threads']} thread{'s' if facts['threads'] > 1 else ''})" if facts["device"] == "cpu" else "")
        + f". Scores: accuracy on {images['source test']:,} and {images['target test']:,} test images at the last step, "
        f"{len(cells.seeds)} {'seed' if len(cells.seeds) == 1 else 'seeds'}; {written(minutes(cells))} minutes for everything."
    )


# -- 1: the reversal --------------------------------------------------------------------------------------------------


def critic_text(cells: Cells) -> list[str]:
    """What the critic ends with, and what that does to the target."""
    critics = {name: mean(by_seed(cells, name, "critic accuracy")) for name in names()}
    areas = {name: mean(by_seed(cells, name, "area")) for name in names()}
    helped, fooled = (difference(cells, name, "target") for name in (HELPED, FOOLED))
    none_area, helped_area, fooled_area = ((areas[name] or 0.0) for name in names())
    return [
        "Without the reversal the network simply has a second task, naming the domain, and the features help with it. The "
        f"critic then names {share(critics[HELPED])} of the domains rightly at the end; where the features ignore it (no "
        f"adaptation, the critic only looks on) {share(critics[NONE])}; where they work against it (DANN) "
        f"{share(critics[FOOLED])}.",
        f"Target accuracy against no adaptation: without the reversal {compared(helped)}; with it {compared(fooled)}.",
        "A fooled critic is not yet an aligned target: it may just be a weak critic. So a fresh linear classifier is trained on "
        f"the finished features. Area under its ROC curve: {none_area:.3f} without adaptation, {helped_area:.3f} without the "
        f"reversal, {fooled_area:.3f} with DANN (0.5: it cannot tell). "
        + (
            "So after this many steps the domains can still be told apart: DANN has narrowed the gap, not closed it."
            if fooled_area > 0.75
            else "So the features of the two domains have become hard to tell apart."
        ),
    ]


def critic_table(cells: Cells) -> Table:
    """The three networks."""
    rows: list[list[Cell]] = [
        [
            name,
            *(spread(by_seed(cells, name, what)) for what in ("critic accuracy", "source", "target")),
            round(mean(by_seed(cells, name, "area")) or 0.0, 3),
        ]
        for name in names()
    ]
    return Table(
        caption=f"Per cent at the last step, mean ± deviation over {len(cells.seeds)} seeds; the critic over the last "
        f"{max(1, cells.study.steps // cells.study.looks)} steps; area: of a fresh linear classifier of the domain.",
        header=["network", "critic", "source", "target", "area"],
        rows=rows,
    )


# -- 2: the source ----------------------------------------------------------------------------------------------------


def source_text(cells: Cells) -> list[str]:
    """Whether it degrades here, and the evidence for why."""
    found = difference(cells, FOOLED, "source")
    losses = [mean(by_seed(cells, name, "supervised")) or 0.0 for name in (NONE, FOOLED)]
    worse = losses[1] > 1.1 * losses[0]
    grid = [row for row in weights(cells, True) if row.source is not None]
    text = [
        f"With DANN the source's accuracy is {compared(found)}. The pairs share first weights and batches; only the reversed "
        "gradient differs.",
        "The features now serve two aims, from the same small network. What tells the domains apart may not stay in them, even "
        "where it also tells the classes apart, and the classifier has to do with the rest.",
        f"The loss on the source's own training batches ends at {losses[1]:.3f}, without adaptation at {losses[0]:.3f}"
        + (": it fits its own training data less well, so this is no matter of overfitting." if worse else "."),
    ]
    if len(grid) > 1:
        listed = ", ".join(f"{percent(row.source or 0.0)} % at {row.weight:g}" for row in grid)
        text.append(f"By weight, with the ramp: {listed} ({_over(cells.study.weight_seeds)}).")
    return text


def _over(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"mean over {seeds} seeds"


def source_table(cells: Cells) -> Table:
    """By seed, without and with."""
    rows: list[list[Cell]] = []
    for seed in cells.seeds:
        ends = [cells.runs[seed, name]["final"] for name in (NONE, FOOLED)]
        values = [None if found is None else found[role] for role in ("source", "target") for found in ends]
        shown: list[Cell] = [None if value is None else f"{percent(value)}" for value in values]
        rows.append([f"seed {seed}", *shown])
    return Table(
        caption="Accuracy in per cent on all test images, by seed.",
        header=["", "source: none", "source: DANN", "target: none", "target: DANN"],
        rows=rows,
    )


# -- 3: the weight ----------------------------------------------------------------------------------------------------


def weight_text(cells: Cells) -> list[str]:
    """What small and large weights do, with the ramp and without."""
    text = []
    base = mean(row.target for row in weights(cells, True) if row.game.name == NONE)
    for ramp, label in ((True, "With the ramp"), (False, "Without it")):
        rows = weights(cells, ramp)
        ended = [row for row in rows if row.target is not None]
        best = max(ended, key=lambda row: row.target or 0.0, default=None)
        failed = [f"Weight {row.weight:g} {row.what}" for row in rows if row.what]
        said = f"{label}: "
        if best is not None:
            said += f"the target is best at weight {best.weight:g} ({share(best.target)}"
            said += f", {points((best.target or 0.0) - base)} to no adaptation)" if base is not None else ")"
            said += ", chosen after the fact with target labels. "
        said += f"{'. '.join(failed)}." if failed else "No training diverged or collapsed."
        text.append(said)
    dead = [row for ramp in (True, False) for row in weights(cells, ramp) if given_up(row)]
    if dead:
        places = " and ".join(
            f"weight {row.weight:g} {'with' if row.game.settings.get('ramp', True) else 'without'} the ramp (area "
            f"{row.area:.3f})"
            for row in dead
        )
        text.append(
            f"At {places} the critic ends at chance, and yet a fresh classifier tells the domains apart: the critic was "
            "silenced, the features were not aligned. A critic at 50 % proves nothing by itself."
        )
    return [
        "The weight decides how much of the critic's gradient, with its sign turned, reaches the features; the critic itself "
        "always learns at full rate. Too small, and the features go their own way. Too large, and they serve only to confuse: "
        "the critic's gradient drowns the classifier's, features lose the classes too, or the training blows up.",
        *text,
    ]


def given_up(row: Row) -> bool:
    """Whether the critic is at chance although the domains are far from aligned."""
    return row.critic is not None and row.area is not None and abs(row.critic - 0.5) < 0.03 and row.area > 0.9


def weight_table(cells: Cells) -> Table:
    """All weights."""
    rows: list[list[Cell]] = []
    for ramp in (True, False):
        for row in weights(cells, ramp):
            if row.game.name != NONE or ramp:
                rows.append([f"{row.weight:g}", "" if row.game.name == NONE else _yes(ramp), *_cells(row)])
    return Table(
        caption=f"Per cent at the last step, {_over(cells.study.weight_seeds)}; area: of a fresh linear classifier of the "
        "domain.",
        header=["weight", "ramp", "target", "source", "critic", "area", "what happened"],
        rows=rows,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _cells(row: Row) -> list[Cell]:
    shown: list[Cell] = [None if value is None else percent(value) for value in (row.target, row.source, row.critic)]
    return [*shown, None if row.area is None else round(row.area, 3), row.what or None]


def schedule_text(cells: Cells) -> list[str]:
    """What ramp and annealing are worth here."""
    found = schedules(cells)
    text = []
    for name, with_, without in (
        ("The ramp of the weight (with the annealed rate)", (True, True), (False, True)),
        ("The annealing of the learning rate (with the ramp)", (True, True), (True, False)),
    ):
        pairs = list(zip(found[with_].targets, found[without].targets))
        if found[with_].diverged or found[without].diverged:
            text.append(f"{name}: with it {found[with_].what or 'fine'}, without it {found[without].what or 'fine'}.")
            continue
        gain = Difference([a - b for a, b in pairs])
        text.append(f"{name}: with it the target's accuracy is {compared(gain)}.")
    return text


def schedule_table(cells: Cells) -> Table:
    """The four combinations."""
    rows: list[list[Cell]] = [
        [_yes(ramp), "annealed" if annealed else "constant", *_cells(row)]
        for (ramp, annealed), row in schedules(cells).items()
    ]
    return Table(
        caption=f"Ramp of the weight and annealing of the learning rate at weight 1; per cent, "
        f"{_over(cells.study.schedule_seeds)}.",
        header=["ramp", "learning rate", "target", "source", "critic", "area", "what happened"],
        rows=rows,
    )


# -- 4: pseudo-labels -------------------------------------------------------------------------------------------------


def label_text(cells: Cells) -> list[str]:
    """What it is, whom one can trust, and why errors stay."""
    study = cells.study
    sure = {name: started(cells, name)["thresholds"][SURE] for name in STARTS}
    limit = sure[STARTS[0]]["threshold"]
    said = "; ".join(
        f"{name} says so of {share(found['kept'])}, and {share(found['right'])} of those are right"
        if found["right"] is not None
        else f"{name} never says so"
        for name, found in sure.items()
    )
    text = [
        "Pseudo-labelling: let the network label the unlabelled target itself, keep the labels it is surest of, train on them as "
        "if they were true, and repeat. It needs no critic and no second network. It works as far as sureness means being right.",
        f"Whether it does is an oracle's question. Predictions above {limit:g}: {said}.",
    ]
    shares = {place["share"]: place["right"] for place in started(cells, STARTS[0])["shares"]}
    each = kept_right(cells, STARTS[0])
    if study.portion in shares and each:
        text.append(
            f"Of {STARTS[0]}'s surest {100 * study.portion:g} % over all classes {share(shares[study.portion])} are right; of "
            f"the surest {100 * study.portion:g} % of each predicted class {share(each[0])}. Self-training keeps the latter, so "
            "that easy classes do not crowd out the others; but a class that is predicted too often then gives too many labels."
        )
    for name in STARTS:
        line, right = path(cells, name), kept_right(cells, name)
        if line:
            text.append(
                f"From {name}: {share(right[0])} of the labels kept in round 1 are right, {share(right[-1])} in round "
                f"{len(right)}; accuracy on the labelled images goes from {percent(line[0])} to {percent(line[-1])} %."
            )
    text += _learnt_again(cells)
    tried = {study.portion: STARTS[0], **{portion: f"portion {portion:g}" for portion in study.portions}}
    listed = "; ".join(
        f"{100 * portion:g} %: {share(kept_right(cells, tried[portion])[0])} of the labels right in round 1, target then "
        f"{share(mean(_final(cells, tried[portion])))}"
        for portion in sorted(tried)
        if kept_right(cells, tried[portion])
    )
    if listed:
        text.append(f"How much of each class to keep (from {STARTS[0]}): {listed}.")
    return text


def _learnt_again(cells: Cells) -> list[str]:
    """What becomes of wrong labels, beside the same steps in which they weigh nothing, and which class grows."""
    (again, before, after), (control, _, beside) = (
        [fate(cells, name, "kept", what) for what in ("said again", "sure before", "sure after")]
        for name in (STARTS[0], CONTROL)
    )
    if again is None or control is None or before is None or after is None or beside is None:
        return []
    first, last = (kept_shares(cells, STARTS[0], which) for which in (0, -1))
    grown = max(range(len(first)), key=lambda k: last[k] - first[k])
    trust = [trusted([cells.starts[seed, STARTS[0]] for seed in pseudo_seeds(cells)])]
    trust += [trusted([cells.pseudo[s, name]["after"] for s in pseudo_seeds(cells)]) for name in (STARTS[0], CONTROL)]
    return [
        "Why wrong labels stay: a wrong label that was kept is a training example like any other, and nothing in the loss "
        f"contradicts it. Of the wrong labels kept in round 1 (from {STARTS[0]}) {share(again)} are said again at the end, and "
        f"the mean probability of what is said of these images goes from {before:.2f} to {after:.2f}; after the same steps "
        f"with labels that weigh nothing, {share(control)} are said again, at {beside:.2f}.",
        "Why they spread: what was learnt labels the next round. The class that grows most among the kept labels is "
        f"{cells.facts['classes'][grown]}, from {share(first[grown])} to {share(last[grown])} of them. On all labelled images "
        f"the mean largest probability goes from {trust[0]['confidence']:.2f} to {trust[1]['confidence']:.2f} while accuracy "
        f"goes from {share(trust[0]['right'])} to {share(trust[1]['right'])}; where the labels weigh nothing, to "
        f"{trust[2]['confidence']:.2f} and {share(trust[2]['right'])}.",
    ]


def _final(cells: Cells, name: str) -> list[float | None]:
    found = [cells.pseudo[seed, name]["final"] for seed in pseudo_seeds(cells)]
    return [None if each is None else each["target"] for each in found]


def start_table(cells: Cells) -> Table:
    """The three starts, and what their confidence is worth."""
    rows: list[list[Cell]] = []
    for name in STARTS:
        found = started(cells, name)
        at = found["thresholds"][SURE]
        values = (found["scores"]["source"], found["scores"]["target"], found["confidence"], at["kept"], at["right"])
        rows.append([name, *(None if value is None else percent(value) for value in values)])
    return Table(
        caption="Starts of self-training, in per cent: accuracy on the tests, mean largest probability on the target, the share "
        f"above {rows and started(cells, STARTS[0])['thresholds'][SURE]['threshold']:g}, and how much of that is right (an "
        "oracle's figure). AdaBN: the same network with BatchNorm, statistics from the target.",
        header=["start", "source", "target", "sureness", "above", "right above"],
        rows=rows,
    )


def school_table(cells: Cells) -> Table:
    """All self-trainings."""
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(name for _, name in cells.pseudo):
        found = [cells.pseudo[seed, name] for seed in pseudo_seeds(cells)]
        right, line = kept_right(cells, name), path(cells, name)
        diverged = [each["diverged"] for each in found if each["diverged"] is not None]
        values = [
            right[0] if right else None,
            right[-1] if right else None,
            line[0] if line else None,
            line[-1] if line else None,
            mean(_final(cells, name)),
            fate(cells, name, "kept", "said again"),
        ]
        start = f"{found[0]['start']}{', labels not learnt' if name == CONTROL else ''}"
        shown: list[Cell] = [None if value is None else percent(value) for value in values]
        rows.append([start, f"{100 * found[0]['portion']:g} %", *shown])
        if diverged:
            rows[-1][-1] = f"diverged at step {diverged[0]}"
    return Table(
        caption=f"Self-training for {cells.study.rounds} rounds, {cells.study.pseudo_steps:,} steps in all, "
        f"{_over(cells.study.pseudo_seeds)}; per cent. Right: among the kept labels, in the first and the last round; accuracy "
        "on the labelled images before and after; on the target's test; and how many wrong labels kept in round 1 are said again "
        "at the end. All of them are an oracle's figures.",
        header=["from", "kept", "right, first", "right, last", "before", "after", "target test", "said again"],
        rows=rows,
    )


def notes(cells: Cells) -> list[str]:
    """How to read the page."""
    return [
        "Target labels score, along the steps too, and serve for what is named oracle; nothing is chosen by them: every score "
        "is that of the last step.",
        "No adaptation is DANN with weight 0: the critic learns, and its gradient is thrown away before it reaches the features.",
        "Diverged: a loss or a gradient was not finite, and the training stopped. Collapsed: less than twice chance on "
        "the source.",
        f"Published: {PUBLISHED}. The paper trains longer and re-fits the last layer by a linear SVM.",
        "Within a seed, all networks share their first weights and see the same batches in the same order.",
    ]
