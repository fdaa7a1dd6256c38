"""``acclimate report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options


def report(
    context: typer.Context,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS...", help="Runs, or parts of a benchmark's folder.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder for one page over all RUNS of one target.", show_default=False),
    ] = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Build a run's report.html and report.json again, or one page over several runs.

    Without --out, one run's page is written anew beside it. With --out, all runs, benchmark cells and seeds that RUNS
    hold are put side by side: scores, curves, predictions, and what did not run. Each difference is to the source-only
    of the same run.
    """
    from acclimate.errors import UsageError

    if out is None:
        if len(runs) > 1:
            raise UsageError(
                "one page over several runs needs a folder of its own: add --out DIR, such as --out runs/report"
            )
        if device is not None:
            raise UsageError("--device has no meaning for the page of one run, which predicts nothing; leave it out")
        page = _again(runs[0])
        following = console.command("evaluate", runs[0], "LABELLED")
    else:
        if any((out / name).exists() for name in ("results.json", "cells", "model.json")):
            raise UsageError(f"--out {out} holds a run, a benchmark or a model; give a folder of its own")
        from acclimate.report.merge import write_merged

        with console.Progress() as progress:
            page = write_merged(
                runs, out, console.command(*context.obj), device=choices.device(device), progress=progress.note
            )
        following = console.command("compare", *runs)
    if json:
        console.document({"report": str(page)})
    else:
        console.show(str(page))
    console.suggest(following)


def _again(run: Path) -> Path:
    """The page of one run."""
    from acclimate.errors import DataError
    from acclimate.report.merge import unfinished
    from acclimate.report.write import write

    if not (run / "results.json").exists():
        state = unfinished(run)
        raise DataError(
            f"{run} holds no finished run (no results.json{'; ' + state if state else ''}); "
            "run its acclimate adapt command again, or add --out DIR for a page over the runs or cells inside it"
        )
    with console.waiting("writing the report"):
        return write(run)
