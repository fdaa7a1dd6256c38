"""What a user points at: runs, benchmark folders and models, as one list of models and of what is missing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from acclimate.errors import DataError
from acclimate.experiment import BASELINE, BEST, SWEEP, Experiment, model_folder, reads
from acclimate.files import read_json
from acclimate.methods import Need, find

RUN, CELL, FAILURE, BEGUN, MODEL = "results.json", "result.json", "failure.json", "begun.json", "model.json"
GONE = "its model is gone"
GIVEN = "given model"
DEEP = 5  # folders below what was named in which cells and runs are looked for: cells/TASK/ROW/PRESET-DEVICE-seed-N
ASIDE = "stale"  # of a benchmark: cells that count no more


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One finished model."""

    label: str  # unique among those that were found together
    method: str
    folder: Path  # holds model.json
    experiment: Experiment | None = None  # None for a model of which nothing else is known
    seed: int | None = None
    oracle: bool = False
    reads: str | None = None  # what it reads of the target's labels, where it is no oracle
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # its entry of results.json or result.json
    run: Path | None = None  # the run, or the benchmark's task, that it is a part of

    @property
    def baseline(self) -> bool:
        """Whether it is source-only."""
        return self.method == BASELINE


@dataclasses.dataclass(frozen=True)
class Absent:
    """Something without a result."""

    label: str
    why: str


def found(paths: Iterable[Path]) -> tuple[list[Candidate], list[Absent]]:
    """All finished models at ``paths``, and what there should be and is not.

    A path is a run, a benchmark's folder or a part of it, one model, or a folder that holds such. A label is the
    method's or the row's name, with what it takes to tell it from the others: the run or the task, the seed.

    Raises :class:`DataError` where there is nothing of that kind.
    """
    candidates: list[Candidate] = []
    absents: list[Absent] = []
    for path in paths:
        some, none = _at(path, 0)
        if not some and not none:
            raise DataError(
                f"{path} holds no run, no benchmark and no model; give the --out of acclimate adapt or acclimate bench"
            )
        candidates += some
        absents += none
    # A model that was given to one run is a method of another: there it is told what it is.
    made = {each.folder.resolve() for each in candidates if not each.facts.get("given")}
    unique: dict[Path, Candidate] = {}
    for each in candidates:
        if not each.facts.get("given") or each.folder.resolve() not in made:
            unique.setdefault(each.folder.resolve(), each)
    return labelled(list(unique.values())), absents


def _at(path: Path, depth: int) -> tuple[list[Candidate], list[Absent]]:
    if not path.is_dir():
        if depth == 0:
            raise DataError(f"{path}: there is no such folder; give the --out of acclimate adapt or acclimate bench")
        return [], []
    if (path / RUN).exists():
        return _of_run(path)
    if (path / SWEEP).exists():
        return _of_sweep(path)
    if (path / CELL).exists():
        return _of_cell(path)
    if (path / FAILURE).exists() and "row" in (facts := read_json(path / FAILURE)):
        return [], [Absent(_cell_name(facts), f"failed: {facts['message']}")]
    if (path / BEGUN).exists():
        return [], [Absent(f"{path.parent.parent.name}, {path.parent.name}", "was begun and is not finished")]
    if (path / MODEL).exists():
        return [_of_model(path)], []
    if any(path.glob("seed-*/*/identity.json")) or any(path.glob("seed-*/*/model.json")):
        return [], [Absent(path.name, "is not finished; run the same acclimate adapt command again")]
    candidates: list[Candidate] = []
    absents: list[Absent] = []
    if depth < DEEP:
        row = path.resolve().parent.parent.name == "cells"
        for inner in sorted(each for each in path.iterdir() if each.is_dir() and not (row and each.name == ASIDE)):
            some, none = _at(inner, depth + 1)
            candidates += some
            absents += none
    return candidates, absents


def _of_run(path: Path) -> tuple[list[Candidate], list[Absent]]:
    results = read_json(path / RUN)
    experiment = Experiment(**results["experiment"])
    candidates, absents = [], []
    for name, entry in results["players"].items():
        for seed, facts in entry["seeds"].items():
            folder = path / f"seed-{seed}" / name
            label = name
            if facts.get("given"):
                label, folder = GIVEN, model_folder(Path(str(experiment.model)))
            if not (folder / MODEL).exists():
                absents.append(Absent(f"{path.name}, {name}, seed {seed}", GONE))
                continue
            candidates.append(
                Candidate(label, name, folder, experiment, int(seed), entry["oracle"], entry.get("reads"), facts, path)
            )
    return candidates, absents


def _of_sweep(path: Path) -> tuple[list[Candidate], list[Absent]]:
    """Source-only and the trials; those that failed or were set aside are absent."""
    facts = read_json(path / SWEEP)
    experiment = Experiment(**facts["question"]["experiment"])
    seed, method = experiment.plan.seed, facts["method"]
    candidates, absents = [], []
    if (path / BASELINE / MODEL).exists():
        candidates.append(Candidate(BASELINE, BASELINE, path / BASELINE, experiment, seed, run=path))
    for trial in facts["trials"]:
        folder = path / Path(trial["folder"]).name
        if trial["state"] == "finished" and (folder / MODEL).exists():
            made = Candidate(folder.name, method, folder, experiment, seed, False, reads(method), trial, path)
            candidates.append(made)
        else:
            absents.append(Absent(f"{path.name}, {folder.name}", f"{trial['state']}: {trial['reason'] or 'no model'}"))
    return candidates, absents


def folder_of(number: int) -> str:
    """A sweep's trial: ``trial-007``."""
    return f"trial-{number:03d}"


def _of_cell(path: Path) -> tuple[list[Candidate], list[Absent]]:
    facts = read_json(path / CELL)
    if not (path / MODEL).exists():
        return [], [Absent(_cell_name(facts), GONE)]
    made = Candidate(
        facts["row"],
        facts["method"],
        path,
        Experiment(**facts["experiment"]),
        facts["seed"],
        facts["oracle"],
        facts.get("reads"),
        facts,
        path.parent.parent,
    )
    return [made], []


def _of_model(path: Path) -> Candidate:
    """A model alone, a method's folder inside a run, or a trial of a sweep."""
    own = path.resolve()
    wholes = ((own.parent.parent, RUN, _of_run), (own.parent, SWEEP, _of_sweep))
    for whole, name, parts in wholes:
        if not (whole / name).exists():
            continue
        best = read_json(whole / name).get("best") if own.name == BEST else None
        folder = own if best is None else whole / folder_of(best)
        for candidate in parts(whole)[0]:
            if candidate.folder.resolve() == folder:
                return dataclasses.replace(candidate, folder=path)
    name = read_json(path / MODEL)["method"]
    # A sweep and a fine-tuning name the model in their folder alike: the folder's name says which it is.
    label = own.parent.name if own.name in (BEST, "model") else own.name
    return Candidate(label, name, path, None, None, Need.TARGET_LABELS in find(name).needs, reads(name))


def _cell_name(facts: Mapping[str, Any]) -> str:
    return f"{facts['task']}, {facts['row']}, seed {facts['seed']}"


def labelled(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The same with labels that differ: run and seed are said where they have to be."""
    runs = {candidate.run for candidate in candidates}
    seeds: dict[tuple[str, Path | None], set[int | None]] = {}
    names: dict[str, set[Path | None]] = {}
    for each in candidates:
        seeds.setdefault((each.label, each.run), set()).add(each.seed)
        names.setdefault(each.label, set()).add(each.run)
    clash = len(runs) > 1 and any(len(of) > 1 for of in names.values())
    made = []
    for each in candidates:
        label = each.label
        if clash and each.run is not None:
            label = f"{each.run.name}/{label}"
        if len(seeds[each.label, each.run]) > 1:
            label = f"{label}, seed {each.seed}"
        made.append(label)
    counts = Counter(made)
    return [
        dataclasses.replace(each, label=label if counts[label] == 1 else str(each.folder))
        for each, label in zip(candidates, made)
    ]
