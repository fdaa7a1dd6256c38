"""``acclimate report``."""

from __future__ import annotations

from acclimate.cli import console, options


def report(run: options.Run, json: options.Json = False) -> None:
    """Build a run's report.html and report.json again."""
    from acclimate.errors import DataError
    from acclimate.report.write import write

    if not (run / "results.json").exists():
        raise DataError(f"{run} holds no finished run (no results.json); run its acclimate adapt command again")
    with console.waiting("writing the report"):
        path = write(run)
    if json:
        console.document({"report": str(path)})
    else:
        console.show(str(path))
    console.suggest(console.command("evaluate", run, "LABELLED"))
