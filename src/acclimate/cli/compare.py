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
        list[Path] | None,
        typer.Argument(metavar="RUNS...", help="Runs, sweeps, cells of a benchmark, models.", show_default=False),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What ranks (default: the best one of our study).", show_default=False),
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
            help="Rank by reverse validation: train each method back to the source, so many steps.",
            show_default=False,
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the scores.")] = False,
    map_: options.Map = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Rank models where there is no label: which of them should be used on this target?

    Prints no target accuracy unless you give labels. A score without labels can mislead; our study says how often.
    """
    from acclimate.errors import UsageError

    if list_:
        show_scores(json)
        return
    if not runs:
        raise UsageError("name at least one run, such as the --out of acclimate adapt; --list names the scores")
    if reverse is not None and score is not None:
        raise UsageError("give either --score or --reverse")
    if labels is not None:
        from acclimate.data import open_domain

        open_domain(labels)  # a wrong name shall be noticed before anything is predicted
    from acclimate.runs import found
    from acclimate.selection.compare import compare as compared

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
    if reverse is not None:
        result = reversed_(result, reverse, where)
    evaluations = None if labels is None else evaluated(result, labels, choices.pairs(map_, "--map"), where)
    for absent in absents:
        console.say(f"left out: {absent.label}: {absent.why}")
    if json:
        console.document({**as_json(result, evaluations), "absent": {each.label: each.why for each in absents}})
    else:
        show(result, evaluations)
    best = result.candidates[chosen_by(evaluations) if evaluations else result.ranking[0].label]
    predict = console.command("predict", best.folder, "IMAGES", "--out", "predictions")
    score_them = console.command("compare", *runs, "--labels", "LABELLED")
    console.suggest(*([predict] if labels else [score_them, predict] if doubtful(result) else [predict, score_them]))


def show_scores(json: bool) -> None:
    """What each score is, and when it misleads."""
    from acclimate import registry
    from acclimate.selection import DEFAULT, find

    scores = [find(name) for name in registry.names("scores")]
    if json:
        fields = ("name", "title", "better", "paper", "when", "fails", "tasks", "takes")
        console.document([{field: getattr(score, field) for field in fields} for score in scores])
        return
    rows = {}
    for each in scores:
        tasks = " and ".join(task for task, name in DEFAULT.items() if name == each.name)
        mark = f" (default for {tasks})" if tasks else ""
        rows[each.name] = f"{each.title}, {each.better} is better{mark}"
    console.show(console.facts(rows))
    console.suggest(console.command("compare", "RUN"), console.command("compare", "--list", "--json"))


def reversed_(result: Comparison, steps: int, where: Any) -> Comparison:
    """The same models, those that can be trained back, in the order of how well that goes."""
    import dataclasses

    from acclimate.engine.model import Model
    from acclimate.errors import UsageError
    from acclimate.experiment import Experiment
    from acclimate.selection.rank import ordered
    from acclimate.selection.reverse import REVERSE, reverse_validation

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
    ranking = ordered(REVERSE, found, result.set_aside)
    kept = {label: result.candidates[label] for label in found}
    values = {name: {label: each[label] for label in found} for name, each in result.values.items()}
    return dataclasses.replace(result, score=REVERSE, ranking=ranking, candidates=kept, values=values)


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


def chosen_by(evaluations: dict[str, Evaluation]) -> str:
    """The best model by labels."""
    return max(evaluations, key=lambda label: evaluations[label].value)


def doubtful(result: Comparison) -> bool:
    """Whether fewer than half of the scores put the chosen model first."""
    return 2 * votes(result) < len(result.values)


def votes(result: Comparison) -> int:
    """How many scores put the first model first."""
    return sum(result.place(name, result.ranking[0].label) == 1 for name in result.values)


def show(result: Comparison, evaluations: dict[str, Evaluation] | None) -> None:
    """The ranking, a sentence, and what the other scores say."""
    total = len(result.domains.target)
    drawn = f"{result.images} of {total}" if result.images < total else f"{total}"
    console.show(f"{result.domains.target.name}: {drawn} images, their labels not read\n")
    header = ["", f"{result.score.name} ({result.score.better} is better)", "± over images"]
    some = any(result.candidates[each.label].reads for each in result.ranking)
    rows = []
    for number, each in enumerate(result.ranking[:SHOWN], 1):
        mark = "-" if each.set_aside else "=" if each.tied and number > 1 else " "
        row = [f"{number:2}{mark} {each.label}", f"{each.value:.4f}", "" if each.error is None else f"{each.error:.4f}"]
        if some:
            row.append(result.candidates[each.label].reads or "")
        if evaluations is not None:
            row.append(console.percent(evaluations[each.label].value))
        rows.append(row)
    header += ["reads"] * some
    if evaluations is not None:
        header.append(f"{next(iter(evaluations.values())).primary} (labels)")
    console.show(console.table(header, rows))
    if len(result.ranking) > SHOWN:
        console.show(f"(and {len(result.ranking) - SHOWN} more; --json has all)")
    console.show("\n" + console.wrapped(sentence(result, evaluations)) + "\n")
    judged = None if evaluations is None else result.judged(evaluations)
    best = result.ranking[0].label
    others = []
    for name, values in result.values.items():
        first = [label for label in values if label not in result.set_aside and result.place(name, label) == 1]
        row = [name, first[0] if len(first) == 1 else f"{len(first)} alike", f"{result.place(name, best)}"]
        if judged is not None:
            lost, correlation = judged[name]
            row += [f"{100 * lost:.1f}", "" if correlation is None else f"{correlation:+.2f}"]
        others.append(row)
    header = ["score (--list says what each is)", "puts first", f"place of {best}"]
    more = [] if judged is None else ["points lost by it", "rank correlation"]
    console.show(console.table([*header, *more], others))


def sentence(result: Comparison, evaluations: dict[str, Evaluation] | None = None) -> str:
    """What the score says, and how sure that is; with labels first of all what they say."""
    first, *others = result.ranking
    text = ""
    if evaluations is not None:
        best = chosen_by(evaluations)
        lost = 100 * (evaluations[best].value - evaluations[first.label].value)
        count = evaluations[best].images
        text = f"By your {count} labelled images {best} is best ({console.percent(evaluations[best].value)}). "
        text += f"Without them {first.label} would have been chosen, {lost:.1f} points below. " if lost > 0 else ""
    kept = [each for each in others if not each.set_aside]
    tied = [each.label for each in kept if each.tied]
    text += f"{result.score.title} puts {first.label} first"
    if not kept:
        text += "."
    elif first.error is None:
        text += f", before {kept[0].label}; how sure that is cannot be said."
    elif not tied:
        text += f", clearly before {kept[0].label}."
    elif len(tied) == len(kept):
        text += ", but cannot tell it from any other: images differ more than models."
    else:
        text += f", but cannot tell it from {len(tied)} other{'s' if len(tied) > 1 else ''} (marked =)."
    if result.candidates[first.label].baseline:
        text += f" By it no method is better than {first.label}."
    text += f" {votes(result)} of {len(result.values)} scores put it first."
    if evaluations is None and doubtful(result):
        text += " They disagree, so label some 20 target images and let these decide (--labels)."
    if result.set_aside:
        listed = [f"{label} {why}" for label, why in result.set_aside.items()]
        text += f" Set aside (-): {'; '.join(listed[:3])}{f'; and {len(listed) - 3} more' if len(listed) > 3 else ''}."
    if not result.measured:
        text += (
            " None could be set aside for having forgotten the source: no source-only with its source is among them."
        )
    if result.oracles:
        text += f" Left out, for they learnt from target labels: {', '.join(result.oracles[:3])}."
    return text


def as_json(result: Comparison, evaluations: dict[str, Evaluation] | None) -> dict[str, Any]:
    """All of it."""
    import dataclasses

    from acclimate.experiment import score_facts

    found: dict[str, Any] = {
        "target": result.domains.target.name,
        "images": result.images,
        "score": result.score.name,
        "better": result.score.better,
        "sentence": sentence(result, evaluations),
        "ranking": [
            {**dataclasses.asdict(each), "folder": str(result.candidates[each.label].folder)} for each in result.ranking
        ],
        "values": result.values,
        "without a value": result.left_out,
        "set aside": result.set_aside,
        "oracles left out": result.oracles,
    }
    if evaluations is not None:
        found["labelled"] = {label: score_facts(evaluation) for label, evaluation in evaluations.items()}
        found["regret and rank correlation"] = result.judged(evaluations)
    return found
