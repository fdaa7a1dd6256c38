"""``acclimate networks``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acclimate.cli import console, options


def networks(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One network, in full.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """List the networks, or show the settings of one."""
    from acclimate import registry

    found = [facts(known) for known in ([name] if name else registry.names("networks"))]
    if json:
        console.document(found[0] if name else found)
    elif name:
        one = found[0]
        settings = ", ".join(f"{key} = {value}" for key, value in one["settings"].items())
        rows = {"network": name, "task": one["task"], "size": str(one["size"]), "about": one["about"]}
        console.show(console.facts({**rows, "settings": console.wrapped(settings) or "none"}))
    else:
        width = max(len(one["name"]) for one in found)
        for one in found:
            console.show(f"{one['name']:{width}}  {one['task']:14}  {one['size']:3}  {one['summary']}")
    console.suggest(
        console.command("adapt", "--source", "SRC", "--target", "TGT", "--network", name)
        if name
        else console.command("networks", found[0]["name"])
    )


def facts(name: str) -> dict[str, Any]:
    """Task, size, description and settings."""
    import inspect

    from acclimate import registry

    factory = registry.load("networks", name)
    settings = {
        key: parameter.default
        for key, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    card = factory.card
    about = inspect.cleandoc(factory.__doc__ or "").replace("``", "")
    return {
        "name": name,
        "task": card.task,
        "size": card.size,
        "summary": card.summary,
        "about": about,
        "settings": settings,
    }
