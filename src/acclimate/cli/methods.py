"""``acclimate methods``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acclimate.cli import console, options


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One method, in full.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """List the methods, or show the card of one."""
    from acclimate import registry

    if name is not None:
        facts = card(name)
        if json:
            console.document(facts)
        else:
            console.show(text(facts))
        console.suggest(console.command("adapt", "--source", "SRC", "--target", "TGT", "--method", name))
        return
    cards = [card(known) for known in registry.names("methods")]
    if json:
        console.document(cards)
    else:
        rows = [
            [facts["name"], facts["needs"], facts["title"] + (f" ({facts['year']})" if facts["year"] else "")]
            for facts in cards
        ]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for first, needs, title in rows:
            console.show(f"{first:{widths[0]}}  {needs:{widths[1]}}  {title}")
    console.suggest(console.command("methods", cards[0]["name"]))


def card(name: str) -> dict[str, Any]:
    """All that a method says of itself."""
    import inspect

    from acclimate.methods import Need, find

    kind = find(name)
    words = {
        Need.SOURCE: "source",
        Need.TARGET: "target",
        Need.SOURCE_MODEL: "source model",
        Need.TARGET_LABELS: "target labels (oracle)",
        Need.FEW_TARGET_LABELS: "a few target labels",
    }
    known = kind.card
    return {
        "name": name,
        "title": known.title,
        "paper": known.paper,
        "year": known.year,
        "needs": " + ".join(word for need, word in words.items() if need in kind.needs),
        "tasks": list(known.tasks),
        "idea": inspect.cleandoc(kind.__doc__ or "").replace("``", ""),
        "when": known.when,
        "fails": known.fails,
        "deviations": list(known.deviations),
        "settings": {
            key: field.get_default(call_default_factory=True) for key, field in kind.Settings.model_fields.items()
        },
        "optimiser": kind.optimiser.model_dump(mode="json"),
    }


def text(facts: dict[str, Any]) -> str:
    """The card for people."""
    settings = [f"{key} = {value}" for key, value in facts["settings"].items()]
    return console.facts(
        {
            "method": f"{facts['name']}: {facts['title']}",
            "paper": facts["paper"],
            "needs": facts["needs"],
            "tasks": ", ".join(facts["tasks"]),
            "idea": facts["idea"],
            "use it": console.wrapped(facts["when"]),
            "fails": console.wrapped(facts["fails"]),
            "differs": "\n".join(console.wrapped(f"- {line}") for line in facts["deviations"])
            or "in nothing from the paper",
            "settings": console.wrapped(", ".join(settings)) or "none",
        }
    )
