"""``acclimate export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import choices, console, options


def export(
    run: options.Run,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="The file to write.", show_default=False)],
    method: options.Player = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of a logit, relative to the largest logit.")
    ] = 1e-4,
    json: options.Json = False,
) -> None:
    """Write a model as ONNX and compare it with the original.

    It takes images as they are, values 0 to 255 (float32, N x C x H x W), normalises them itself and gives logits.
    Exits with 1, without a file, where onnxruntime and acclimate do not agree. Needs the extra "export".
    """
    from acclimate.exchange.export import export_onnx

    with console.waiting("exporting"):
        written = export_onnx(choices.model_at(run, method), out, tolerance=tolerance)
    if json:
        console.document({"file": str(out), **written})
        return
    console.show(f"{out}: {written['method']}, {written['bytes'] / 2**20:.1f} MiB, opset {written['opset']}")
    console.show(f"input    {written['input']}")
    console.show(
        f"output   logits; classes {', '.join(written['classes'][:8])}{', ...' if len(written['classes']) > 8 else ''}"
    )
    console.show(f"checked  largest difference {written['difference']:.1e} (logits up to {written['largest']:.1f})")
    console.suggest(console.command("cite", run))
