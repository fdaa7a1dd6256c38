"""The page of a diagnosis: the verdict, what moved, where in the network, and how good such predictions were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from acclimate.diagnosis.diagnose import Diagnosis, described
from acclimate.files import write_json
from acclimate.report.document import SCHEMA, Document, Figure, Section, Table, picture, write_document

STEM, TWIN = "diagnosis", "findings.json"
GREY, BLUE, ORANGE = "#8a8f98", "#2f6fb3", "#d9822b"


def write_diagnosis(found: Diagnosis, folder: Path, command: str, next_command: str | None) -> Path:
    """``diagnosis.html``, its JSON twin and ``findings.json`` (the diagnosis as data) in ``folder``; the page's path."""
    drawings: dict[str, bytes] = {}
    sections = [_images(found, drawings)]
    if found.layers:
        sections.append(_layers(found, drawings))
    if found.own_score is not None:
        sections.append(_matters(found))
    if found.gain is not None:
        sections.append(_gain(found, drawings))
    document = Document(
        schema_version=SCHEMA,
        acclimate=found.acclimate,
        kind="diagnosis",
        title=f"{found.source} → {found.target}",
        verdict=found.sentence,
        advice=" ".join(found.reasons),
        sections=sections,
        next_command=next_command,
        command=command,
        notes=_notes(found),
    )
    write_json(folder / TWIN, found.model_dump(mode="json"))
    return write_document(document, drawings, folder, STEM)


def _images(found: Diagnosis, drawings: dict[str, bytes]) -> Section:
    rows: list[list[Any]] = [
        [
            check.name,
            check.source,
            check.target,
            round(check.effect, 2),
            round(check.floor, 2),
            check.p,
            "yes" if check.fires else "",
        ]
        for check in found.moved
    ]
    checks = [check for check in found.moved][::-1]
    drawing = Drawing(figsize=(6.4, 0.32 * len(checks) + 0.9))
    axes = drawing.add_subplot()
    for place, check in enumerate(checks):
        axes.plot(
            [-check.floor, check.floor], [place, place], color=GREY, linewidth=6, alpha=0.35, solid_capstyle="butt"
        )
        axes.plot([check.effect], [place], "o", color=ORANGE if check.fires else GREY, markersize=6)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(checks)), [check.name for check in checks])
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlabel("difference, in standard deviations of the source's images")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    drawings["moved"] = picture(drawing)
    fired = [described(check) for check in found.moved if check.fires and check.kind == "image"]
    return Section(
        title="What moved",
        text=[
            "Each property is compared between source and target images. The floor is what one would see by chance: the 95 % "
            "quantile of the difference between two sides to which the images, each about the mean of its own domain, are "
            "dealt at random. Every row is tested for itself at 5 %, so that one in twenty fires by chance; "
            "the sentences above name only what stands after Holm's correction over all rows. Brightness, contrast, skew, "
            "vignette and colour are of whole images, noise, sharpness and grain of windows.",
        ],
        tables=[
            Table(
                caption="Properties of images, and of what the model says of them before adaptation; means over images.",
                header=["property", "source", "target", "difference", "floor", "p", "moved (5 %)"],
                rows=rows,
            )
        ],
        figures=[
            Figure(
                name="moved",
                caption="Difference of each property (dots; orange: more than chance) and the floor (bars).",
                alt="Properties that moved more than chance explains: " + (", ".join(fired) or "none") + ".",
                data={check.name: {"difference": check.effect, "floor": check.floor} for check in found.moved},
            )
        ],
    )


def _layers(found: Diagnosis, drawings: dict[str, bytes]) -> Section:
    layers = found.layers
    drawing = Drawing(figsize=(6.4, 0.3 * len(layers) + 1.0))
    axes = drawing.add_subplot()
    places = range(len(layers) - 1, -1, -1)
    for place, layer in zip(places, layers):
        axes.plot([layer.before, layer.after], [place, place], color=GREY, linewidth=1)
        axes.plot([layer.null_quantile], [place], "|", color=GREY, markersize=12, markeredgewidth=2)
    axes.plot([layer.before for layer in layers], places, "o", color=ORANGE, label="before adaptation")
    axes.plot([layer.after for layer in layers], places, "s", color=BLUE, label="after adaptation")
    axes.plot([], [], "|", color=GREY, markersize=12, markeredgewidth=2, label="95 % of source against source")
    axes.set_xscale("log")
    axes.set_yticks(list(places), [layer.layer for layer in layers])
    axes.set_xlabel("Fréchet distance to the source (logarithmic)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    drawings["layers"] = picture(drawing)
    worst = max(layers, key=lambda layer: layer.before / max(layer.null, 1e-9))
    return Section(
        title="Where in the network",
        text=[
            "The outputs of every BatchNorm layer, before the ReLU, in the source's 64 largest principal directions, "
            "each scaled to variance one. Re-estimated statistics make means and variances equal by construction: "
            "what is left after adaptation is what they cannot repair.",
            f"{sum(layer.fires for layer in layers)} of {len(layers)} layers fire at 5 % each; "
            f"{sum(layer.named for layer in layers)} stand after Holm's correction.",
        ],
        figures=[
            Figure(
                name="layers",
                caption="Distance of the target from the source at each BatchNorm layer, from input (top) to output.",
                alt=f"The largest distance, relative to source against source, is at {worst.layer}: {worst.before:.2g} before "
                f"and {worst.after:.2g} after adaptation, where the source's halves differ by {worst.null:.2g}.",
                data={layer.layer: layer.model_dump(exclude={"layer"}) for layer in layers},
            )
        ],
    )


def _matters(found: Diagnosis) -> Section:
    assert found.own_score is not None
    rows: list[list[Any]] = [
        [one.name, f"{100 * one.own:.1f}", f"{100 * one.before:.1f}", f"{100 * one.after:.1f}"]
        for one in found.estimates
    ]
    return Section(
        title="Does it matter",
        text=[
            f"On labelled windows of its source the model scores {100 * found.own_score:.1f} % {found.primary}. "
            "These estimates need no target label, and trust the model's confidence: a model that is confidently wrong "
            "looks right to them.",
        ],
        tables=[
            Table(
                caption=f"Estimated {found.primary} in %, with the same estimate on the source beside it.",
                header=["estimate", "source", "target", "target, adapted"],
                rows=rows,
            )
        ],
    )


def _gain(found: Diagnosis, drawings: dict[str, bytes]) -> Section:
    gain = found.gain
    assert gain is not None
    true = [100 * (one.after - one.before) for one in found.tried]
    predicted = [100 * one.predicted for one in found.tried]
    drawing = Drawing(figsize=(4.8, 4.4))
    axes = drawing.add_subplot()
    ends = [min(*true, *predicted, 100 * gain.low) - 3, max(*true, *predicted, 100 * gain.high) + 3]
    axes.plot(ends, ends, color=GREY, linewidth=0.8)
    axes.axvspan(100 * gain.low, 100 * gain.high, color=ORANGE, alpha=0.15, linewidth=0)
    axes.axvline(100 * gain.predicted, color=ORANGE, linewidth=1.5, label="your target")
    axes.plot(predicted, true, "o", color=BLUE, markersize=4, alpha=0.7, label="shifts of your source")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel("predicted gain, points")
    axes.set_ylabel("true gain, points")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    drawings["gain"] = picture(drawing)
    strongest = sorted(found.tried, key=lambda one: one.before - one.after)
    shown = [*strongest[:5], *strongest[-5:]]
    return Section(
        title="Will adaptation help",
        text=[
            f"{len(found.tried)} synthetic targets were made of the source's labelled images; the model was adapted to each "
            "without labels and scored with them. From how it behaved, an ensemble of trees learnt to predict the gain; "
            "each dot was predicted by an ensemble that had seen no shift of the same kind.",
            f"The prediction is for statistics of {_counted(found.looked.trial, found.looked.trial_images)}, as in every "
            f"trial; AdaBN of the command line takes all {found.target_images} target images, whole.",
        ],
        tables=[
            Table(
                caption=f"The shifts that gained and lost most ({found.primary}, %).",
                header=["shift", "before", "after", "predicted gain"],
                rows=[
                    [
                        one.shifts,
                        f"{100 * one.before:.1f}",
                        f"{100 * one.after:.1f}",
                        f"{100 * one.predicted:+.1f}".replace("-", "\u2212"),
                    ]
                    for one in shown
                ],
            )
        ],
        figures=[
            Figure(
                name="gain",
                caption="Predicted and true gain of every synthetic shift; the band is the interval for your target.",
                alt=f"Predicted against true gains of {len(true)} shifts; mean absolute error {100 * gain.error:.1f} points. "
                f"Your target: {100 * gain.predicted:+.1f} points, interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}.",
                data={"predicted": predicted, "true": true, "target": gain.model_dump()},
            )
        ],
    )


def _notes(found: Diagnosis) -> list[str]:
    looked = found.looked
    height, width = looked.size
    notes = [
        "No target label was read.",
        "Every row of a table fires by chance in one of twenty comparisons of a domain with itself.",
        f"Looked at: {_counted(looked.source, looked.source_images)} of the source (of {found.source_images} images) and "
        f"{_counted(looked.target, looked.target_images)} of the target (of {found.target_images}); windows of {height} x "
        f"{width} pixels; {found.seconds:.0f} seconds.",
    ]
    if found.interrupted:
        notes.append(f"Interrupted: fewer shifts were tried ({len(found.tried)}) than the time allowed.")
    if found.gain is not None:
        notes.append(
            "The interval is as wide as the errors on shifts of kinds that were left out; no theorem promises it. It cannot "
            "know shifts that resemble none of them."
        )
    return notes


def _counted(windows: int, images: int) -> str:
    return f"{windows} windows of {images} images"
