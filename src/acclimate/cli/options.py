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
