"""``acclimate import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .pt, .pth or .safetensors file with weights.", show_default=False)
    ],
    network: Annotated[str, typer.Option(help="Which network they belong to.", show_default=False)],
    classes: Annotated[
        str,
        typer.Option(metavar="A,B,C", help="Names of the classes, in the order of the outputs.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the model goes.", show_default=False)],
    network_set: options.NetworkSet = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Size of its images (default: the network's).", show_default=False),
    ] = None,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="M[,M,M]",
            help="What was subtracted from values in 0..1 (default: the network's).",
            show_default=False,
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S[,S,S]", help="And what they were divided by.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model in DIR.")] = False,
    json: options.Json = False,
) -> None:
    """Turn weights trained elsewhere into a model that `adapt --model` takes.

    No code in the file is ever run. Every weight must have its place: missing and unexpected ones are listed.
    """
    from acclimate.exchange.import_ import import_weights

    model = import_weights(
        file,
        network=network,
        classes=tuple(name.strip() for name in classes.split(",")),
        settings={key: choices.typed(value) for key, value in choices.pairs(network_set, "--network-set").items()},
        size=choices.side(size, "--size"),
        channels=channels,
        mean=None if mean is None else choices.typed(mean),
        std=None if std is None else choices.typed(std),
        folder=out,
        force=force,
    )
    if json:
        console.document({"folder": str(out), **model.description()})
    else:
        count = sum(parameter.numel() for parameter in model.method.net.parameters())
        shown = model.preprocess
        console.show(
            f"{out}: {network}, {count:,} weights, {len(model.method.task.classes)} classes, {model.method.task.name}"
        )
        console.show(
            f"images   {shown.channels} channels, (v / 255 - {shown.mean}) / {shown.std}; change with --mean and --std"
        )
    console.suggest(
        console.command("adapt", "--model", out, "--target", "UNLABELLED"), console.command("evaluate", out, "LABELLED")
    )
