"""``acclimate demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options


def demo(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE]", help="A name from --list, or a TOML file.")] = "perlin",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/demo-RECIPE.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    device: options.Device = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Run a packaged example end to end, with a report.

    The data come with acclimate. Because they have labels, the demo scores on the target too, and trains an oracle.
    """
    from acclimate import recipes

    if list_:
        listed = {name: recipes.load(name) for name in recipes.names()}
        if json:
            console.document([{"name": name, **found.words()} for name, found in listed.items()])
        else:
            console.show(console.facts({name: "\n".join(found.lines()) for name, found in listed.items()}))
            console.suggest(console.command("demo", recipe))
        return
    from acclimate.cli.running import carry_out_and_report, score_table, warnings

    chosen = recipes.load(recipe)
    folder = out or Path("runs") / f"demo-{Path(recipe).stem}"
    console.say(chosen.title)
    console.say(chosen.description)
    experiment = chosen.experiment()
    first = experiment.plan.seed
    results = carry_out_and_report(
        experiment,
        folder,
        console.command(*context.obj),
        device=choices.device(device),
        force=force,
        seeds=range(first, first + seeds),
        score=True,
    )
    if json:
        console.document({"recipe": {"name": recipe, **chosen.words()}, **results})
    else:
        console.show(score_table(results))
        for text in warnings(results):
            console.show(f"warning: {text}")
        if chosen.expected_text:
            console.show(f"\nexpected {chosen.expected_text}")
        console.show(f"report   {results['report']}")
    console.suggest(console.command("adapt", "--source", "YOUR-LABELLED", "--target", "YOUR-UNLABELLED"))
