"""``acclimate datasets``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acclimate.cli import console, options


def datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One data set, in full.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """List the data sets of the catalog, or show the card of one."""
    from acclimate import registry

    found = [facts(known) for known in ([name] if name else registry.names("datasets"))]
    if json:
        console.document(found[0] if name else found)
        return
    if name is None:
        rows = [[one["name"], one["state"], one["task"], one["title"]] for one in found]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            console.show("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]))
        console.suggest(console.command("datasets", found[0]["name"]))
        return
    one = found[0]
    rows_ = {
        "data set": f"{name}: {one['title']}",
        "state": f"{one['state']} ({one['folder']})" if one["state"] != "bundled" else "bundled: made in memory",
        "task": console.wrapped(f"{one['task']}, {len(one['classes'])} classes: {', '.join(one['classes'])}"),
        "splits": ", ".join(one["splits"]),
        "licence": console.wrapped(one["licence"]),
        "homepage": one["homepage"],
        "notes": console.wrapped(one["notes"]) or "none",
        "get it": one["how to get"],
    }
    console.show(console.facts({key: value for key, value in rows_.items() if value}))
    if one["state"] == "can be downloaded":
        console.suggest(console.command("download", name))
    else:
        console.suggest(console.command("cite", name))


def facts(name: str) -> dict[str, Any]:
    """The card, and whether the set is there."""
    from acclimate import registry
    from acclimate.data.catalog.base import how_to_get

    dataset = registry.load("datasets", name)
    card = dataset.card
    state = (
        "bundled"
        if card.bundled
        else "present"
        if dataset.present
        else "can be downloaded"
        if card.fetchable
        else "by hand"
    )
    return {
        "name": name,
        "title": card.title,
        "state": state,
        "task": card.task,
        "classes": list(card.classes),
        "splits": list(card.splits),
        "licence": card.licence,
        "homepage": card.homepage,
        "citation": card.citation,
        "terms": card.terms,
        "notes": card.notes,
        "folder": None if card.bundled else str(dataset.folder),
        "how to get": "" if dataset.present else how_to_get(card, dataset.folder),
    }
