"""How well label-free scores choose: over finished benchmark folders, whose models' target scores are known.

    python benchmarks/selection.py --out results/selection.json digits=runs/bench-digits segmentation=runs/bench-segmentation

Each task and seed of a folder is one *choice* among the models of its rows. Rows that learnt from target labels take no
part. A choice is computed once and kept beside the result (``--cells``), so a rerun goes on. What is written: for every
choice each score's value of each model, its regret in points, its rank correlation; and means over the choices.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from acclimate import registry
from acclimate.engine import seeing
from acclimate.engine.checkpoint import read_tensors, write_tensors
from acclimate.engine.code import code_hash
from acclimate.engine.model import Model
from acclimate.experiment import Domains, open_domains
from acclimate.files import read_json, write_json
from acclimate.random import key
from acclimate.runs import Candidate, found
from acclimate.selection import Seen, components, density_ratio, find, learnt
from acclimate.selection import see as see_module
from acclimate.selection.compare import all_values, not_to_be_trusted
from acclimate.selection.quality import rank_correlation, regret
from acclimate.selection.see import see

FEWEST = 5  # models that are worth a choice
SCHEMA = 1
TASKS = ("classification", "segmentation")


def code(*modules: ModuleType) -> str:
    """A hash of what some modules do."""
    return f"{key([code_hash(Path(str(module.__file__))) for module in modules]):016x}"


def score_code() -> str:
    """A hash of all that decides a score's value."""
    scores = [sys.modules[find(name).function.__module__] for name in registry.names("scores")]
    return code(see_module, seeing, components, density_ratio, learnt, *scores)


def choices(name: str, folder: Path) -> dict[str, list[Candidate]]:
    """The models of each task and section of a benchmark: preset, device and seed."""
    groups: dict[str, list[Candidate]] = {}
    for task in sorted((folder / "cells").iterdir()):
        for candidate in found([task])[0]:
            if not candidate.oracle and candidate.reads is None:
                groups.setdefault(f"{name}/{task.name}/{candidate.folder.name}", []).append(candidate)
    return {choice: group for choice, group in groups.items() if len(group) >= FEWEST}


def looked(candidate: Candidate, domains: Domains, cells: Path) -> Seen:
    """What is seen of a model, kept in a file: scores may change, and the pass over the images is what takes time."""
    path = cells / "seen" / f"{candidate.facts['key']}-{code(see_module, seeing)}.safetensors"
    task = domains.task()
    if not path.exists():
        model = Model.load(candidate.folder)
        seen = see(model, domains.target, domains.source, domains.source_test)
        lists = {"masks_t": seen.masks_t or [], "masks_s": seen.masks_s or []}
        maps = {f"{name}/{i:03}": map_ for name, each in lists.items() for i, map_ in enumerate(each)}
        rows = {name: value for name, value in vars(seen).items() if isinstance(value, Tensor)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {**rows, **maps})
    kept = read_tensors(path)
    masks = {
        name: [kept.pop(key) for key in sorted(kept) if key.startswith(f"{name}/")] or None
        for name in ("masks_t", "masks_s")
    }
    return Seen(**kept, **masks, classes=len(task.classes))


def measured(group: list[Candidate], cells: Path) -> dict[str, Any]:
    """Every score's value of every model of a choice, and how good the models are."""
    begun = time.process_time()
    experiment = group[0].experiment
    assert experiment is not None
    domains = open_domains(experiment.replace(labelled=None), None, score=False)
    seen = {}
    for candidate in group:
        seen[candidate.facts["row"]] = looked(candidate, domains, cells)
        print(f"    {candidate.facts['row']}", file=sys.stderr, flush=True)
    task = domains.task()
    _, values, left_out = all_values(seen, task.name)
    by_row = {candidate.facts["row"]: candidate for candidate in group}
    return {
        "task": task.name,
        "set aside": not_to_be_trusted(by_row, seen, task),
        "truths": {each.facts["row"]: each.facts["target_test"]["value"] for each in group},
        "keys": {each.facts["row"]: each.facts["key"] for each in group},
        "code": score_code(),
        "values": values,
        "left out": left_out,
        "images": next(iter(seen.values())).images,
        "CPU seconds": time.process_time() - begun,
    }


def judged(choice: dict[str, Any], rule: bool) -> dict[str, dict[str, Any]]:
    """By score: regret in points, rank correlation, what it chose; beside them choices that look at nothing.

    Args:
        rule: whether models that have hardly learnt the source are set aside, as ``acclimate compare`` does.
    """
    truths = choice["truths"]
    rows = [row for row in truths if not rule or row not in choice["set aside"]]
    t = [100 * truths[row] for row in rows]
    missed = 100 * max(truths.values()) - max(t)  # by setting models aside
    found_: dict[str, dict[str, Any]] = {}
    for name in registry.names("scores"):
        if name in choice["values"]:
            gains = [find(name).gain(choice["values"][name][row]) for row in rows]
            found_[name] = {
                "regret": missed + regret(gains, t),
                "rank correlation": rank_correlation(gains, t),
                "chosen": rows[gains.index(max(gains))],
            }
    found_["(any, at random)"] = {
        "regret": missed + max(t) - statistics.fmean(t),
        "rank correlation": None,
        "chosen": None,
    }
    for row in ("source-only", "adabn"):
        if row in truths:
            found_[f"(always {row})"] = {
                "regret": missed + max(t) - 100 * truths[row],
                "rank correlation": None,
                "chosen": row,
            }
    return found_


def summary(judgements: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Means over choices, by score."""
    by_score: dict[str, list[dict[str, Any]]] = {}
    for judgement in judgements.values():
        for name, facts in judgement.items():
            by_score.setdefault(name, []).append(facts)
    made = {}
    for name, listed in by_score.items():
        known = [facts["rank correlation"] for facts in listed if facts["rank correlation"] is not None]
        lost = [facts["regret"] for facts in listed]
        made[name] = {
            "choices": len(listed),
            "mean regret": statistics.fmean(lost),
            "median regret": statistics.median(lost),
            "largest regret": max(lost),
            "mean rank correlation": statistics.fmean(known) if known else None,
            "best chosen": sum(each == 0 for each in lost),
        }
    return dict(sorted(made.items(), key=lambda item: item[1]["mean regret"]))


def of_others(judgements: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """What the score with the least mean regret on all *other* tasks loses on each task: no score judges its own choice."""
    tasks = sorted({choice.split("/")[1] for choice in judgements})
    lost, chosen = [], {}
    for task in tasks:
        others = {name: each for name, each in judgements.items() if name.split("/")[1] != task}
        here = {name: each for name, each in judgements.items() if name.split("/")[1] == task}
        known = set.intersection(*(set(each) for each in judgements.values()))  # scores that say something everywhere
        ranked = [name for name in summary(others) if name in known and not name.startswith("(")]
        best = next(iter(ranked), None)
        if best is not None:
            chosen[task] = best
            lost += [each[best]["regret"] for each in here.values()]
    return {"mean regret": statistics.fmean(lost) if lost else None, "score by task left out": chosen}


def over_sets(sets: dict[str, Any]) -> dict[str, float]:
    """Each score's mean regret, every benchmark having one vote; only scores that say something in all of them."""
    means: dict[str, list[float]] = {}
    for facts in sets.values():
        for name, each in facts["scores"].items():
            means.setdefault(name, []).append(each["mean regret"])
    known = {name: statistics.fmean(each) for name, each in means.items() if len(each) == len(sets)}
    return dict(sorted(known.items(), key=lambda item: item[1]))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| score | choices | best found | mean regret | median | largest | rank correlation |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, facts in rows.items():
        correlation = facts["mean rank correlation"]
        lines.append(
            f"| {name} | {facts['choices']} | {facts['best chosen']} | {facts['mean regret']:.1f} | "
            f"{facts['median regret']:.1f} | {facts['largest regret']:.1f} | "
            f"{'' if correlation is None else f'{correlation:+.2f}'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", type=Path, default=Path("runs/selection"))
    parser.add_argument("--show", action="store_true", help="measure nothing; judge the choices that are there")
    options = parser.parse_args()
    kept: dict[str, dict[str, Any]] = {}
    for word in options.benches:
        name, _, folder = word.partition("=")
        for choice, group in choices(name, Path(folder)).items():
            path = options.cells / f"{choice.replace('/', '-')}.json"
            keys = {each.facts["row"]: each.facts["key"] for each in group}
            known = read_json(path) if path.exists() else None
            if not options.show and (known is None or known["keys"] != keys or known["code"] != score_code()):
                print(f"{choice}: {len(group)} models", file=sys.stderr, flush=True)
                known = measured(group, options.cells)
                write_json(path, known)
            if known is not None:
                kept[choice] = known
    sets: dict[str, Any] = {}
    judgements = {choice: judged(facts, True) for choice, facts in kept.items()}
    without = {choice: judged(facts, False) for choice, facts in kept.items()}
    for name, task in itertools.product(_names(options.benches), TASKS):
        some = {
            choice: facts
            for choice, facts in judgements.items()
            if choice.startswith(f"{name}/") and kept[choice]["task"] == task
        }
        if some:
            name = f"{name}, {task}"
            every = summary({choice: without[choice] for choice in some})
            sets[name] = {
                "scores": summary(some),
                "no model set aside": every,
                "chosen on other tasks": of_others(some),
            }
            print(f"\n### {name}: {len(some)} choices\n\n{table(sets[name]['scores'])}\n")
            print(f"no model set aside:\n\n{table(every)}\n")
            print(f"score chosen on the other tasks: {sets[name]['chosen on other tasks']}")
    overall = {task: over_sets({n: each for n, each in sets.items() if n.endswith(task)}) for task in TASKS}
    for task, means in overall.items():
        print(f"\n{task}, mean regret over sets: { {name: round(value, 1) for name, value in means.items()} }")
    write_json(
        options.out,
        {"schema": SCHEMA, "sets": sets, "mean regret over sets": overall, "judgements": judgements, "choices": kept},
    )


def _names(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words]


if __name__ == "__main__":
    main()
