"""``acclimate download``."""

from __future__ import annotations

from typing import Annotated

import typer

from acclimate.cli import console, options


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of the catalog.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Fetch a data set of the catalog: the only verb that opens the network.

    It goes to $ACCLIMATE_DATA, or ~/.cache/acclimate/data. Only files with a published checksum are fetched; for the
    others it says where to get them.
    """
    import sys

    from acclimate import registry
    from acclimate.data.download import download as fetch

    card = registry.load("datasets", name).card
    folder = fetch(card, progress=sys.stderr.isatty())
    if json:
        console.document({"name": name, "folder": str(folder)})
    else:
        console.show(str(folder))
        console.say(f"licence: {card.licence}")
    console.suggest(console.command("check", name))
