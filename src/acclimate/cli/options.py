"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or of a model.", show_default=False)]
Player = Annotated[
    str | None,
    typer.Option(
        "--method", help="Which method of the run (default: the last without target labels).", show_default=False
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N (default: cuda where there is one).", show_default=False),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="THEIRS=OURS",
        help="Call a class of the target by the source's name; OURS may be 'ignore'.",
        show_default=False,
    ),
]
NetworkSet = Annotated[
    list[str] | None,
    typer.Option("--network-set", metavar="KEY=VALUE", help="A setting of the network.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Go on although settings, data or code have changed.")]
Target = Annotated[
    str,
    typer.Option(
        metavar="TGT",
        help="Images of the place where the model will be used; labels are not read.",
        show_default=False,
    ),
]
Source = Annotated[
    str | None, typer.Option(metavar="SRC", help="Labelled images: a folder or a catalog name.", show_default=False)
]
Model = Annotated[
    Path | None, typer.Option(metavar="M", help="A run or model in place of a source.", show_default=False)
]
Network = Annotated[
    str | None, typer.Option(metavar="NAME", help="Default: dtn for classes, unet for masks.", show_default=False)
]
Batch = Annotated[
    int | None,
    typer.Option(metavar="N", help="Images per step and domain (default: 64; masks: 8).", show_default=False),
]
Rate = Annotated[
    float | None, typer.Option(metavar="X", help="Learning rate (default: the method's own).", show_default=False)
]
Size = Annotated[
    str | None,
    typer.Option(metavar="N|HxW", help="Classification: what images are resized to.", show_default=False),
]
Crop = Annotated[str | None, typer.Option(metavar="N|HxW", help="Segmentation: training crops.", show_default=False)]
Scale = Annotated[
    float | None,
    typer.Option(metavar="X", help="Segmentation: zoom of the images, 0.5 halves them.", show_default=False),
]
Augment = Annotated[
    str, typer.Option(metavar="FLIPS", help="none, horizontal, or dihedral (all flips and quarter turns).")
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="bfloat16, float32 or float16 (default: bfloat16).", show_default=False),
]
