"""``acclimate study``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options

STUDIES = {"bn": 1, "dann": 3}  # and how many seeds each has where none are asked for


def study(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="bn: when does BatchNorm adaptation work? dann: what does a reversed gradient do?"
        ),
    ],
    size: Annotated[str, typer.Option(help="small (two CPU cores, half an hour) or paper (a GPU).")] = "small",
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many seeds; bn: of the grid (1), dann: of the three networks (3).", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/study-NAME.", show_default=False)
    ] = None,
    device: options.Device = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again what has other settings.")] = False,
    json: options.Json = False,
) -> None:
    """Run an experiment that explains when and why adaptation works, with a page of findings.

    A rerun goes on where the last one stopped.
    """
    from acclimate.errors import unknown

    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    home, page = (importlib.import_module(f"acclimate.studies.{module}") for module in (name, f"{name}_page"))
    if size not in home.SIZES:
        raise unknown("size", size, home.SIZES)
    folder = out or Path("runs") / f"study-{name}"
    where = choices.device(device)
    console.say(f"{'out':8} {folder}")
    with console.Progress() as progress:
        cells = home.measure(
            home.SIZES[size], folder, seeds=seeds or STUDIES[name], device=where, listener=progress, force=force
        )
    with console.waiting("writing the report"):
        path, document = page.write_page(cells, folder, console.command(*context.obj))
    if json:
        console.document({"study": name, "folder": str(folder), "report": str(path), "verdict": document.verdict})
    else:
        console.show(console.wrapped(document.verdict))
        console.show(f"report   {path}")
    console.suggest(console.command("adapt", "--source", "YOUR-LABELLED", "--target", "YOUR-UNLABELLED"))
