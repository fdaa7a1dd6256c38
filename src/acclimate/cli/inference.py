"""Options on how images are predicted, shared by the verbs that predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from acclimate.cli import choices

if TYPE_CHECKING:
    from torch import Tensor

    from acclimate.data.domain import Domain
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


SMALLEST = 0.1  # of the scales


def counted(model: Model, progress: Callable[[int, int], None]) -> Model:
    """The model; where it predicts, ``progress`` hears how many images of how many are done."""
    from acclimate.engine.model import Model as Plain

    class Counted(Plain):
        def logits(self, domain: Domain, memory_budget: float = 0.0) -> Iterator[tuple[list[int], Tensor]]:
            done = 0
            progress(done, len(domain))
            for index, found in super().logits(domain, memory_budget):
                yield index, found
                done += len(index)
                progress(done, len(domain))

    return Counted(model.method, model.preprocess, model.device, model.inference)


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
    written = {"window": f"--window {window}", "overlap": f"--overlap {overlap}", "scales": f"--scales {scales}"}
    with choices.named(written):
        inference = model.inference.replace(**{name: value for name, value in given.items() if value is not None})
    if given["scales"] is not None and min(inference.scales) < SMALLEST:
        raise UsageError(f"--scales {scales}: the smallest must be at least {SMALLEST}, or nothing of an image is left")
    if overlap is not None and inference.window is None:
        raise UsageError("--overlap is between windows: say how large they are with --window 512")
    return dataclasses.replace(model, inference=inference)
