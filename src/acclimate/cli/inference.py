"""Options on how images are predicted, shared by the verbs that predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.cli import choices

if TYPE_CHECKING:
    from acclimate.engine.model import Model

Window = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Masks: predict large images in overlapping windows, 512 or 512x1024 (height x width).",
        show_default=False,
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Share of a window that the next one shares (default: 0.5).", show_default=False
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        metavar="LIST", help="Masks: average the probabilities at these scales: 0.75,1,1.25.", show_default=False
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Average with the prediction of the mirror image.")]


def under(model: Model, window: str | None, overlap: float | None, scales: str | None, flip: bool) -> Model:
    """The model, predicting as it was asked to; what was not given stays as the model has it.

    Raises :class:`UsageError` for a value that makes no sense, or windows or scales of a classification.
    """
    import dataclasses

    from acclimate.errors import UsageError

    given = {
        "window": choices.side(window, "--window"),
        "overlap": overlap,
        "scales": None if scales is None else scales.split(","),
        "flip": flip or None,
    }
    inference = model.inference.replace(**{name: value for name, value in given.items() if value is not None})
    if overlap is not None and inference.window is None:
        raise UsageError("--overlap is between windows: say how large they are with --window 512")
    return dataclasses.replace(model, inference=inference)
