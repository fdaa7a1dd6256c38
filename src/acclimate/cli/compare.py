"""``acclimate compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.cli import choices, console, options

if TYPE_CHECKING:
    from acclimate.engine.evaluate import Evaluation
    from acclimate.selection.compare import Comparison

SHOWN = 15  # models of the ranking that fit a screen


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS...", help="Runs, cells of a benchmark, models.", show_default=False),
    ],
    score: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What ranks (default: the one of our study for the task).", show_default=False
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="TGT", help="Default: the target of the runs.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="SRC", help="Default: the source of the runs; some scores need it.", show_default=False),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="LABELLED",
            help="Labelled target images: also show how good each model is, and how well each score chooses.",
            show_default=False,
        ),
    ] = None,
    reverse: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="Rank by reverse validation: train each method back to the source for so many steps.",
            show_default=False,
        ),
    ] = None,
    map_: options.Map = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Rank models where there is no label: which of them should be used on this target?

    Prints no target accuracy unless you give labels. A label-free score can mislead; the page on selection says how often.
    """
    from acclimate.errors import UsageError
    from acclimate.runs import found
    from acclimate.selection.compare import compare as compared

    if reverse is not None and score is not None:
        raise UsageError("give either --score or --reverse")
    candidates, absents = found(runs)
    where = choices.device(device)
    with console.Progress() as progress:
        result = compared(
            candidates,
            score,
            target=target,
            source=source,
            device=where,
            progress=lambda done, total: progress.count(done, total, "models"),
        )
    backwards = None if reverse is None else reversed_(result, reverse, where)
    evaluations = None if labels is None else evaluated(result, labels, choices.pairs(map_, "--map"), where)
    for absent in absents:
        console.say(f"left out: {absent.label}: {absent.why}")
    if json:
        console.document(as_json(result, evaluations, backwards))
    else:
        show(result, evaluations, backwards)
    best = result.best if backwards is None else result.candidates[max(backwards, key=lambda name: backwards[name])]
    console.suggest(
        console.command("predict", best.folder, "IMAGES", "--out", "predictions"),
        *([] if labels else [console.command("compare", *runs, "--labels", "LABELLED")]),
    )


def reversed_(result: Comparison, steps: int, where: Any) -> dict[str, float]:
    """The reverse score of each model that can be trained back."""
    from acclimate.engine.model import Model
    from acclimate.errors import UsageError
    from acclimate.experiment import Experiment
    from acclimate.selection.reverse import reverse_validation

    domains = result.domains
    if domains.source is None or domains.source_test is None:
        raise UsageError("--reverse needs the labelled source of the runs, and images of it that training has not seen")
    found = {}
    for label, candidate in result.candidates.items():
        given = candidate.experiment or Experiment(target=domains.target.name)
        plan = given.plan.replace(**given.plans.get(candidate.method, {}), steps=steps)
        console.say(f"{label}: back to the source in {steps} steps")
        try:
            model = Model.load(candidate.folder, where)
            found[label] = reverse_validation(
                model, domains.source, domains.source_test, domains.target, plan, device=where
            )
        except UsageError as error:
            console.say(f"left out: {label}: {error}")
    if not found:
        raise UsageError("none of these models can be trained back to the source")
    return found


def evaluated(result: Comparison, ref: str, mapping: dict[str, str], where: Any) -> dict[str, Evaluation]:
    """Each model's scores on labelled images."""
    from acclimate.cli.evaluate import labelled_domain
    from acclimate.engine.evaluate import evaluate
    from acclimate.engine.model import Model

    found, domain = {}, None
    with console.Progress() as progress:
        for number, (label, candidate) in enumerate(result.candidates.items()):
            progress.count(number, len(result.candidates), "models scored against labels")
            model = Model.load(candidate.folder, where)
            domain = domain or labelled_domain(ref, candidate.folder, model, mapping)
            found[label] = evaluate(model, domain)
    return found


def show(result: Comparison, evaluations: dict[str, Evaluation] | None, backwards: dict[str, float] | None) -> None:
    """The ranking, a sentence, and what the other scores say."""
    console.show(f"{result.domains.target.name}: {result.images} images, no label\n")
    header = ["", f"{result.score.name} ({result.score.better})", "± over images", "reads"]
    rows = []
    for number, each in enumerate(result.ranking[:SHOWN], 1):
        candidate = result.candidates[each.label]
        error = "" if each.error is None else f"{each.error:.4f}"
        mark = "-" if each.set_aside else "=" if each.tied and number > 1 else " "
        row = [f"{number:2}{mark} {each.label}", f"{each.value:.4f}", error, candidate.reads or ""]
        if backwards is not None:
            row.append(console.percent(backwards.get(each.label)))
        if evaluations is not None:
            row.append(console.percent(evaluations[each.label].value))
        rows.append(row)
    if backwards is not None:
        header.append("reverse")
    if evaluations is not None:
        header.append(f"{next(iter(evaluations.values())).primary} (labels)")
    if not any(result.candidates[each.label].reads for each in result.ranking):
        header, rows = [*header[:3], *header[4:]], [[*row[:3], *row[4:]] for row in rows]
    console.show(console.table(header, rows))
    if len(result.ranking) > SHOWN:
        console.show(f"(and {len(result.ranking) - SHOWN} more; --json has all)")
    console.show("\n" + console.wrapped(sentence(result)) + "\n")
    judged = None if evaluations is None else result.judged(evaluations)
    best = result.ranking[0].label
    others = []
    for name, values in result.values.items():
        first = [label for label in values if result.place(name, label) == 1]
        row = [name, first[0] if len(first) == 1 else f"{len(first)} alike", f"{result.place(name, best)}"]
        if judged is not None:
            lost, correlation = judged[name]
            row += [f"{100 * lost:.1f}", "" if correlation is None else f"{correlation:+.2f}"]
        others.append(row)
    header = ["score", "puts first", f"place of {best}"]
    console.show(console.table(header if judged is None else [*header, "regret, points", "rank correlation"], others))


def sentence(result: Comparison) -> str:
    """What the score says, and how sure that is."""
    first, *others = result.ranking
    others = [each for each in others if not each.set_aside]
    tied = [each.label for each in others if each.tied]
    baseline = next((each for each in result.ranking if result.candidates[each.label].baseline), None)
    text = f"{result.score.title} puts {first.label} first"
    if not others:
        text += "."
    elif not tied:
        text += f", clearly before {others[0].label}."
    elif len(tied) == len(others):
        text += ", but cannot tell it from any other: the images differ more than the models."
    else:
        text += f", but cannot tell it from {len(tied)} other{'s' if len(tied) > 1 else ''} (marked =)."
    if baseline is not None and baseline.label == first.label:
        text += " By it no method is better than source-only."
    votes = sum(result.place(name, first.label) == 1 for name in result.values)
    text += f" {votes} of {len(result.values)} scores put it first."
    if result.set_aside:
        text += (
            f" Set aside (-), for they have learnt less than half as much of the source as source-only: "
            f"{', '.join(result.set_aside)}."
        )
    if result.oracles:
        text += f" Left out, for they learnt from target labels: {', '.join(result.oracles[:3])}."
    return text


def as_json(
    result: Comparison, evaluations: dict[str, Evaluation] | None, backwards: dict[str, float] | None
) -> dict[str, Any]:
    """All of it."""
    import dataclasses

    from acclimate.experiment import score_facts

    found: dict[str, Any] = {
        "target": result.domains.target.name,
        "images": result.images,
        "score": result.score.name,
        "better": result.score.better,
        "sentence": sentence(result),
        "ranking": [
            {**dataclasses.asdict(each), "folder": str(result.candidates[each.label].folder)} for each in result.ranking
        ],
        "values": result.values,
        "without a value": result.left_out,
        "set aside": result.set_aside,
        "oracles left out": result.oracles,
    }
    if backwards is not None:
        found["reverse validation"] = backwards
    if evaluations is not None:
        found["labelled"] = {label: score_facts(evaluation) for label, evaluation in evaluations.items()}
        found["regret and rank correlation"] = result.judged(evaluations)
    return found
