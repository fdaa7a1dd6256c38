"""``acclimate diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.cli import choices, console, options

if TYPE_CHECKING:
    from acclimate.diagnosis.diagnose import Diagnosis

FEW = 4  # held-out source images, below which the others serve


def diagnose(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Labelled images: a folder or a catalog name.", show_default=False)
    ],
    target: Annotated[
        str, typer.Argument(metavar="TGT", help="Images of the other place; labels are not read.", show_default=False)
    ],
    model: Annotated[
        Path | None,
        typer.Option(metavar="M", help="A run (its source-only model) or a model trained on SRC.", show_default=False),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="Time for trying synthetic shifts; less widens the interval."),
    ] = 240,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", min=24, help="That many shifts instead of a time: repeatable.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Default: runs/diagnosis-SRC-to-TGT (comparison-... without a model).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of windows and shifts.")] = 0,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Say what moved, where in the network, whether it matters, and whether adaptation will help.

    With a model, its own source images are shifted in many ways, and it is adapted to each: from that it learns to tell
    whether re-estimating BatchNorm statistics will help on the target. Without one, only the images are compared.
    """
    from acclimate.data import open_domain, open_splits
    from acclimate.diagnosis.diagnose import diagnose as ask
    from acclimate.experiment import BASELINE
    from acclimate.report.diagnosis import TWIN, write_diagnosis

    given = None
    if model is not None:
        name = BASELINE if BASELINE in choices.players_of(model) else None
        given = choices.model_at(model, name, choices.device(device))
    trained_on, held_out = open_splits(source)
    # On images that it was trained on, a model is surer than elsewhere; they serve only where there are too few others.
    chosen = held_out if len(held_out) >= FEW else trained_on
    with console.Progress() as progress:
        found = ask(
            chosen,
            open_domain(target),
            given,
            names=(source, target, None if model is None else str(model)),
            budget=budget,
            trials=trials,
            seed=seed,
            progress=progress.count,
        )
    usual = choices.default_folder(source, target)
    folder = out or usual.with_name(f"{'comparison' if model is None else 'diagnosis'}-{usual.name}")
    following = next_command(found, source, target, model)
    page = write_diagnosis(found, folder, console.command(*context.obj), following)
    if json:
        console.document({**found.model_dump(mode="json"), "findings": str(folder / TWIN), "report": str(page)})
    else:
        show(found)
        console.show(f"\nreport   {page}")
    console.suggest(following)


def next_command(found: Diagnosis, source: str, target: str, model: Path | None) -> str:
    """What follows from the verdict."""
    if model is None:
        return console.command("adapt", "--source", source, "--target", target)
    if found.verdict == "adapt":
        return console.command("adapt", "--model", model, "--target", target, "--method", "adabn")
    if found.verdict == "uncertain":
        return console.command("evaluate", model, "LABELLED")
    return console.command("adapt", "--source", source, "--target", target, "--method", "self-training")


def show(found: Diagnosis) -> None:
    """The verdict, its reasons, and the checks that fired."""
    console.show(console.wrapped(found.sentence) + "\n")
    for reason in found.reasons:
        console.show("  " + console.wrapped(reason).replace("\n", "\n  "))
    fired = [check for check in found.moved if check.fires]
    if fired:
        rows = [
            [check.name, f"{check.source:.3f}", f"{check.target:.3f}", f"{check.effect:+.1f}", f"{check.floor:.1f}"]
            for check in fired
        ]
        console.show("\n" + console.table(["moved", "source", "target", "deviations", "floor"], rows))
