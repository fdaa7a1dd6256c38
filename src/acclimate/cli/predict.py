"""``acclimate predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, inference, options


def predict(
    run: options.Run,
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A folder of images; labels in it are not read.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the predictions go.", show_default=False)],
    overlay: Annotated[bool, typer.Option("--overlay", help="Masks: also draw them over the images.")] = False,
    window: inference.Window = None,
    overlap: inference.Overlap = None,
    scales: inference.Scales = None,
    flip: inference.Flip = False,
    method: options.Player = None,
    device: options.Device = None,
    force: Annotated[bool, typer.Option("--force", help="Replace earlier predictions.")] = False,
    json: options.Json = False,
) -> None:
    """Predict a folder of images and write the results as files.

    Classification: predictions.csv with a class and the probability of each class. Segmentation: one PNG of class
    numbers per image, with the same name; a TIFF stack gives a TIFF stack; classes.json says which number is what.
    """
    from acclimate.data import open_domain
    from acclimate.exchange.predictions import write_predictions

    model = choices.model_at(run, method, choices.device(device))
    model = inference.under(model, window, overlap, scales, flip)
    name, others = model.method.name, choices.others(run, model.method.name)
    domain = open_domain(images, task="unlabelled")
    with console.Progress() as progress:
        progress.count(0, len(domain))
        written = write_predictions(model, domain, out, overlay=overlay, force=force, progress=progress.count)
    classes = model.method.task.classes
    if json:
        console.document(
            {
                "out": str(out),
                "method": name,
                "images": len(domain),
                "files": [str(path) for path in written.files],
                "shares": written.shares,
            }
        )
    else:
        unit = "images" if model.method.task.name == "classification" else "pixels"
        listed = sorted(written.shares.items(), key=lambda item: -item[1])[:8]
        more = "" if len(classes) <= 8 else ", ..."
        console.show(f"{len(domain)} images -> {written.files[0] if len(written.files) == 1 else out}")
        console.show(f"predicted by {name}" + (f" (other methods: {', '.join(others)}; --method)" if others else ""))
        console.show(f"{unit}   " + ", ".join(f"{name} {share:.1%}" for name, share in listed) + more)
    console.suggest(console.command("evaluate", run, "LABELLED"))
