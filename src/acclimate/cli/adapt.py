"""``acclimate adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from acclimate.cli import choices, console, options


def adapt(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Option(
            metavar="TGT",
            help="Images of the place where the model will be used; labels are not read.",
            show_default=False,
        ),
    ],
    source: Annotated[
        str | None, typer.Option(metavar="SRC", help="Labelled images: a folder or a catalog name.", show_default=False)
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="M", help="A run or model in place of a source.", show_default=False)
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="May be repeated (default: dann; with --model: adabn).", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/SRC-to-TGT.", show_default=False)
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: dtn for classes, unet for masks.", show_default=False)
    ] = None,
    network_set: options.NetworkSet = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Training steps of each method (default: 2000).", show_default=False)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images per step and domain (default: 64; masks: 8).", show_default=False),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="X", help="Learning rate (default: the method's own).", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the weights and of the order of images.")] = 0,
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Classification: what images are resized to.", show_default=False),
    ] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Segmentation: training crops.", show_default=False)
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(metavar="X", help="Segmentation: zoom of the images, 0.5 halves them.", show_default=False),
    ] = None,
    augment: Annotated[
        str, typer.Option(metavar="FLIPS", help="none, horizontal, or dihedral (all flips and quarter turns).")
    ] = "none",
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="bfloat16, float32 or float16 (default: bfloat16).", show_default=False),
    ] = None,
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
