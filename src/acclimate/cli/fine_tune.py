"""``acclimate fine-tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.cli import choices, console, options
from acclimate.cli.evaluate import labelled_domain
from acclimate.errors import DataError, NumericError, UsageError

if TYPE_CHECKING:
    from acclimate.engine.run import Report
    from acclimate.studies.few_labels import Cells

COUNTS = "1,2,5,10,20"


def fine_tune(
    context: typer.Context,
    run: options.Run,
    labelled: Annotated[
        str,
        typer.Option(metavar="LAB", help="Labelled target images: a folder or a catalog name.", show_default=False),
    ],
    k: Annotated[str, typer.Option(metavar="K,...", help="How many labelled images to try, in all.")] = COUNTS,
    draws: Annotated[int, typer.Option(metavar="N", min=1, help="How often to draw them.")] = 3,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="LABELLED", help="Other labelled images to score on (default: half of LAB).", show_default=False
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Of each fine-tuning.")] = 200,
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Images per step (default: 16; masks: 8).", show_default=False),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="X", help="Learning rate (default: 0.001).", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="fine-tune.KEY=VALUE", help="A setting of fine-tune.", show_default=False),
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="METHOD",
            help="Which models of the run to start from (default: source-only and the last method).",
            show_default=False,
        ),
    ] = None,
    keep_from: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="Start of the model that is kept (default: the adapted one).", show_default=False
        ),
    ] = None,
    map_: options.Map = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/RUN-fine-tuned.", show_default=False)
    ] = None,
    device: options.Device = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again what has other settings.")] = False,
    json: options.Json = False,
) -> None:
    """Train a run's models on a few labelled target images, and say how many make adaptation superfluous.

    Fine-tunes source-only and the adapted model on 1, 2, 5, ... labelled images and scores them on others, beside every
    method without labels. Keeps a model trained on all of LAB. A rerun goes on where the last one stopped.
    """
    from acclimate.methods.fine_tune import FineTune
    from acclimate.studies.few_labels import FewLabels, images, measure, write_result
    from acclimate.studies.few_labels_page import verdict, write_page

    settings, plan = choices.method_settings(set_, [FineTune.name])
    if plan:
        raise UsageError(f"--set plan.{next(iter(plan))}: choose --steps, --batch and --lr here")
    written = {"counts": f"--k {k}", "lr": f"--lr {lr}"}
    with choices.named(written):
        study = FewLabels(
            counts=counted(k), draws=draws, steps=steps, batch=batch, lr=lr, settings=settings.get(FineTune.name, {})
        )
    models = players(run)
    where = choices.device(device)
    starts = None if from_ is None else list(dict.fromkeys(from_))
    for option, names in (("--from", starts or []), ("--keep-from", [keep_from] if keep_from else [])):
        for name in names:
            known(name, models, run, option)
    model = choices.model_at(list(models.values())[-1], None)
    mapping = choices.pairs(map_, "--map")
    with console.waiting("looking at the images"):
        given = images(
            labelled_domain(labelled, run, model, mapping),
            None if test is None else labelled_domain(test, run, model, mapping),
            study.held_out,
        )
    folder = out or Path("runs") / f"{run.resolve().name}-fine-tuned"
    console.say(f"{'labelled':8} {len(given.pool)} images to draw from, {len(given.test)} to score on")
    console.say(f"{'out':8} {folder}")
    with console.Progress() as progress:

        def tell(name: str, seed: int, report: Report) -> None:
            progress.count(report.done, report.total, "scores and trainings")

        cells = measure(
            study, folder, models, given, starts=starts, adapted=adapted(starts), keep_from=keep_from, device=where,
            listener=tell, force=force,
        )  # fmt: skip
    command = console.command(*context.obj)
    diverged = cells.kept.get("why")
    following = console.command("predict", cells.kept["folder"], "IMAGES", "--out", "predictions")
    if diverged:
        slower = (study.lr or FineTune.optimiser.lr) / 10
        following = console.command(*context.obj, "--lr", f"{slower:g}", "--out", f"{folder}-lr-{slower:g}")
    with console.waiting("writing the report"):
        page, document = write_page(cells, folder, command, following)
        result = write_result(cells, folder, verdict(cells), command)
    if json:
        console.document({**result, "folder": str(folder), "report": str(page)})
    else:
        show(cells, document.verdict, document.warnings)
        model_line = "none" if diverged else f"{cells.kept['folder']} ({kept(cells)})"
        console.show(f"\nmodel    {model_line}\nreport   {page}")
    console.suggest(following)
    if diverged:
        raise NumericError(f"there is no model to take away: {diverged}")


def counted(text: str) -> tuple[int, ...]:
    """``1,2,5`` as numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.lstrip("-").isdecimal() for part in parts):
        raise UsageError(f"--k {text!r}: write numbers of images, such as {COUNTS}")
    return tuple(sorted({int(part) for part in parts}))


def players(run: Path) -> dict[str, Path]:
    """The models of a run that read no target label, source-only first where it is there; or a model of its own.

    Raises :class:`DataError` where there is none.
    """
    from acclimate.experiment import BASELINE, model_folder

    made = choices.model_at(run, None).method.name  # says clearly what is wrong with the folder
    found = choices.players_of(run) or {made: model_folder(run)}
    began = began_from(next(iter(found.values())))
    if BASELINE not in found and began is not None:
        found = {BASELINE: began, **found}
    readers = {name: reader(place) for name, place in found.items()}
    without = {name: place for name, place in found.items() if readers[name] is None}
    if not without:
        listed = ", ".join(dict.fromkeys(map(str, readers.values())))
        raise DataError(f"{run}, or a model it began from, has read target labels ({listed}); give a run that has not")
    if len(without) < len(found):
        listed = ", ".join(name for name in found if name not in without)
        console.say(f"{'left out':8} {listed}: target labels were read, perhaps of the images that are scored")
    return without


def reader(place: Path) -> str | None:
    """The method that read target labels, perhaps those of the images that are scored here: the model's own, or that of a
    model it began from; None where there is none."""
    from acclimate.files import read_json
    from acclimate.methods import Need, find

    seen: list[Path] = []
    at: Path | None = place
    while at is not None and at not in seen:  # a run may have been made again from its own model
        seen.append(at)
        method = read_json(at / "model.json")["method"]
        if find(method).needs & (Need.TARGET_LABELS | Need.FEW_TARGET_LABELS):
            return method
        at = began_from(at)
    return None


def began_from(place: Path) -> Path | None:
    """The model from which the run, the sweep or the table's cell of a model began; None where it began from a source.

    Raises :class:`DataError` where that model is gone, since it may have read target labels.
    """
    from acclimate.experiment import SWEEP, model_folder
    from acclimate.files import read_json
    from acclimate.runs import CELL, RUN

    own = place.resolve()
    for path in (own.parent.parent / RUN, own.parent / SWEEP, own / CELL):
        if path.exists():
            facts = read_json(path)
            given = facts.get("question", facts)["experiment"]["model"]
            if given is None:
                return None
            folder = model_folder(Path(given))
            if not (folder / "model.json").exists():
                raise DataError(
                    f"{place} began from {given}, which is not there: whether it read target labels cannot be said; "
                    "put it back, or start where that path leads to it"
                )
            return folder.resolve()
    return None


def known(name: str, models: dict[str, Path], run: Path, option: str) -> None:
    """Raise :class:`UsageError` for a start that the run does not have, or that read target labels."""
    from acclimate.errors import nearest

    if name in models:
        return
    if name in choices.players_of(run):
        raise UsageError(
            f"{option} {name}: it read target labels, perhaps of the images that are scored; choose one of "
            f"{', '.join(models)}"
        )
    raise UsageError(f"{option} {name}: {run} has no such method{nearest(name, models)} (it has {', '.join(models)})")


def adapted(starts: list[str] | None) -> str | None:
    """The last start that is not source-only stands for adaptation."""
    from acclimate.experiment import BASELINE

    return next((name for name in reversed(starts or []) if name != BASELINE), None)


def show(cells: Cells, said: str, warned: list[str]) -> None:
    """A row for each k, a column for each start; then the methods without labels, and the verdict."""
    from acclimate.studies.few_labels_page import curve_rows

    rows: list[list[str]] = curve_rows(cells)
    console.show(console.table([f"labelled images: {cells.primary} in %", *cells.starts], rows))
    draws = cells.study.draws
    console.show(f"({draws} draw{'s' if draws > 1 else ''}: mean ± deviation; 0: the network as it was)\n")
    others: dict[str, Any] = {name: cell for name, cell in cells.lines.items() if name not in cells.starts}
    if others:
        listed = ", ".join(f"{name} {console.percent(cell['score']['value'])}" for name, cell in others.items())
        console.show(console.wrapped(f"Also without labels: {listed}.") + "\n")
    console.show(console.wrapped(said))
    for text in warned:
        console.show(f"warning: {text}")


def kept(cells: Cells) -> str:
    """How the kept model was made, and its score where it is known."""
    score = cells.kept["score"]
    known_ = "not scored: no label is left" if score is None else f"{console.percent(score['value'])} {cells.primary}"
    return f"{cells.kept['of']['start']}, fine-tuned on all {cells.kept['images']} labelled images; {known_}"
