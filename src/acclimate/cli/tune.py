"""``acclimate tune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from acclimate.cli import choices, console, options

ROWS, WARNINGS = 8, 4  # as many as leave room on a screen
OWN = {"trials", "score", "search", "out", "json"}  # options that adapt does not have


def tune(
    context: typer.Context,
    target: options.Target,
    source: options.Source = None,
    model: options.Model = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What is tuned (default: dann; with --model: shot).", show_default=False),
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="In total, over all sittings.")] = 20,
    score: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The label-free score that is bettered.", show_default=False),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW:HIGH[:log]|A,B",
            help="lr, METHOD.KEY or plan.KEY (default: lr and the method's weights, a tenth to ten times).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/SRC-to-TGT-tune-NAME.", show_default=False)
    ] = None,
    network: options.Network = None,
    network_set: options.NetworkSet = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Training steps of each trial (default: 2000).", show_default=False)
    ] = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the weights, the order of images and the trials.")] = 0,
    size: options.Size = None,
    crop: options.Crop = None,
    scale: options.Scale = None,
    augment: options.Augment = "none",
    precision: options.Precision = None,
    device: options.Device = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METHOD.KEY=VALUE", help="A setting of the method, or plan.KEY=VALUE.", show_default=False
        ),
    ] = None,
    map_: options.Map = None,
    labelled: Annotated[
        str | None,
        typer.Option(
            metavar="FEW", help="A few labelled target images, for methods that ask for them.", show_default=False
        ),
    ] = None,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Start every trial from the source-only network.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Search the settings of a method by a score that needs no target label.

    Trial 0 has the settings as they are; the others are drawn towards a better score. The same command goes on where
    it was interrupted, or with more --trials.
    """
    from acclimate import selection
    from acclimate.cli import running
    from acclimate.errors import Interrupted
    from acclimate.experiment import BEST

    name = method or ("shot" if model else "dann")
    wanted = running.Wanted(
        source=source,
        target=target,
        model=model,
        methods=(name,),
        network=network,
        network_set=choices.pairs(network_set, "--network-set"),
        plan={"steps": steps, "batch": batch, "seed": seed, "precision": precision},
        lr=lr,
        size=choices.side(size, "--size"),
        crop=choices.side(crop, "--crop"),
        scale=scale,
        augment=augment,
        settings=set_ or [],
        class_map=choices.pairs(map_, "--map"),
        oracle=False,
        labelled=labelled,
        warm_start=warm_start,
    )
    texts = choices.pairs(search, "--search")
    where = choices.device(device)
    chosen = running.ready(wanted, where)
    from acclimate.selection import search_space, tuning

    space = (
        search_space.read_search(texts, chosen.experiment) if texts else search_space.default_search(chosen.experiment)
    )
    by = selection.find(score or selection.DEFAULT_ALONE[str(chosen.domains.task().name)])
    folder = out or chosen.folder.with_name(f"{chosen.folder.name}-tune-{name}")
    begun = (folder / tuning.JOURNAL).exists()
    searched = "; ".join(f"{key} {each}" for key, each in space.items())
    chosen.lines.append(f"{'tune':8} {trials} trials of {name} by {by.name} ({by.better} is better): {searched}")
    running.announce(chosen, folder, " (goes on where it stopped)" if begun else "")
    try:
        with console.Progress() as progress:
            found = tuning.tune(
                chosen.experiment,
                folder,
                score=by,
                search=space,
                trials=trials,
                device=where,
                listener=progress,
                told=lambda entry: progress.note(one_line(entry, by.name)),
            )
    except KeyboardInterrupt:  # outside of training, which has a way of its own to stop
        raise Interrupted(
            "interrupted; run the same command to continue: finished trials are not trained again"
        ) from None
    if json:
        console.document({**found, "folder": str(folder)})
    else:
        show(found, folder)
    best = found["trials"][found["best"]]
    console.suggest(
        console.command("predict", folder / BEST, "IMAGES", "--out", "predictions"),
        console.command("adapt", *words_of_adapt(context, best), "--out", f"{chosen.folder}-tuned"),
        console.command("compare", folder),
    )


def one_line(entry: Mapping[str, Any], score: str) -> str:
    """What came of one trial."""
    settings = ", ".join(f"{key} {short(value)}" for key, value in entry["settings"].items())
    result = f"{score} {entry['score']:.4g}" if entry["state"] == "finished" else f"{entry['state']}: {entry['reason']}"
    return f"trial {entry['number']}: {settings}: {result}"


def short(value: Any) -> str:
    """A setting as it can be typed."""
    import json

    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ",".join(map(short, value)) if len(value) > 1 else json.dumps(value)
    return value if isinstance(value, str) else json.dumps(value)


def show(found: Mapping[str, Any], folder: Path) -> None:
    """The best trials beside the settings as they were and source-only, what is odd about them, and how far to trust it."""
    from acclimate.experiment import BEST, SWEEP
    from acclimate.selection.tuning import ranking

    ranked = ranking(found)
    best = ranked[0]
    rows = [_row(_called(entry, found), entry, entry["settings"]) for entry in ranked[:ROWS]]
    default = found["trials"][0]
    if default not in ranked[:ROWS]:
        rows.append(_row(_called(default, found), default, default["settings"]))
    rows.append(_row("source-only", found["source-only"], dict.fromkeys(best["settings"], "")))
    keys = list(best["settings"])
    console.show(
        console.table(["", found["score"]["name"], *keys, f"source {found['primary']}", "largest class"], rows)
    )
    sign = -1 if found["score"]["better"] == "low" else 1
    if sign * found["source-only"]["score"] > sign * best["score"]:
        console.show(
            f"source-only has a better {found['score']['name']} than every trial: by this score nothing was gained "
            "(acclimate compare says whether it can be trusted there)"
        )
    for state in ("set aside", "repeated", "failed"):
        those = [entry for entry in found["trials"] if entry["state"] == state]
        if those:
            reason = those[0]["reason"].partition(". ")[0]
            numbers = ", ".join(str(entry["number"]) for entry in those)
            console.show(f"{state}: trial {numbers} ({reason})")
    if len(ranked) > ROWS:
        console.show(f"{len(ranked) - ROWS} more trials in {folder / SWEEP}")
    shown = [(_called(entry, found), text) for entry in ranked[:ROWS] for text in entry["warnings"]]
    for called, text in shown[:WARNINGS]:
        console.show(f"warning: {called}: {text}")
    if len(shown) > WARNINGS:
        console.show(f"{len(shown) - WARNINGS} more warnings in {folder / SWEEP}")
    console.show(
        f"warning: no target label was read, and {found['score']['name']} can mislead: a better score is not always a "
        "better model (docs/studies/selection.md says how often it is)"
    )
    console.show(f"\nbest     {folder / BEST}")


def _called(entry: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    marks = ["best"] * (entry["number"] == found["best"]) + ["defaults"] * (entry["number"] == 0)
    marks += [] if entry["state"] == "finished" else [entry["state"]]
    return f"trial {entry['number']}" + (f" ({', '.join(marks)})" if marks else "")


def _row(called: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    values = [value if value == "" else short(value) for value in settings.values()]
    if facts["score"] is None:  # it failed before there was a model
        return [called, "", *values, "", ""]
    shares = facts["predicted shares"]
    most = max(shares, key=shares.get)
    return [
        called,
        f"{facts['score']:.4g}",
        *values,
        console.percent(facts["source_test"]),
        f"{most} {shares[most]:.0%}",
    ]


def words_of_adapt(context: typer.Context, best: Mapping[str, Any]) -> list[str]:
    """The typed options of an ``adapt`` with the settings of the best trial."""
    words: list[str] = []
    chosen = {key: short(value) for key, value in best["settings"].items()}
    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name)
        if name in OWN or given is None or given.name != "COMMANDLINE" or chosen.keys() & {name, f"plan.{name}"}:
            continue
        value = context.params[name]
        for each in value if isinstance(value, list | tuple) else [value]:
            if name == "set_" and each.partition("=")[0] in chosen:
                continue
            words += [option.opts[0]] if each is True else [option.opts[0], str(each)]
    for key, text in chosen.items():
        words += ["--lr", text] if key == "lr" else ["--set", f"{key}={text}"]
    return words
