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
        few = ["--labelled", "FEW"] if facts["few labels"] else []
        redraw = [console.command("translate", "RUN", "SRC", "--out", "DIR")] if facts["translates"] else []
        console.suggest(
            console.command("adapt", "--source", "SRC", "--target", "TGT", *few, "--method", name),
            *redraw,
        )
        return
    cards = [card(known) for known in registry.names("methods")]
    if json:
        console.document(cards)
    else:
        rows = [
            [
                facts["name"],
                " ".join(task[0].upper() for task in ("classification", "segmentation") if task in facts["tasks"]),
                facts["needs"],
                facts["title"] + (f" ({facts['year']})" if facts["year"] else ""),
            ]
            for facts in cards
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for *cells, title in rows:
            console.show("  ".join([*(f"{cell:{width}}" for cell, width in zip(cells, widths)), title]))
        console.show("(C: classification, S: segmentation; then what a method needs)")
    console.suggest(console.command("methods", cards[0]["name"]))


def card(name: str) -> dict[str, Any]:
    """All that a method says of itself."""
    import inspect

    from acclimate.engine.translate import translates
    from acclimate.methods import Need, find
    from acclimate.report.compose import unmarked

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
        "idea": unmarked(inspect.cleandoc(kind.__doc__ or "")),
        "when": unmarked(known.when),
        "fails": unmarked(known.fails),
        "deviations": [unmarked(line) for line in known.deviations],
        "few labels": Need.FEW_TARGET_LABELS in kind.needs,
        "translates": translates(kind),
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
