"""The pictures of the BatchNorm study: each a function of what the cells hold, with every number that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from acclimate.report.document import Figure
from acclimate.studies.bn import Cells, Pair, packed, pictures, unpacked
from acclimate.studies.bn_numbers import SAME, Correlation, Points, in_order, mean, named, over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Drawn = tuple[Figure, "Drawing"]
SOURCE, TARGET, ADAPTED = "#0072b2", "#d55e00", "#009e73"
KINDS = {SAME: (SOURCE, "o"), "inverted contrast": (TARGET, "x"), "no shift": ("#6b7280", "s")}


def drawing(width: float, height: float) -> Drawing:
    """An empty drawing in inches."""
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(width, height), layout="constrained")


def image(axes: Axes, values: np.ndarray, title: str = "", most: int = 255) -> None:
    """A grey picture without axes."""
    axes.imshow(values, cmap="gray", vmin=0, vmax=most, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    if title:
        axes.set_title(title, fontsize=8)


def plain(axes: Axes) -> None:
    """Small numbers, no box."""
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def examples(cells: Cells) -> Drawn:
    """One image of each source above its mask."""
    study, seed = cells.study, cells.seeds[0]
    chosen = study.sources[:6]
    figure = drawing(1.35 * len(chosen), 3)
    grid = figure.subplots(2, len(chosen), squeeze=False)
    data: dict[str, Any] = {}
    for column, pair in zip(grid.T, chosen):
        domain = pictures(study, seed, pair, 1)
        pixels, mask = domain.images[0][..., 0], np.asarray(domain.labels[0], np.uint8)  # type: ignore[index]
        image(column[0], pixels, named(pair))
        image(column[1], mask, most=1)
        data[named(pair)] = {"image": packed(pixels), "mask": packed(mask), "object": float(mask.mean())}
    grid[0, 0].set_ylabel("image", fontsize=8)
    grid[1, 0].set_ylabel("mask", fontsize=8)
    words = Figure(
        name="examples",
        caption="One image and its mask for some pairs (μ₁ of the object, μ₂ of the background); white noise of standard "
        f"deviation {study.sigma:g}.",
        alt="Grey noise images of Perlin shapes with their white-on-black masks, for "
        + ", ".join(named(pair) for pair in chosen)
        + ".",
        data=data,
    )
    return words, figure


def matrices(cells: Cells) -> Drawn:
    """IoU of every source on every target: without adaptation, with it, and the difference."""
    study = cells.study
    sources, targets = in_order(study.sources), in_order(study.tested())
    lines = [sum(inside > outside for inside, outside in pairs) - 0.5 for pairs in (sources, targets)]
    tables = {
        "without": over_seeds(cells, lambda cell: cell["without"]["iou"]),
        "with": over_seeds(cells, lambda cell: cell["with"]["iou"]),
        "gain": over_seeds(cells, lambda cell: cell["with"]["iou"] - cell["without"]["iou"]),
    }
    titles = {"without": "Without adaptation", "with": "With BatchNorm adaptation", "gain": "Gain"}
    figure = drawing(1.6 + 0.4 * len(targets), 3 * (1.15 + 0.3 * len(sources)))
    data: dict[str, Any] = {"sources": [named(s) for s in sources], "targets": [named(t) for t in targets]}
    for axes, (name, table) in zip(figure.subplots(3, 1, squeeze=False)[:, 0], tables.items()):
        values = np.array([[table[source, target] for target in targets] for source in sources])
        low, colours = (-1, "RdBu") if name == "gain" else (0, "viridis")
        axes.imshow(values, cmap=colours, vmin=low, vmax=1, aspect="auto")
        axes.set_title(titles[name], fontsize=9, loc="left")
        axes.set_xticks(range(len(targets)), [named(t) for t in targets], fontsize=8, rotation=90)
        axes.set_yticks(range(len(sources)), [named(s) for s in sources], fontsize=8)
        axes.set_ylabel("source", fontsize=8)
        for draw, place, most in zip((axes.axhline, axes.axvline), lines, values.shape):
            if -0.5 < place < most - 0.5:  # both signs are there
                draw(place, color="black", lw=2)
        for (row, column), value in np.ndenumerate(values):
            dark = abs(value) > 0.6 if name == "gain" else value < 0.55
            colour = "white" if dark else "black"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
        data[name] = values.tolist()
    figure.axes[-1].set_xlabel("target", fontsize=8)
    words = Figure(
        name="matrices",
        caption="Foreground IoU in per cent of each source's net on each target (μ₁, μ₂), mean over seeds: without "
        "adaptation, with the target's BatchNorm statistics, and the gain. Left of and above the lines the object is brighter "
        "than the background, beyond them darker; on either side contrast grows.",
        alt="Three matrices of sources by targets: IoU without adaptation, IoU with it, and the gain.",
        data=data,
    )
    return words, figure


def all_white(cells: Cells) -> Drawn:
    """What the dark net says of the bright images, and the other way round."""
    seed = cells.seeds[0]
    dark, bright = cells.study.dark_bright
    figure = drawing(6.4, 3.6)
    grid = figure.subplots(2, 4)
    data = {}
    for row, (source, target) in zip(grid, ((dark, bright), (bright, dark))):
        cell = cells.pairs[seed, source, target]
        domain = pictures(cells.study, seed, target, 1)
        masks = {role: unpacked(cell[role]["mask"]) for role in ("without", "with")}
        truth = np.asarray(domain.labels[0], np.uint8)  # type: ignore[index]
        image(row[0], domain.images[0][..., 0], f"target {named(target)}")
        image(row[1], truth, f"truth: {100 * cell['without']['truth']:.0f} % object", 1)
        for axes, (role, mask) in zip(row[2:], masks.items()):
            image(axes, mask, f"{role}: {100 * cell[role]['share']:.0f} % object", 1)
        row[0].set_ylabel(f"source {named(source)}", fontsize=8)
        data[f"{named(source)} to {named(target)}"] = {
            "image": packed(domain.images[0][..., 0]),
            "truth": {"mask": packed(truth), "share": cell["without"]["truth"]},
            **{role: {"mask": packed(mask), "share": cell[role]["share"]} for role, mask in masks.items()},
        }
    words = Figure(
        name="all-white",
        caption="First test image, and what the net says without and with adaptation. The shares are those of all test "
        "images of the pair.",
        alt=f"Masks of the net of {named(dark)} on {named(bright)} and of {named(bright)} on {named(dark)}, beside the "
        "image and the truth.",
        data=data,
    )
    return words, figure


def histograms(cells: Cells) -> Drawn:
    """The channels of largest spread at the bottleneck: the artefact above, the artefact removed below."""
    latent = cells.latent
    kinds = (("weight decay", "after the ReLU"), ("no weight decay", "before the ReLU"))
    figure = drawing(8.4, 4.4)
    count = max(len(latent["nets"][net][place]["shown"]) for net, place in kinds)
    grid = figure.subplots(2, count, squeeze=False)
    data: dict[str, Any] = {}
    for row, (net, place) in zip(grid, kinds):
        facts = latent["nets"][net][place]
        for axes, shown in zip(row, facts["shown"]):
            for (role, counts), colour in zip(shown["counts"].items(), (SOURCE, TARGET, ADAPTED)):
                density = np.array(counts) / sum(counts)
                label = {"adapted": "target, adapted"}.get(role, role)
                axes.stairs(density, shown["edges"], color=colour, label=label, lw=1.1)
            axes.set_title(f"channel {shown['channel']}", fontsize=8)
            plain(axes)
        for axes in row[len(facts["shown"]) :]:
            axes.set_axis_off()
        row[0].set_ylabel(f"{net},\n{place}\nshare of values", fontsize=8)
        data[f"{net}, {place}"] = facts
    grid[0, 0].legend(fontsize=7, frameon=False)
    words = Figure(
        name="histograms",
        caption=f"Values of single channels at the bottleneck; source {named(latent['source'])}, target "
        f"{named(latent['target'])}. Above: trained with weight decay, read after the ReLU. Below: without weight decay, "
        "read before the ReLU. Channels of largest spread on the source.",
        alt="Histograms of bottleneck channels: above with a spike at zero, below as smooth hills; source, target, and "
        "target after adaptation.",
        data=data,
    )
    return words, figure


def scatter(points: Sequence[Points], correlations: Sequence[Correlation]) -> Drawn:
    """Gain against distance: the best predictor found, and both forms of the document's Bhattacharyya distance."""
    columns = min(3, len(points))
    rows = -(-len(points) // columns)
    figure = drawing(4.3 * columns, 3.5 * rows)
    data: dict[str, Any] = {}
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(points) :]:
        axes.set_axis_off()
    for axes, found, correlation in zip(panels, points, correlations):
        axes.set_xscale("symlog", linthresh=_threshold(found.distance))
        for kind, (colour, marker) in KINDS.items():
            chosen = [i for i, other in enumerate(found.kinds) if other == kind]
            x, y = ([values[i] for i in chosen] for values in (found.distance, found.gain))
            axes.scatter(x, y, s=16, c=colour, marker=marker, label=kind, lw=1)
        axes.axhline(0, color="#9aa2ab", lw=0.8, zorder=0)
        axes.axvline(0, color="#9aa2ab", lw=0.8, zorder=0, ls="--")
        rank = "" if correlation.rank is None else f"\nrank correlation {correlation.rank:+.2f}"
        axes.set_title(f"{correlation.words()}{rank}", fontsize=8)
        axes.set_xlabel("distance − its mean between source and source", fontsize=8)
        axes.set_ylabel("gain in IoU", fontsize=8)
        plain(axes)
        data[correlation.words()] = {
            "distance minus null mean": found.distance,
            "gain": found.gain,
            "kind": found.kinds,
            "pairs": found.names,
            "rank correlation": correlation.rank,
            "within same sign": correlation.same,
        }
    figure.axes[0].legend(fontsize=7, frameon=False)
    words = Figure(
        name="scatter",
        caption="Gain by BatchNorm adaptation against the distance between source and target, each mark one source, "
        "target and seed. Dashed: what the distance says on average between halves of the source. The axis is "
        "logarithmic away from zero.",
        alt="Scatter plots of the gain in IoU against a distance: " + "; ".join(c.words() for c in correlations) + ".",
        data=data,
    )
    return words, figure


def _threshold(values: Sequence[float]) -> float:
    """Where a symmetric logarithmic axis begins: a small but usual size."""
    sizes = np.abs([value for value in values if value])
    return float(np.quantile(sizes, 0.1)) if len(sizes) else 1.0


def asymmetry(cells: Cells, first: Pair, second: Pair) -> Drawn:
    """Both ways between two domains, before and after."""
    figure = drawing(4.6, 2.6)
    axes = figure.subplots()
    data = {}
    for row, (source, target) in enumerate(((first, second), (second, first))):
        values = [
            mean(cells.pairs[seed, source, target][role]["iou"] for seed in cells.seeds) for role in ("without", "with")
        ]
        axes.plot(values, [row, row], color="#9aa2ab", lw=1.5, zorder=0)
        for value, colour, label in zip(values, (TARGET, ADAPTED), ("without", "with adaptation")):
            axes.scatter(value, row, color=colour, s=50, label=label if row == 0 else None)
        data[f"{named(source)} to {named(target)}"] = {"without": values[0], "with": values[1]}
    axes.set_yticks([0, 1], list(data), fontsize=8)
    axes.set_ylim(1.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("foreground IoU", fontsize=8)
    plain(axes)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2)
    words = Figure(
        name="asymmetry",
        caption="The pair of domains whose two directions gain most differently; mean over seeds.",
        alt=f"IoU without and with adaptation from {named(first)} to {named(second)} and back.",
        data=data,
    )
    return words, figure


def irregular(cells: Cells) -> Drawn:
    """IoU at home of each kind of training, by where the BatchNorm statistics come from."""
    roles = {"without": "#6b7280", "source statistics": SOURCE, "target statistics": ADAPTED}
    kinds = list(cells.study.irregular)
    figure = drawing(6.4, 3)
    axes = figure.subplots()
    data: dict[str, Any] = {kind: {} for kind in kinds}
    for place, kind in enumerate(kinds):
        for offset, (role, colour) in zip((-0.2, 0, 0.2), roles.items()):
            seeds = [cells.irregular[s, kind]["own"][role] for s in range(cells.study.irregular_seeds)]
            data[kind][role] = seeds
            axes.plot([place + offset] * len(seeds), seeds, "o", color=colour, ms=4, alpha=0.7)
            axes.plot(place + offset, mean(seeds), "_", color=colour, ms=16, mew=2, label=role if place == 0 else None)
    axes.set_xticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_ylabel("foreground IoU on the own domain", fontsize=8)
    axes.set_ylim(-0.03, 1.03)
    plain(axes)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=3)
    words = Figure(
        name="irregular",
        caption="IoU on the own domain by how the net was trained: with the statistics of training, with those estimated "
        "anew on the training images, and on fresh images of the same domain. Dots: seeds; bars: their mean.",
        alt="IoU on the own domain for " + ", ".join(kinds) + ", without and with statistics estimated anew.",
        data=data,
    )
    return words, figure
