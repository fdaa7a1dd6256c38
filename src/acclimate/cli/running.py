"""What ``adapt`` and ``demo`` share: from what was typed to an experiment, carrying it out, and its tables."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acclimate.cli import choices, console
from acclimate.errors import DataError, Interrupted, UsageError, unknown

if TYPE_CHECKING:
    import torch

    from acclimate.engine.run import Report
    from acclimate.exchange.tensorboard import TensorBoard
    from acclimate.experiment import Domains, Experiment, Listener


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a person typed; None leaves a choice open."""

    source: str | None
    target: str
    model: Path | None
    methods: tuple[str, ...]
    network: str | None
    network_set: dict[str, str]
    plan: dict[str, Any]
    lr: float | None
    size: list[int] | None
    crop: list[int] | None
    scale: float | None
    augment: str
    settings: Sequence[str]
    class_map: dict[str, str]
    oracle: bool
    labelled: str | None
    warm_start: bool


def experiment_of(wanted: Wanted) -> Experiment:
    """All that is decided before any image is opened. Raises :class:`UsageError` for what does not go together."""
    from acclimate.experiment import BASELINE, ORACLE, Experiment
    from acclimate.methods import find
    from acclimate.plan import Plan

    if (wanted.source is None) == (wanted.model is None):
        raise UsageError("give either --source (labelled images) or --model (trained on them)")
    if wanted.model is not None and (wanted.network or wanted.network_set or wanted.size):
        raise UsageError("--model brings its own network and size; leave out --network, --network-set and --size")
    if wanted.augment not in choices.FLIPS:
        raise unknown("augmentation", wanted.augment, choices.FLIPS)
    kinds = {name: find(name) for name in (BASELINE, *wanted.methods, ORACLE)}
    settings, plan = choices.method_settings(wanted.settings, [BASELINE, *wanted.methods, ORACLE])
    given_plan = {name: value for name, value in wanted.plan.items() if value is not None}
    plan |= given_plan
    plans: dict[str, dict[str, Any]] = {}
    if wanted.lr is not None:
        with choices.named({"lr": f"--lr {wanted.lr:g}"}):
            plans = {
                name: {"optimiser": kind.optimiser.replace(lr=wanted.lr).model_dump(mode="json")}
                for name, kind in kinds.items()
            }
    images: dict[str, Any] = {"geometry": {"flips": wanted.augment}}
    given = {"size": wanted.size, "crop": wanted.crop, "scale": wanted.scale}
    with choices.named({name: f"--{name} {value}" for name, value in given_plan.items()}):
        checked = Plan(**plan)
    return Experiment(
        source=wanted.source,
        target=wanted.target,
        model=None if wanted.model is None else str(wanted.model),
        network=wanted.network,
        network_settings={name: choices.typed(value) for name, value in wanted.network_set.items()},
        methods=wanted.methods,
        oracle=wanted.oracle,
        plan=checked,
        plans=plans,
        preprocess=images | {name: value for name, value in given.items() if value is not None},
        settings=settings,
        class_map=wanted.class_map,
        labelled=wanted.labelled,
        warm_start=wanted.warm_start,
    )


@dataclasses.dataclass(frozen=True)
class Ready:
    """What was typed, and what a look at the images has added to it."""

    experiment: Experiment
    domains: Domains
    lines: list[str]  # what is said of it before anything is trained
    folder: Path  # where no other is named
    has_labels: bool  # whether the target has some; they stay closed


def ready(wanted: Wanted, device: torch.device) -> Ready:
    """Look at the images and choose what was left open. Raises :class:`UsageError` for what cannot work on them."""
    from acclimate.experiment import check_methods, fresh_network, method_names, open_domains

    experiment = experiment_of(wanted)
    given = None if wanted.model is None else choices.model_at(wanted.model, None)
    with console.waiting("looking at the images"):
        domains = open_domains(experiment, given.method.task.name if given else None, score=False)
        target = _target_task(experiment)
        if wanted.oracle and target is None:
            raise UsageError(f"--oracle needs labels, and {wanted.target} has none")
        task = given.method.task if given else domains.task()
        if target not in (None, task.name):
            raise UsageError(
                f"the target {wanted.target} is for {target}, the {'model' if given else 'source'} for {task.name}; "
                "give a target of the same kind, or a folder with nothing but its images"
            )
        _fits(wanted, task.name)
        check_methods(method_names(experiment), task, domains)
        changes: dict[str, Any] = {}
        if "batch" not in {name for name, value in wanted.plan.items() if value is not None} and not any(
            item.startswith("plan.batch=") for item in wanted.settings
        ):
            changes["plan"] = experiment.plan.replace(batch=choices.BATCH[task.name])
        if task.name == "segmentation" and wanted.crop is None and given is None:
            side = choices.fitting_crop(domains.source, domains.target)
            changes["preprocess"] = {**experiment.preprocess, "crop": [side, side]}
        experiment = experiment.replace(**changes)
        if given:
            net, preprocess = given.method.net, given.preprocess
        else:
            with choices.named({"scale": f"--scale {wanted.scale}"}):
                net, preprocess = fresh_network(experiment, domains, task, experiment.plan.seed)
        lines = choices.plan_lines(experiment, domains, task.name, net, preprocess, device)
    folder = choices.default_folder(wanted.source or str(wanted.model), wanted.target)
    return Ready(experiment, domains, lines, folder, target is not None)


def carried_out(
    wanted: Wanted, out: Path | None, device: torch.device, command: str, *, force: bool, tensorboard: Path | None
) -> dict[str, Any]:
    """Look at the data, say what is chosen, train, judge, report."""
    with contextlib.ExitStack() as stack:
        listeners = [] if tensorboard is None else [stack.enter_context(curves(tensorboard))]
        chosen = ready(wanted, device)
        folder = out or chosen.folder
        state = _state(folder)
        announce(chosen, folder, state)
        results = carry_out_and_report(
            chosen.experiment, folder, command, device=device, force=force, listeners=listeners
        )
    return {**results, "target has labels": chosen.has_labels}


def curves(folder: Path) -> TensorBoard:
    """A listener that draws curves. Raises :class:`UsageError`, before anything is trained, where the extra is missing."""
    from acclimate.exchange.tensorboard import TensorBoard

    return TensorBoard(folder)


def announce(chosen: Ready, folder: Path, state: str) -> None:
    """Say what was found and chosen; where nothing has begun, ``state`` is empty and every image is decoded once."""
    for line in chosen.lines:
        console.say(line)
    console.say(f"{'out':8} {folder}{state}")
    if not state:
        _all_decode(chosen.domains, chosen.experiment)


def carry_out_and_report(
    experiment: Experiment,
    folder: Path,
    command: str,
    *,
    device: torch.device,
    force: bool,
    seeds: Sequence[int] | None = None,
    score: bool = False,
    listeners: Sequence[Listener] = (),
) -> dict[str, Any]:
    """``carry_out`` with a progress bar, then the report; the result knows both places.

    ``listeners`` hear every report of the engine beside the bar.
    """
    from acclimate.experiment import carry_out
    from acclimate.report.evidence import gather
    from acclimate.report.write import write

    report = folder / "report.html"
    try:
        with console.Progress() as progress:
            results = carry_out(
                experiment,
                folder,
                seeds=seeds,
                score=score,
                device=device,
                listener=all_of(progress, *listeners),
                force=force,
                after=functools.partial(gather, folder=folder, progress=progress.note),
            )
        if console.first_process():
            with console.waiting("writing the report", aloud=True):
                report = write(folder, command)
    except KeyboardInterrupt:  # outside of training, which has a way of its own to stop
        raise Interrupted(
            "interrupted; run the same command to continue: finished methods are not trained again"
        ) from None
    return {**results, "folder": str(folder), "report": str(report)}


def all_of(*listeners: Listener) -> Listener:
    """One listener whose reports all of them hear."""

    def hear(method: str, seed: int, report: Report) -> None:
        for listener in listeners:
            listener(method, seed, report)

    return hear


def _all_decode(domains: Domains, experiment: Experiment) -> None:
    """Raise :class:`DataError` for the first image that cannot be used: before training, not hours into it."""
    from acclimate.data import usable

    for domain in (domains.source, domains.source_test, domains.target, domains.labelled):
        if domain is not None:
            with console.waiting(f"{domain.name}: decoding {len(domain)} images"):
                try:
                    usable(domain)
                except DataError as error:
                    of_few = domain is domains.labelled
                    asked = [experiment.labelled] if of_few else [experiment.source, experiment.target]
                    refs = [ref for ref in asked if isinstance(ref, str)]
                    raise DataError(f"{error} ({console.command('check', *refs)} names all of them)") from error


def _target_task(experiment: Experiment) -> str | None:
    """What the target has labels for, if it has any; only ``evaluate`` and an oracle may open them."""
    from acclimate.data import open_domain

    try:
        return open_domain(experiment.target).task
    except DataError:  # a folder of splits, which an oracle takes and others do not
        return None


def _fits(wanted: Wanted, task: str) -> None:
    """Raise :class:`UsageError` for options of the other task, or of other methods: they would do nothing."""
    from acclimate import registry
    from acclimate.methods import Need, find

    other = {"classification": ("crop", "scale"), "segmentation": ("size",)}[task]
    for name in other:
        if getattr(wanted, name) is not None:
            instead = "--crop and --scale" if task == "segmentation" else "--size"
            raise UsageError(f"--{name} has no meaning for {task}; use {instead}")
    if wanted.warm_start and wanted.model is not None:
        raise UsageError(
            "--warm-start has no meaning with --model, from which every method starts anyway; leave out --warm-start"
        )
    if wanted.labelled is not None and not any(Need.FEW_TARGET_LABELS in find(name).needs for name in wanted.methods):
        known = [name for name in registry.names("methods") if Need.FEW_TARGET_LABELS in find(name).needs]
        raise UsageError(
            f"{' and '.join(wanted.methods)} would not read the images of --labelled; leave out --labelled, or add "
            f"--method {' or '.join(known)}"
        )


def _state(folder: Path) -> str:
    if (folder / "results.json").exists():
        return " (finished before: only what is missing is trained)"
    if next(folder.glob("seed-*/*/checkpoints/*/MANIFEST.json"), None):
        return " (goes on where it stopped)"
    return ""


# -- tables -----------------------------------------------------------------------------------------------------------


def label(name: str, oracle: bool, reads: str | None) -> str:
    """An oracle is always called one, and a method that reads a few target labels says so."""
    mark = "oracle" if oracle else reads
    return f"{name} ({mark})" if mark else name


def label_free_table(results: dict[str, Any]) -> str:
    """Each player on the source's held-out images, and how its predictions on the target look; no target score."""
    seed = str(results["seeds"][0])
    rows = []
    for name, entry in results["players"].items():
        facts = entry["seeds"][seed]
        shares = facts["predicted shares"]
        most = max(shares, key=shares.get)
        rows.append(
            [
                "given model" if facts.get("given") else label(name, entry["oracle"], entry["reads"]),
                _value(facts["source_test"]),
                console.percent(facts.get("changed")),
                console.percent(facts["mean confidence"]),
                f"{most} {shares[most]:.0%}",
                console.minutes(entry["summary"]["minutes"]),
            ]
        )
    header = ["", f"source {results['primary']}", "changed", "confidence", "largest class", "time"]
    return (
        f"{console.table(*_filled(header, rows))}\n"
        "(source: held-out images; changed, confidence, largest class: predictions on the target, no label needed)"
    )


def score_table(results: dict[str, Any]) -> str:
    """Source and target test scores of each player, over seeds; only where the experiment scored."""
    base = next(iter(results["players"].values()))["summary"]["target_test"]
    rows = []
    for name, entry in results["players"].items():
        summary = entry["summary"]
        target = summary["target_test"]
        difference = (
            None if target is None or entry["summary"] is None or target is base else target["mean"] - base["mean"]
        )
        rows.append(
            [
                label(name, entry["oracle"], entry["reads"]),
                _mean(summary["source_test"]),
                _mean(target),
                console.percent(difference, sign=True),
                console.minutes(summary["minutes"]),
            ]
        )
    return console.table(*_filled([results["primary"], "source test", "target test", "difference", "time"], rows))


def warnings(results: dict[str, Any]) -> list[str]:
    """What looked wrong, by method; the same for several seeds is said once."""
    found = {
        f"{name}: {text}": None
        for name, entry in results["players"].items()
        for facts in entry["seeds"].values()
        for text in facts["warnings"]
    }
    return list(found)


def _value(facts: dict[str, Any] | None) -> str:
    return "" if facts is None else console.percent(facts["value"])


def _mean(score: dict[str, Any] | None) -> str:
    if score is None:
        return ""
    deviation = "" if score["deviation"] is None else f" +- {100 * score['deviation']:.1f}"
    return console.percent(score["mean"]) + deviation


def _filled(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the columns in which nothing stands."""
    kept = [0, *(i for i in range(1, len(header)) if any(row[i] for row in rows))]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]
