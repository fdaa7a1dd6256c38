"""``acclimate study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options

STUDIES = ("bn",)


def study(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="bn: when does BatchNorm adaptation work?")],
    size: Annotated[str, typer.Option(help="small (two CPU cores, minutes) or paper (a GPU, hours).")] = "small",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of the whole grid.")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/study-NAME.", show_default=False)
    ] = None,
    device: options.Device = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again what has other settings.")] = False,
    json: options.Json = False,
) -> None:
    """Run an experiment that explains when adaptation works, with a page of findings.

    A rerun goes on where the last one stopped.
    """
    from acclimate.errors import unknown

    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    from acclimate.studies.bn import SIZES, measure
    from acclimate.studies.bn_page import write_page

    if size not in SIZES:
        raise unknown("size", size, SIZES)
    folder = out or Path("runs") / f"study-{name}"
    where = choices.device(device)
    console.say(f"{'out':8} {folder}")
    with console.Progress() as progress:
        cells = measure(SIZES[size], folder, seeds=seeds, device=where, listener=progress, force=force)
    with console.waiting("writing the report"):
        path, document = write_page(cells, folder, console.command(*context.obj))
    if json:
        console.document({"study": name, "folder": str(folder), "report": str(path), "verdict": document.verdict})
    else:
        console.show(console.wrapped(document.verdict))
        console.show(f"report   {path}")
    console.suggest(console.command("adapt", "--source", "YOUR-LABELLED", "--target", "YOUR-UNLABELLED"))
