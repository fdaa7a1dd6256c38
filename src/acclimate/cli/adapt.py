"""``acclimate adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from acclimate.cli import choices, console, options


def adapt(
    context: typer.Context,
    target: options.Target,
    source: options.Source = None,
    model: options.Model = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="May be repeated (default: dann; with --model: adabn).", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/SRC-to-TGT.", show_default=False)
    ] = None,
    network: options.Network = None,
    network_set: options.NetworkSet = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Training steps of each method (default: 2000).", show_default=False)
    ] = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the weights and of the order of images.")] = 0,
    size: options.Size = None,
    crop: options.Crop = None,
    scale: options.Scale = None,
    augment: options.Augment = "none",
    precision: options.Precision = None,
    device: options.Device = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METHOD.KEY=VALUE", help="A setting of a method, or plan.KEY=VALUE.", show_default=False
        ),
    ] = None,
    map_: options.Map = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Also train on the target's own labels, as an upper bound.")
    ] = False,
    labelled: Annotated[
        str | None,
        typer.Option(
            metavar="FEW", help="A few labelled target images, for methods that ask for them.", show_default=False
        ),
    ] = None,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Start every method from the source-only network.")
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write losses and metrics for TensorBoard.", show_default=False),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Adapt a model from a labelled source to an unlabelled target.

    Trains source-only first, then each method, and puts them side by side. The same command goes on where it was
    interrupted. Target labels are never used for a score here: that is what `acclimate evaluate` is for.
    """
    from acclimate.cli.running import Wanted, carried_out

    wanted = Wanted(
        source=source,
        target=target,
        model=model,
        methods=tuple(method or (["adabn"] if model else ["dann"])),
        network=network,
        network_set=choices.pairs(network_set, "--network-set"),
        plan={"steps": steps, "batch": batch, "seed": seed, "precision": precision},
        lr=lr,
        size=choices.side(size, "--size"),
        crop=choices.side(crop, "--crop"),
        scale=scale,
        augment=augment,
        settings=set_ or [],
        class_map=choices.pairs(map_, "--map"),
        oracle=oracle,
        labelled=labelled,
        warm_start=warm_start,
    )
    command = console.command(*context.obj)
    results: dict[str, Any] = carried_out(
        wanted, out, choices.device(device), command, force=force, tensorboard=tensorboard
    )
    if json:
        console.document(results)
    else:
        show(results)
    if tensorboard is not None:
        shown = f"tensorboard --logdir {tensorboard}" if tensorboard.exists() else "none: nothing was trained this time"
        console.say(f"curves   {shown}")
    target_folder = target if Path(target).exists() else "LABELLED"
    several = [name for name, entry in results["players"].items() if not entry["oracle"]][2:]
    console.suggest(
        *([console.command("compare", results["folder"])] if several else []),
        console.command("evaluate", results["folder"], target_folder if results["target has labels"] else "LABELLED"),
        console.command("predict", results["folder"], "IMAGES", "--out", "predictions"),
    )


def show(results: dict[str, Any]) -> None:
    """The table, the warnings, and where the report is."""
    from acclimate.cli.running import label_free_table, warnings

    console.show(label_free_table(results))
    for text in warnings(results):
        console.show(f"warning: {text}")
    console.show(f"\nreport   {results['report']}")
