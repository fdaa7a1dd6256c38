"""``acclimate evaluate``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.cli import choices, console, inference, options

if TYPE_CHECKING:
    from acclimate.engine.evaluate import Evaluation

CLASSES = 12  # as many as fit a screen


def evaluate(
    run: options.Run,
    labelled: Annotated[
        str,
        typer.Argument(
            metavar="LABELLED", help="Labelled images: a folder or a catalog name (mnist:test).", show_default=False
        ),
    ],
    method: options.Player = None,
    map_: options.Map = None,
    window: inference.Window = None,
    overlap: inference.Overlap = None,
    scales: inference.Scales = None,
    flip: inference.Flip = False,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Score a run against labels, with source-only beside it.

    All methods of the run are scored, with 95 % bootstrap intervals over images.
    """
    from acclimate.experiment import score_facts

    where = choices.device(device)
    found: dict[str, Evaluation] = {}
    domain: Any = None
    for name, folder in chosen_players(run, method).items():
        model = inference.under(choices.model_at(folder, None, where), window, overlap, scales, flip)
        domain = domain or labelled_domain(labelled, run, model, choices.pairs(map_, "--map"))
        from acclimate.engine.evaluate import evaluate as score

        called = name or model.method.name
        with console.Progress() as progress:
            count = functools.partial(progress.count, what=f"{called}: images")
            found[called] = score(inference.counted(model, count), domain)
    if json:
        console.document(
            {
                "run": str(run),
                "domain": domain.name,
                "images": len(domain),
                "classes": list(domain.classes),
                "inference": model.inference.model_dump(mode="json"),
                "players": {name: score_facts(evaluation) for name, evaluation in found.items()},
            }
        )
    else:
        console.show(f"{domain.name}: {len(domain)} labelled images\n")
        console.show(summary_table(found))
        console.show("\n" + class_table(found, domain.classes))
    console.suggest(console.command("predict", run, "IMAGES", "--out", "predictions"))


def chosen_players(run: Path, method: str | None) -> dict[str, Path]:
    """The models to score, source-only first where there is one."""
    from acclimate.errors import unknown
    from acclimate.experiment import BASELINE

    choices.model_at(run, method)  # says clearly what is wrong with the run or the name
    players = choices.players_of(run) or {"": run}
    if method is None:
        return players
    if method not in players:
        raise unknown(f"method of {run}", method, players)
    return {name: folder for name, folder in players.items() if name in (BASELINE, method)}


def labelled_domain(ref: str, run: Path, model: Any, mapping: dict[str, str]) -> Any:
    """The labelled images with their labels counted in the model's classes."""
    import dataclasses

    from acclimate.data import match_classes, open_domain
    from acclimate.errors import UsageError

    task = model.method.task
    domain = open_domain(ref)
    if domain.labels is None:
        raise UsageError(f"{ref} has no labels: evaluation needs class sub-folders, or images/ with masks/")
    known = dataclasses.replace(domain, name=str(run), task=task.name, classes=task.classes, labels=None)
    return match_classes(known, domain, mapping)


def summary_table(found: dict[str, Evaluation]) -> str:
    """One row per player."""
    from acclimate.cli.running import label
    from acclimate.experiment import reads
    from acclimate.methods import Need, find

    first = next(iter(found.values()))
    more = [name for name in first.scores if name != first.primary and not name.startswith(("recall ", "IoU "))]
    rows = []
    for name, evaluation in found.items():
        rows.append(
            [
                label(name, Need.TARGET_LABELS in find(name).needs, reads(name)),
                console.percent(evaluation.value),
                _range(evaluation.interval),
                "" if evaluation is first else console.percent(evaluation.value - first.value, sign=True),
                *(console.percent(evaluation.scores[score]) for score in more),
            ]
        )
    return console.table(["", first.primary, "95 % interval", "difference", *more], rows)


def _range(interval: tuple[float, float] | None) -> str:
    """An interval in per cent."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def class_table(found: dict[str, Evaluation], classes: tuple[str, ...]) -> str:
    """One row per class; of many classes, those on which the last player is worst."""
    last = list(found.values())[-1]
    kind = "IoU" if f"IoU {classes[0]}" in last.scores else "recall"
    order = list(classes)
    if len(order) > CLASSES:
        order = sorted(order, key=lambda name: last.scores[f"{kind} {name}"])[:CLASSES]
    rows = [[name, *(console.percent(e.scores[f"{kind} {name}"]) for e in found.values())] for name in order]
    text = console.table([f"{kind} by class", *found], rows)
    return text if len(order) == len(classes) else f"{text}\n(the worst {CLASSES} of {len(classes)}; --json has all)"
