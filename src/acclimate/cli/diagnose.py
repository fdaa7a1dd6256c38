"""``acclimate diagnose``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.cli import choices, console, options
from acclimate.cli.failure import INTERRUPTED
from acclimate.errors import DataError, UsageError

if TYPE_CHECKING:
    from acclimate.data.domain import Domain
    from acclimate.diagnosis.diagnose import Diagnosis

FEW = 8  # held-out source images, below which the others serve


def diagnose(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Labelled images: a folder or a catalog name.", show_default=False)
    ],
    target: Annotated[
        str, typer.Argument(metavar="TGT", help="Images of the other place; labels are not read.", show_default=False)
    ],
    model: Annotated[
        Path | None,
        typer.Option(metavar="M", help="A run (its source-only model) or a model trained on SRC.", show_default=False),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="Time for trying synthetic shifts; less widens the interval."),
    ] = 240,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", min=24, help="That many shifts instead of a time: repeatable.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Default: runs/diagnosis-SRC-to-TGT (comparison-... without a model).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of windows and shifts.")] = 0,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="THEIRS=OURS",
            help="Call a class of SRC by the model's name; OURS may be 'ignore'.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Say what moved, where in the network, whether it matters, and whether adaptation will help.

    With a model, its own source images are shifted in many ways, and it is adapted to each: from that it learns to tell
    whether re-estimating BatchNorm statistics will help on the target. Without one, only the images are compared.
    Ctrl-C ends the trials early; the verdict is given where 24 are done.
    """
    from acclimate.data import open_domain
    from acclimate.diagnosis.diagnose import diagnose as ask
    from acclimate.report.diagnosis import TWIN, write_diagnosis

    usual = choices.default_folder(source, target)
    folder = out or usual.with_name(f"{'comparison' if model is None else 'diagnosis'}-{usual.name}")
    is_a_folder(folder)
    mapping = choices.pairs(map_, "--map")
    given, place = None, None
    if model is None:
        if mapping:
            raise UsageError("--map needs --model: without a model no label is read")
        chosen = everything(source)
    else:
        place = source_model(model)
        if place.resolve() != model.resolve():
            console.say(f"model    {place}")
        given = choices.model_at(place, None, choices.device(device))
        chosen = matched(not_trained_on(source, holdout_of(place)), given, mapping)
    with console.Progress() as progress:
        found = ask(
            chosen,
            open_domain(target),
            given,
            names=(source, target, None if model is None else str(model)),
            budget=budget,
            trials=trials,
            seed=seed,
            progress=lambda done, wanted: progress.count(done, wanted, "shifts"),
        )
    following = next_command(found, source, target, place)
    page = write_diagnosis(found, folder, console.command(*context.obj), following)
    if json:
        console.document({**found.model_dump(mode="json"), "findings": str(folder / TWIN), "report": str(page)})
    else:
        show(found)
        console.show(f"\nreport   {page}")
    console.suggest(following)
    if found.interrupted:
        console.say(f"interrupted: the verdict is from the {len(found.tried)} shifts that were done")
        raise SystemExit(INTERRUPTED)


def is_a_folder(path: Path) -> None:
    """Raise :class:`UsageError` where a file is in the way of ``--out``."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"--out {path}: {there} is a file; give a folder")


def source_model(model: Path) -> Path:
    """The folder of the source model in what ``--model`` names.

    A run's source-only model; where a run began with a model (``adapt --model``), that one; a folder with a model that
    was trained on a source or imported. An adapted model is never taken: its statistics are no longer the source's.
    Raises :class:`DataError` where there is none.
    """
    from acclimate.experiment import BASELINE
    from acclimate.files import read_json

    seen: list[Path] = []
    while True:
        if model.resolve() in seen:
            raise DataError(f"{model} names itself as the model that it began with; give --model the source model")
        seen.append(model.resolve())
        players = choices.players_of(model)
        if BASELINE in players:
            return players[BASELINE]
        run = run_of(model)
        if run is None:
            choices.model_at(model, None)  # says clearly what is wrong with the folder
            method = read_json(model / "model.json")["method"]
            if method == BASELINE:
                return model
            raise DataError(
                f"{model} is a model adapted by {method}; give --model the source model that it was made from, or its run"
            )
        began = read_json(run / "results.json")["experiment"].get("model")
        if began is None:
            raise DataError(f"{run} has no source-only model; give --model a model trained on the source")
        if not Path(began).exists():
            raise DataError(
                f"{run} began with the model {began}, which is not there (seen from here); give it with --model"
            )
        model = Path(began)


def run_of(model: Path) -> Path | None:
    """The run that a folder is, or that it lies in; None for a model of its own."""
    if (model / "results.json").exists():
        return model
    seed = model.resolve().parent
    return seed.parent if seed.name.startswith("seed-") and (seed.parent / "results.json").exists() else None


def holdout_of(model: Path) -> float | None:
    """The share of the source that the model's run kept for scoring; None where that is not known."""
    from acclimate.files import read_json

    run = run_of(model)
    return None if run is None else read_json(run / "results.json")["experiment"].get("holdout")


def not_trained_on(source: str, holdout: float | None) -> Domain:
    """The held-out images of the source. On images that it was trained on a model is surer than elsewhere: they serve
    only where there are too few others, and that is said."""
    from acclimate.data import open_splits

    trained_on, held_out = open_splits(source) if holdout is None else open_splits(source, holdout)
    if len(held_out) >= FEW:
        return held_out
    console.say(
        f"note: only {len(held_out)} images of {source} were held out, fewer than {FEW}: the {len(trained_on)} that the "
        "model may have been trained on serve instead, on which it is surer than elsewhere"
    )
    return trained_on


def matched(domain: Domain, model: Any, mapping: dict[str, str]) -> Domain:
    """The source's labels counted in the model's classes, by name and ``--map``."""
    from acclimate.data import match_classes

    if domain.labels is None:
        raise UsageError(f"{domain.name} has no labels: a model is diagnosed with labelled images of its source")
    task = model.method.task
    return match_classes(
        dataclasses.replace(domain, name="the model", task=task.name, classes=task.classes, labels=None),
        domain,
        mapping,
    )


def everything(source: str) -> Domain:
    """All images of a source: where no model was trained on some of them, there is no reason to leave any out."""
    from acclimate.data import open_splits
    from acclimate.data.domain import Lazy

    parts = open_splits(source)
    places = [(part, i) for part in parts for i in range(len(part))]
    return dataclasses.replace(
        parts[0],
        images=Lazy(places, lambda place: place[0].images[place[1]]),
        labels=None,
        names=[name for part in parts for name in part.names],
    )


def next_command(found: Diagnosis, source: str, target: str, model: Path | None) -> str:
    """What follows from the verdict; ``model`` is the folder of the source model."""
    if model is not None:
        if found.advised == "adapt":
            return console.command("adapt", "--model", model, "--target", target, "--method", "adabn")
        if found.advised == "label":
            return console.command("fine-tune", run_of(model) or model, "--labelled", "LABELLED")
        if found.advised == "nothing":
            return console.command("predict", model, target, "--out", "predictions")
        return console.command("adapt", "--source", source, "--target", target, "--method", "self-training")
    return console.command("adapt", "--source", source, "--target", target)


def show(found: Diagnosis) -> None:
    """The verdict, its reasons, and the checks that fired."""
    console.show(console.wrapped(found.sentence) + "\n")
    for reason in found.reasons:
        console.show("  " + console.wrapped(reason).replace("\n", "\n  "))
    fired = [check for check in found.moved if check.fires]
    if fired:
        rows = [
            [check.name, f"{check.source:.3f}", f"{check.target:.3f}", f"{check.effect:+.1f}", f"{check.floor:.1f}"]
            for check in fired
        ]
        console.show("\n" + console.table(["moved", "source", "target", "deviations", "floor"], rows))
        console.show("(each by chance in one of twenty; the sentences above name what stands after Holm's correction)")
