"""One page over several runs of one target: their results as one, and the evidence gathered anew from their models."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from acclimate import __version__, registry
from acclimate.data.open import open_splits
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.experiment import BASELINE, SCHEMA, Domains, Experiment, Player, open_domains
from acclimate.files import read_json
from acclimate.methods import find
from acclimate.report.compose import compose, finite
from acclimate.report.evidence import describe, gathered
from acclimate.report.schema import Report, listed, load
from acclimate.report.write import TWIN, publish
from acclimate.runs import Absent, Candidate, found, labelled

JUDGED = (
    "target_test"  # in all facts of a run or a benchmark, None where it was not scored; a sweep knows nothing of it
)
MOST_PICTURED = 12  # players in pictures; the tables hold all


@dataclasses.dataclass(frozen=True)
class Row:
    """A method of a run, or a row of a benchmark's task, with all its seeds."""

    name: str  # unique on the page
    part: tuple[str, ...]  # the run, or the task, preset and device, whose source-only it is held against
    seeds: Sequence[Candidate]

    @property
    def first(self) -> Candidate:
        """Its first seed: the model that pictures show."""
        return self.seeds[0]

    @property
    def rank(self) -> int:
        """Source-only comes first, then other rows of a table that are not adapted; oracles come last."""
        if self.first.baseline:
            return 0 if own_name(self.first) == BASELINE else 1
        return 3 if self.first.oracle else 2


def write_merged(
    paths: Sequence[Path],
    folder: Path,
    command: str,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Path:
    """``report.html`` and ``report.json`` in ``folder`` over all runs, benchmark cells and models at ``paths``.

    A difference is to the source-only of the same run and seed. Target labels are read only where all were scored.

    Args:
        command: what repeats it.
        device: where the models predict.
        progress: called with what begins.

    Raises :class:`UsageError` for runs of different targets, classes or tasks, :class:`DataError` for what is missing.
    """
    candidates, absents = found(paths)
    alone = [each for each in candidates if each.experiment is None]
    absents += [Absent(each.label, "a model alone does not say what it was adapted to; give its run") for each in alone]
    tried = [each for each in candidates if each.experiment is not None and JUDGED not in each.facts]
    absents += [Absent(each.label, "a part of a sweep: acclimate compare looks at it") for each in tried]
    candidates = [each for each in candidates if each.experiment is not None and JUDGED in each.facts]
    if not candidates:
        raise DataError("nothing here can be reported: " + reasons(absents))
    check_one_target(candidates)
    rows = rows_of(candidates)
    (progress or (lambda text: None))("loading models and images")
    pictured = pictured_of(rows)
    described, players = [], []
    for row in rows:
        player = Player(row.name, Model.load(row.first.folder, device), {})
        described.append(describe(player))
        if row in pictured:
            players.append(player)
    task = players[0].model.method.task
    scored = all(each.facts["target_test"] is not None for each in candidates)
    domains = domains_of(candidates, task.name, scored)
    evidence, tensors = gathered(domains, players, progress=progress)
    evidence["players"] = described
    results = {
        "schema": SCHEMA,
        "acclimate": __version__,
        "experiment": experiment_of(candidates[0]).model_dump(mode="json"),
        "task": task.name,
        "classes": list(task.classes),
        "primary": task.primary,
        "scored": scored,
        "seeds": sorted({seed_of(each) for each in candidates}),
        "domains": {
            name: {"name": domain.name, "images": len(domain), "facts": dict(domain.facts)}
            for name, domain in vars(domains).items()
            if domain is not None
        },
        "players": {row.name: entry(row, rows) for row in rows},
        "runs": origins(rows),
        "absent": [dataclasses.asdict(each) for each in absents],
        "transductive": transductive(rows, task.name) if scored else [],
        "left out": [row.name for row in rows if row not in pictured],
        "notes": notes(candidates, scored),
    }
    report: Report = compose(finite(results), finite(evidence), tensors, folder, command)
    return publish(report, tensors, folder)


# -- which belong together --------------------------------------------------------------------------------------------


def check_one_target(candidates: Sequence[Candidate]) -> None:
    """Raise :class:`UsageError` unless all have one target and the same classes."""
    targets: dict[str, list[str]] = {}
    for each in candidates:
        targets.setdefault(place(experiment_of(each).target), []).append(each.label)
    if len(targets) > 1:
        said = "; ".join(f"{name}: {some(labels)}" for name, labels in targets.items())
        raise UsageError(f"one report is about one target, and these have {len(targets)}; report them apart ({said})")
    classes = {tuple(each.facts["predicted shares"]): each.label for each in candidates}
    if len(classes) > 1:
        (a, of_a), (b, of_b), *_ = classes.items()
        raise UsageError(
            f"{of_a} has the classes {', '.join(a)}, {of_b} has {', '.join(b)}; report them apart, or run one of them "
            "again with the other's classes"
        )


def place(target: str) -> str:
    """A folder under its full name, as one run may have called it otherwise; a catalog's name, which goes first, as it is."""
    known = target.partition(":")[0] in registry.names("datasets")
    return str(Path(target).resolve()) if Path(target).exists() and not known else target


def some(labels: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return listed([*labels[:most], *([f"{len(labels) - most} more"] if len(labels) > most else [])])


def reasons(absents: Sequence[Absent]) -> str:
    """Why things are absent, each reason once."""
    labels: dict[str, list[str]] = {}
    for each in absents:
        labels.setdefault(each.why, []).append(each.label)
    return "; ".join(f"{some(mine)}: {why}" for why, mine in labels.items())


def rows_of(candidates: Sequence[Candidate]) -> list[Row]:
    """The candidates by run and name, seeds together; each run's source-only first and its oracle last."""
    groups: dict[tuple[tuple[str, ...], str], list[Candidate]] = {}
    for each in candidates:
        groups.setdefault((part(each), own_name(each)), []).append(each)
    firsts = [
        dataclasses.replace(several[0], label=name, seed=None)  # seeds stand in one row: no label names one
        for (_, name), several in groups.items()
    ]
    rows = [
        Row(named.label, key[0], sorted(several, key=seed_of))
        for named, (key, several) in zip(labelled(firsts), groups.items())
    ]
    parts = list(dict.fromkeys(row.part for row in rows))
    rows.sort(key=lambda row: (parts.index(row.part), row.rank))
    reference = next((row for row in rows if row.first.baseline), rows[0])
    return [reference, *(row for row in rows if row is not reference)]


def part(candidate: Candidate) -> tuple[str, ...]:
    """Its run; of a benchmark the task, preset and device."""
    of_cell = [candidate.facts[key] for key in ("preset", "device") if "row" in candidate.facts]
    return (str(candidate.run), *of_cell)


def own_name(candidate: Candidate) -> str:
    """The name that its run or table gives it."""
    return str(candidate.facts.get("row", candidate.method))


def seed_of(candidate: Candidate) -> int:
    """Its seed, which all that belong to a run have."""
    assert candidate.seed is not None
    return candidate.seed


def experiment_of(candidate: Candidate) -> Experiment:
    """What it is a part of."""
    assert candidate.experiment is not None
    return candidate.experiment


def pictured_of(rows: Sequence[Row]) -> list[Row]:
    """The first dozen in the order in which they were given: no score chooses. Oracles are in no picture but see some."""
    shown = [row for row in rows if not row.first.oracle][:MOST_PICTURED] or list(rows[:1])
    return [*shown, *[row for row in rows if row.first.oracle and row not in shown][:1]]


def domains_of(candidates: Sequence[Candidate], task: str, scored: bool) -> Domains:
    """The first run's domains; without a source where the runs have different ones: no picture would show all of them."""
    experiment = experiment_of(candidates[0])
    domains = open_domains(experiment.replace(oracle=False, labelled=None), task, scored)
    if len(sources_of(candidates)) > 1:
        return dataclasses.replace(domains, source=None, source_test=None)
    return domains


def sources_of(candidates: Sequence[Candidate]) -> list[str]:
    """Where the labels come from: a source, or the model in its place."""
    experiments = [experiment_of(each) for each in candidates]
    return list(dict.fromkeys(place(str(each.source or each.model)) for each in experiments))


def transductive(rows: Sequence[Row], task: str) -> list[str]:
    """The rows that were scored on the target images that they adapted to: no holdout, and no split of the target's own."""
    asked = [row for row in rows if experiment_of(row.first).holdout == 0]
    if not asked:
        return []
    adapted, scored = open_splits(experiment_of(asked[0].first).target, 0, task)
    return [row.name for row in asked] if adapted is scored else []


# -- what is said of them ---------------------------------------------------------------------------------------------


def entry(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """A player as ``results.json`` has it, with its own experiment and source-only."""
    mine = [other for other in rows if other.part == row.part and other.first.baseline]
    return {
        "title": find(row.first.method).card.title,
        "oracle": row.first.oracle,
        "reads": row.first.reads,
        "baseline": mine[0].name if mine else None,
        "experiment": experiment_of(row.first).model_dump(mode="json"),
        "seeds": {str(seed_of(each)): each.facts for each in row.seeds},
    }


def origins(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each run, or task of a benchmark, with the command that repeats it."""
    listed_ = []
    for which in dict.fromkeys(row.part for row in rows):
        mine = [row for row in rows if row.part == which]
        experiment = experiment_of(mine[0].first)
        seeds = sorted({seed_of(each) for row in mine for each in row.seeds})
        listed_.append(
            {
                "folder": which[0],
                "source": str(experiment.source or experiment.model),
                "players": [row.name for row in mine],
                "seeds": seeds,
                "command": command_of(Path(which[0]), mine, seeds),
            }
        )
    return listed_


def command_of(run: Path, rows: Sequence[Row], seeds: Sequence[int]) -> str | None:
    """What repeats a run, as its own report has it, or these rows and seeds of a benchmark's task."""
    facts = rows[0].first.facts
    if "row" in facts:
        which = {
            "--tasks": facts["task"],
            "--methods": ",".join(own_name(row.first) for row in rows),
            "--seeds": str(max(seeds) + 1),
            "--preset": facts["preset"],
            "--device": facts["device"],
            "--out": str(run.parent.parent),
        }
        return shlex.join(["acclimate", "bench", facts["table"], *(word for pair in which.items() for word in pair)])
    try:
        return load(run / TWIN).command
    except DataError:
        return None  # it has no report, or one of another release


def notes(candidates: Sequence[Candidate], scored: bool) -> list[str]:
    """What holds for a page over several runs only."""
    said = []
    if len({part(each) for each in candidates}) > 1:
        said.append(
            "Each run has settings, steps and seeds of its own (below): a difference between methods of two runs may "
            "come from these."
        )
    held = sorted({experiment_of(each).holdout for each in candidates})
    if scored and len(held) > 1:
        said.append(
            f"The runs keep different shares of a folder for scoring ({listed([f'{100 * share:g} %' for share in held])}): "
            "where the target is a plain folder, their test images differ."
        )
    judged = [each for each in candidates if each.facts["target_test"] is not None]
    if judged and not scored:
        said.append(
            "Not all of these were scored on the target, so no target score is shown, not even where there is one."
        )
    if len(sources_of(candidates)) > 1:
        said.append("The runs have different sources, so features and class shares are shown of the target alone.")
    return said


def unfinished(run: Path) -> str:
    """Which players of a run without results have a model, in words; nothing where there is none."""
    done = sorted({path.parent.name for path in run.glob("seed-*/*/model.json")})
    begun = sorted({path.parent.name for path in run.glob("seed-*/*/identity.json")} - set(done))
    failed = [path.parent for path in run.glob("seed-*/*/failure.json")]
    parts = [f"finished: {listed(done)}"] if done else []
    parts += [f"not finished: {listed(begun)}"] if begun else []
    for path in failed:
        facts = read_json(path / "failure.json")
        parts.append(
            f"{path.name} ({path.parent.name}) stopped in {facts['stage']}, step {facts['step']}: {facts['term']}"
        )
    return "; ".join(parts)
