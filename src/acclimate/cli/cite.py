"""``acclimate cite``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.cli import console, options

ACCLIMATE = """@software{{acclimate,
  title={{acclimate: domain adaptation for classification and segmentation}},
  version={{{version}}},
  year={{2026}}
}}"""


def cite(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[METHOD|DATASET|RUN]...", help="Default: acclimate itself.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Print BibTeX for methods, data sets, or all that a run used."""
    from acclimate import __version__

    entries = {"acclimate": ACCLIMATE.format(version=__version__)}
    for name in names or ():
        entries |= bibtex(name)
    if json:
        console.document(entries)
    else:
        console.show("\n\n".join(dict.fromkeys(entries.values())))


def bibtex(name: str) -> dict[str, str]:
    """Entries by name; a run stands for its methods and catalog sets.

    Raises :class:`UsageError` for an unknown name.
    """
    from acclimate import registry
    from acclimate.errors import unknown
    from acclimate.files import read_json

    if name in registry.names("methods"):
        found = registry.load("methods", name).card.bibtex
        return {name: found} if found else {}
    if name in registry.names("datasets"):
        return {name: registry.load("datasets", name).card.citation}
    path = Path(name)
    if (path / "results.json").exists():
        results = read_json(path / "results.json")
        sets = [str(results["experiment"][side]).partition(":")[0] for side in ("source", "target")]
        used = [*results["players"], *(known for known in sets if known in registry.names("datasets"))]
    elif (path / "model.json").exists():
        used = [read_json(path / "model.json")["method"]]
    else:
        raise unknown("method, data set or run", name, [*registry.names("methods"), *registry.names("datasets")])
    return {key: entry for known in used for key, entry in bibtex(known).items()}
