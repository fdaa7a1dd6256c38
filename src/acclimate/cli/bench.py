"""``acclimate bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options
from acclimate.errors import UsageError


def bench(
    context: typer.Context,
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="A name from --list, or a TOML file.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="quick or paper (default: the first).", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Seeds 0 to N - 1.")] = 3,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these rows are run.", show_default=False)
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Only these tasks are run.", show_default=False)
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Cells at once; with --ray on CUDA: cells that share a GPU.")
    ] = 1,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Every N-th cell, for N machines.", show_default=False)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on this Ray cluster; local: one here.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/bench-TABLE.", show_default=False)
    ] = None,
    device: options.Device = None,
    show: Annotated[bool, typer.Option("--show", help="Run nothing; write the tables from what is there.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the tables.")] = False,
    json: options.Json = False,
) -> None:
    """Fill in a table of methods, with published numbers beside ours.

    Runs every cell that is missing, and goes on where it was interrupted. Scores are those of the last step; a cell
    that was not run stays blank. Exits with 1 where a cell failed.
    """
    from acclimate.benchmark.table import load, names

    if list_:
        listed = {name: load(name) for name in names()}
        if json:
            console.document([{"name": name, **found.words()} for name, found in listed.items()])
        else:
            console.show(console.facts({name: "\n".join(found.lines()) for name, found in listed.items()}))
            console.suggest(console.command("bench", "offline"))
        return
    if table is None:
        raise UsageError(
            f"name a table ({', '.join(names())}) or give a TOML file; acclimate bench --list describes them"
        )
    chosen = load(table)
    preset = preset or next(iter(chosen.presets))
    wanted = chosen.cells(preset, range(seeds), _split(tasks), _split(methods))
    folder = out or Path("runs") / f"bench-{chosen.name}"

    from acclimate.benchmark.cell import Bench
    from acclimate.benchmark.page import as_json, gather, heading, overview, write_tables
    from acclimate.benchmark.schedule import Tally, at_once, in_turn
    from acclimate.benchmark.schedule import shard as sharded

    bench = Bench(chosen, folder, choices.device(device))
    where, tally = bench.device.type, Tally()
    if not show:
        from acclimate.benchmark.cluster import on_ray
        from acclimate.benchmark.fidelity import judge_generated

        wanted = sharded(wanted, shard)
        with console.waiting("looking at the data"):
            bench.check(wanted)
        console.say(f"{'table':8} {chosen.title}: {len(wanted)} cells, preset {preset}, on {where}")
        console.say(f"{'out':8} {folder}")
        try:
            if ray is not None:
                tally = on_ray(bench, wanted, ray, jobs, console.say)
            elif jobs > 1:
                tally = at_once(bench, wanted, jobs, console.say)
            else:
                tally = in_turn(bench, wanted, console.say, console.Progress)
            judge_generated(bench, wanted)
        finally:  # also after an interruption: the tables show what there is
            parts = gather(chosen, folder, {(preset, where): range(seeds)})
            paths = write_tables(chosen, parts, folder, console.command(*context.obj))
    else:
        parts = gather(chosen, folder, {(preset, where): range(seeds)})
        if not any(entry.tried for part in parts for entry in part.entries.values()):
            if json:
                console.document(as_json(chosen, parts))
            else:
                console.show(f"no cell has been run yet in {folder}")
            console.suggest(console.command(*(word for word in context.obj if word not in ("--show", "--json"))))
            return
        paths = write_tables(chosen, parts, folder, console.command(*context.obj))
    if json:
        console.document(as_json(chosen, parts))
    else:
        for part in parts:
            console.show(f"{heading(part)}\n{console.table(*overview(chosen, part))}\n")
        console.show("tables   " + " ".join(str(path) for path in paths))
    if tally.failed:
        raise typer.Exit(1)


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
