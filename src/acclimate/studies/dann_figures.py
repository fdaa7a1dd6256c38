"""The pictures of the DANN study: each a function of what the cells hold, with every number that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from acclimate.losses import dann_ramp
from acclimate.report.document import Figure
from acclimate.studies.bn import unpacked
from acclimate.studies.bn_figures import ADAPTED, SOURCE, TARGET, Drawn, drawing, plain
from acclimate.studies.dann import CONTROL, FOOLED, HELPED, NONE, STARTS, Cells, scheduled
from acclimate.studies.dann_numbers import (
    Row,
    by_seed,
    end,
    fate,
    kept_right,
    mean,
    names,
    path,
    pseudo_seeds,
    schedules,
    started,
    weights,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY, PINK, LIGHT = "#6b7280", "#cc79a7", "#9aa2ab"
GAMES = {NONE: GREY, HELPED: PINK, FOOLED: ADAPTED}
STARTED = dict(zip(STARTS, (GREY, SOURCE, ADAPTED)))
CLASSES = "tab10"


def examples(cells: Cells) -> Drawn:
    """One image of each class and domain."""
    facts = cells.facts
    figure = drawing(7.2, 1.9)
    rows = figure.subplots(2, 1)
    for axes, role in zip(rows, ("source", "target")):
        pictures = unpacked(facts["shown"][role])
        gap = np.full((pictures.shape[1], 2, 3), 255, np.uint8)
        strip = [part for picture in pictures for part in (picture, gap)][:-1]
        axes.imshow(np.concatenate(strip, 1), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_ylabel(role, fontsize=8)
    words = Figure(
        name="examples",
        caption=f"One test image of each class: source {_name(cells, 'source')}, target {_name(cells, 'target')}, as the "
        "network sees them.",
        alt=f"Two rows of digits: {_name(cells, 'source')} above, {_name(cells, 'target')} below.",
        data=facts["shown"],
    )
    return words, figure


def _name(cells: Cells, role: str) -> str:
    return cells.facts["names"][role].partition(":")[0]


def curves(cells: Cells) -> Drawn:
    """Critic, source and target along the steps, for the three networks."""
    panels = {
        "critic accuracy": "critic: names the domain rightly",
        "source": "source: accuracy",
        "target": "target: accuracy (oracle)",
    }
    figure = drawing(9.6, 3.1)
    grid = figure.subplots(1, 3)
    data: dict[str, Any] = {}
    for axes, (what, title) in zip(grid, panels.items()):
        lows = []
        for name, colour in GAMES.items():
            found = [cells.runs[seed, name]["curve"] for seed in cells.seeds]
            steps, lines = _lines(found, what)
            for line in lines:
                axes.plot(steps, line, color=colour, lw=0.6, alpha=0.45)
            middle = np.mean(lines, 0)
            axes.plot(steps, middle, color=colour, lw=2, label=name)
            lows.append(middle[len(middle) // 4 :].min())
            data.setdefault(name, {"steps": steps})[what] = [list(line) for line in lines]
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        if what == "source":
            axes.set_ylim(min(lows) - 0.02, 1.002)  # the first steps fall out of view
        if what == "critic accuracy":
            axes.axhline(0.5, color=LIGHT, lw=0.8, ls="--")
            axes.set_ylim(0.45, 1.02)
        plain(axes)
    figure.legend(*grid[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside upper center", ncols=3)
    words = Figure(
        name="curves",
        caption="Along the steps: what share of a batch's domains the critic names rightly (dashed: chance), and accuracy on "
        f"{cells.study.looked_at} test images of either domain. Thick: mean; thin: {len(cells.seeds)} seeds.",
        alt="Three panels of curves over the steps for no adaptation, no reversal and DANN: accuracy of the critic, accuracy "
        "on the source, accuracy on the target.",
        data=data,
    )
    return words, figure


def _lines(found: Sequence[list[dict[str, float]]], what: str) -> tuple[list[float], list[list[float]]]:
    """Steps and values of several curves, up to where the shortest ends."""
    shortest = min(map(len, found))
    return [row["step"] for row in found[0][:shortest]], [[row[what] for row in curve[:shortest]] for curve in found]


def maps(cells: Cells) -> Drawn:
    """Features of both domains in the plane."""
    shown = {name: cells.runs[0, name]["map"] for name in names() if cells.runs[0, name].get("map")}
    figure = drawing(2.5 * len(shown), 5)
    grid = figure.subplots(2, len(shown), squeeze=False)
    from matplotlib import colormaps

    palette = colormaps[CLASSES]
    for column, (name, found) in zip(grid.T, shown.items()):
        places, domain = np.array(found["places"]), np.array(found["domain"])
        order = np.random.default_rng(0).permutation(len(places))  # neither domain lies on top
        colours = np.where(domain == "source", SOURCE, TARGET)
        column[0].scatter(*places[order].T, s=5, c=colours[order], lw=0)
        for domain_name, marker in (("source", "o"), ("target", "^")):
            of = domain == domain_name
            classes = np.array(found["class"])[of]
            column[1].scatter(*places[of].T, s=7, c=[palette(int(k) % 10) for k in classes], marker=marker, lw=0)
        area = mean(by_seed(cells, name, "area")) or 0.5
        column[0].set_title(f"{name}\nfresh classifier: area {area:.3f}", fontsize=9)
        for axes in column:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("#d1d5db")
    grid[0, 0].set_ylabel("coloured by domain", fontsize=8)
    grid[1, 0].set_ylabel("coloured by class", fontsize=8)
    for label, colour in (("source", SOURCE), ("target", TARGET)):
        grid[0, -1].scatter([], [], s=14, c=colour, label=label)
    grid[0, -1].legend(fontsize=8, frameon=True, framealpha=0.9, edgecolor="none", loc="lower right")
    words = Figure(
        name="maps",
        caption=f"Features of {cells.study.compared} test images of each domain in the plane (t-SNE, seed 0): above by domain, "
        "below by true class (discs: source, triangles: target). Area: under the ROC curve of a fresh linear classifier of the "
        "domain on the features themselves, cross-validated, mean over seeds; 0.5: it cannot tell.",
        alt="Scatter plots of features for " + ", ".join(shown) + ", coloured by domain and by class.",
        data={name: {key: found[key] for key in ("places", "domain", "class")} for name, found in shown.items()},
    )
    return words, figure


def paired(cells: Cells) -> Drawn:
    """Source and target accuracy with and without, a line for each seed."""
    figure = drawing(5.6, 3)
    grid = figure.subplots(1, 2)
    data: dict[str, Any] = {}
    for axes, role, colour in zip(grid, ("source", "target"), (SOURCE, TARGET)):
        for seed in cells.seeds:
            values = [end(cells.runs[seed, name], role) for name in (NONE, FOOLED)]
            if None not in values:
                axes.plot([0, 1], [100 * (v or 0) for v in values], "o-", color=colour, ms=4, lw=1.2)
            data.setdefault(role, {})[f"seed {seed}"] = values
        axes.set_xticks([0, 1], [NONE, FOOLED], fontsize=8)
        axes.set_xlim(-0.25, 1.25)
        axes.set_title(f"{role} test, accuracy in %", fontsize=9, loc="left")
        plain(axes)
    words = Figure(
        name="paired",
        caption="Accuracy on all test images without and with DANN, one line for each seed: same first weights, same batches. "
        "The two scales differ.",
        alt="Slopes from no adaptation to DANN for each seed: source accuracy on the left, target accuracy on the right.",
        data=data,
    )
    return words, figure


def weight_panels(cells: Cells) -> Drawn:
    """Target, source and critic against the weight, with the ramp and without."""
    panels = {
        "target": "target: accuracy (oracle)",
        "source": "source: accuracy",
        "critic": "critic: names the domain rightly",
    }
    series = {"with the ramp": (weights(cells, True), ADAPTED, "o-"), "no ramp": (weights(cells, False), TARGET, "s--")}
    figure = drawing(9.6, 3.2)
    grid = figure.subplots(1, 3)
    chance = {"target": 1 / len(cells.facts["classes"]), "source": 1 / len(cells.facts["classes"]), "critic": 0.5}
    data: dict[str, Any] = {"weights": list(cells.study.weights)}
    for axes, (what, title) in zip(grid, panels.items()):
        there = [value for rows, _, _ in series.values() for row in rows if (value := getattr(row, what)) is not None]
        low, high = _range(there, chance[what])
        axes.axhline(chance[what], color=LIGHT, lw=0.8, ls=":")
        for offset, (label, (rows, colour, style)) in enumerate(series.items()):
            values = [getattr(row, what) for row in rows]
            x = [place for place, value in enumerate(values) if value is not None]
            axes.plot(x, [values[place] for place in x], style, color=colour, ms=5, lw=1.5, label=label, mfc="white")
            _failures(axes, rows, colour, low + (0.06 + 0.12 * offset) * (high - low))
            data.setdefault(label, {})[what] = values
            data[label]["what"] = [row.what for row in rows]
        axes.set_xticks(range(len(cells.study.weights)), [f"{w:g}" for w in cells.study.weights], fontsize=8)
        axes.set_xlabel("weight λ of the reversed gradient", fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylim(low, high)
        plain(axes)
    figure.legend(*grid[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside upper center", ncols=2)
    words = Figure(
        name="weights",
        caption=f"Ends of trainings with other weights of the reversed gradient, {_seeds(cells.study.weight_seeds)}. A cross: "
        "the training diverged, at the step that is written. Dotted, where in view: "
        "chance. The scales differ.",
        alt="Three panels against the weight, with and without ramp: accuracy on the target, on the source, and of the critic.",
        data=data,
    )
    return words, figure


def _range(values: Sequence[float], chance: float) -> tuple[float, float]:
    """Limits of an axis that hold the values with some room, and chance where one of them is near it."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    low = min(low, chance) if low < chance + 0.15 else low
    room = max(0.01, 0.12 * (high - low))
    return low - room, high + room


def _failures(axes: Axes, rows: Sequence[Row], colour: str, height: float) -> None:
    for place, row in enumerate(rows):
        if row.diverged:
            axes.plot(place, height, "x", color=colour, ms=7, mew=2)
            axes.annotate(
                f"step {min(row.diverged)}",
                (place, height),
                textcoords="offset points",
                xytext=(-6, 0),
                ha="right",
                va="center",
                fontsize=7,
                color=colour,
            )


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"mean over {count} seeds"


def schedule_panels(cells: Cells) -> Drawn:
    """The two schedules, and target and source accuracy with and without each."""
    styles = {
        (True, True): (ADAPTED, "-", "ramp, annealed rate (DANN)"),
        (False, True): (TARGET, "-", "no ramp, annealed rate"),
        (True, False): (ADAPTED, "--", "ramp, constant rate"),
        (False, False): (TARGET, "--", "no ramp, constant rate"),
    }
    figure = drawing(9.6, 3.3)
    grid = figure.subplots(1, 3)
    p = np.linspace(0, 1, 101)
    grid[0].plot(p, [dann_ramp(float(x)) for x in p], color=ADAPTED, lw=1.8)
    grid[0].plot(p, (1 + 10 * p) ** -0.75, color=GREY, lw=1.8)
    grid[0].text(0.42, 0.9, "weight: the ramp λ(p)", fontsize=8, color=ADAPTED)
    grid[0].text(0.3, 0.42, "learning rate, annealed", fontsize=8, color=GREY)
    grid[0].set_xlabel("share p of the training that is done", fontsize=8)
    grid[0].set_title("the two schedules", fontsize=9, loc="left")
    data: dict[str, Any] = {}
    for (ramp, annealed), (colour, style, label) in styles.items():
        game = scheduled(ramp, annealed)
        found = [cells.runs[seed, game.name]["curve"] for seed in range(cells.study.schedule_seeds)]
        for axes, role in zip(grid[1:], ("target", "source")):
            if min(map(len, found)):
                steps, lines = _lines(found, role)
                axes.plot(steps, np.mean(lines, 0), style, color=colour, lw=1.6, label=label)
                data.setdefault(label, {"steps": steps})[role] = lines
    for axes, title in zip(grid[1:], ("target: accuracy (oracle)", "source: accuracy")):
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
    late = [value for found in data.values() for line in found.get("source", []) for value in line[len(line) // 4 :]]
    grid[2].set_ylim((min(late) if late else 0) - 0.02, 1.002)
    for axes in grid:
        plain(axes)
    figure.legend(*grid[1].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside upper center", ncols=4)
    ends = {label: schedules(cells)[name].target for name, (_, _, label) in styles.items()}
    words = Figure(
        name="schedules",
        caption=f"Left: what the paper's two schedules do. Then accuracy on {cells.study.looked_at} test images along the steps, "
        f"{_seeds(cells.study.schedule_seeds)}.",
        alt="The ramp rises early and the learning rate falls; curves of target and source accuracy for the four combinations.",
        data={"curves": data, "target at the end": ends},
    )
    return words, figure


def confidence_panels(cells: Cells) -> Drawn:
    """Whom to trust: the most confident shares, and thresholds of the probability."""
    figure = drawing(8.2, 3.3)
    grid = figure.subplots(1, 2)
    data: dict[str, Any] = {}
    for name, colour in STARTED.items():
        found = started(cells, name)
        shares = [(place["share"], place["right"]) for place in found["shares"]]
        grid[0].plot(*zip(*shares), color=colour, lw=2, label=name)
        grid[0].plot([cells.study.portion], [dict(shares).get(cells.study.portion)], "o", color=colour, ms=5)
        above = [(place["threshold"], place["right"]) for place in found["thresholds"] if place["right"] is not None]
        if above:
            says, holds = zip(*above)
            grid[1].plot(_odds(says), holds, "o-", color=colour, lw=2, ms=4)
        data[name] = found
    ticks = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
    promised = np.linspace(0.5, 0.999, 500).tolist()
    grid[1].plot(_odds(promised), promised, color=LIGHT, lw=1, ls="--")
    grid[1].set_xticks(_odds(ticks), [f"{t:g}" for t in ticks])
    grid[0].set_title("the most confident share of the target", fontsize=9, loc="left")
    grid[0].set_xlabel("share that is kept", fontsize=8)
    grid[0].set_ylabel("right among the kept (oracle)", fontsize=8)
    grid[1].set_title("all above a threshold", fontsize=9, loc="left")
    grid[1].set_xlabel("kept if the probability is above", fontsize=8)
    grid[1].set_ylabel("right among the kept (oracle)", fontsize=8)
    for axes in grid:
        axes.set_ylim(top=1.02)
        plain(axes)
    figure.legend(*grid[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside upper center", ncols=3)
    words = Figure(
        name="confidence",
        caption="Pseudo-labels before any is learnt: what share is right among the most confident predictions, and above a "
        f"threshold (dashed: exactly the threshold). Dots: {100 * cells.study.portion:g} %, which self-training takes of each "
        f"class. {min(cells.study.pseudo_images, cells.facts['images']['target']):,} target training images; which labels are "
        "right is an oracle's knowledge.",
        alt="Curves for source-only, AdaBN and DANN: the share of right pseudo-labels against the share kept, and against a "
        "threshold of confidence.",
        data=data,
    )
    return words, figure


def _odds(values: Sequence[float]) -> list[float]:
    return [float(np.log(value / (1 - value))) for value in values]


def self_training_panels(cells: Cells) -> Drawn:
    """Accuracy from round to round, and what becomes of wrong labels that were kept."""
    figure = drawing(9, 3.3)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    data: dict[str, Any] = {"accuracy": {}, "right among the kept": {}, "wrong labels": {}}
    styles = {**{name: (colour, "-") for name, colour in STARTED.items()}, CONTROL: (GREY, ":")}
    for name, (colour, style) in styles.items():
        line = path(cells, name)
        label = f"from {name}" if name in STARTS else f"from {STARTS[0]}, labels {name}"
        left.plot(range(len(line)), line, style, color=colour, lw=2, marker="o", ms=4, label=label)
        data["accuracy"][name] = line
        data["right among the kept"][name] = kept_right(cells, name)
    left.set_xticks(range(cells.study.rounds + 1))
    left.set_xlabel("rounds of self-training", fontsize=8)
    left.set_title("target: accuracy (oracle)", fontsize=9, loc="left")
    left.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    bars = (("said again", PINK), ("another wrong class", "#d1d5db"), ("corrected", ADAPTED))
    labels = []
    for place, name in enumerate(reversed([STARTS[0], CONTROL, *STARTS[1:]])):
        again, corrected = (fate(cells, name, "kept", what) or 0.0 for what in ("said again", "corrected"))
        parts = (again, max(0.0, 1 - again - corrected), corrected)
        begun = 0.0
        for part, (what, colour) in zip(parts, bars):
            right.barh(place, part, left=begun, color=colour, height=0.6, label=what if place == 0 else None)
            if part > 0.06:
                right.text(begun + part / 2, place, f"{100 * part:.0f} %", ha="center", va="center", fontsize=7)
            begun += part
        count = sum(cells.pseudo[seed, name]["wrong"]["kept"]["count"] for seed in pseudo_seeds(cells))
        title = name if name in STARTS else f"{STARTS[0]},\n{name}"
        labels.append(f"{title}\n({count} wrong)")
        data["wrong labels"][name] = dict(zip([what for what, _ in bars], parts)) | {"count": count}
    right.set_yticks(range(len(labels)), labels, fontsize=7)
    right.set_xlim(0, 1)
    right.set_xticks([])
    right.set_title("wrong labels kept in round 1: what the net says at the end", fontsize=9, loc="left")
    right.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3)
    plain(left)
    right.spines[:].set_visible(False)
    right.tick_params(length=0, labelsize=7)
    words = Figure(
        name="self-training",
        caption=f"Self-training with the {100 * cells.study.portion:g} % most confident predictions of each class, "
        f"{_seeds(cells.study.pseudo_seeds)}. Not learnt: the same steps with pseudo-labels that weigh nothing.",
        alt="Left: accuracy on the target after each round for three starts and the control. Right: shares of wrong "
        "pseudo-labels that are said again, become another wrong class, or are corrected.",
        data=data,
    )
    return words, figure
