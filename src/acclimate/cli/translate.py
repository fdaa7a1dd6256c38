"""``acclimate translate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options


def translate(
    run: options.Run,
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            help="Source images: a folder or a catalog name, with labels or without.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the images go.", show_default=False)],
    method: options.Player = None,
    device: options.Device = None,
    force: Annotated[bool, typer.Option("--force", help="Replace earlier images.")] = False,
    json: options.Json = False,
) -> None:
    """Redraw source images in the look of the target.

    For methods that translate, such as histogram matching or a generator. Labels are copied, so that what is written is
    a labelled source again, which any other method can adapt from. Images become PNG; a TIFF stack gives a TIFF stack.
    """
    from acclimate.data import open_domain
    from acclimate.exchange.translations import write_translations

    model = choices.model_at(run, method, choices.device(device))
    domain = open_domain(images)
    with console.Progress() as progress:
        files = write_translations(model, domain, out, force=force, progress=progress.count)
    if json:
        console.document(
            {
                "out": str(out),
                "method": model.method.name,
                "images": len(domain),
                "labelled": domain.labels is not None,
                "files": [str(path) for path in files],
            }
        )
    else:
        labels = f"with the labels of {domain.name}" if domain.labels is not None else "without labels"
        console.show(f"{len(domain)} images as {model.method.name} redraws them, {labels} -> {out}")
    if domain.labels is None:
        console.suggest(console.command("check", out))
    else:
        console.suggest(console.command("adapt", "--source", out, "--target", target_of(run)))


def target_of(run: Path) -> str:
    """What a run was adapted to, as it was typed."""
    from acclimate.files import read_json

    results = run / "results.json"
    return str(read_json(results)["experiment"]["target"]) if results.exists() else "TARGET"
