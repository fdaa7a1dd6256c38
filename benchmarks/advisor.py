"""Is the advice right? Shifts of many sources, each really adapted and scored, kept as one JSON line each.

    python benchmarks/advisor.py collect --set test [--seeds 0 1 2] [--shifts 26] [--out .cache/advisor]
    python benchmarks/advisor.py judge --set test [--out .cache/advisor] [--results results/advisor.json]

``collect`` trains a small network on every source (kept, resumable), draws shifts and tries each. Sources of the set "dev"
were used to choose the advisor's features and settings, those of "test" for nothing but the figures.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr

from acclimate import __version__, networks, tasks
from acclimate.data import Domain, open_splits
from acclimate.data.perlin import scenes
from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis.advisor import (
    LEVEL,
    Advice,
    Learner,
    Trial,
    changed,
    interval,
    leave_kinds_out,
    trial,
    windows_of,
)
from acclimate.diagnosis.behaviour import reference
from acclimate.diagnosis.diagnose import verdict_of
from acclimate.diagnosis.windows import cut
from acclimate.engine.adapt import adapt
from acclimate.engine.checkpoint import load_weights, read_tensors, write_tensors
from acclimate.files import write_json
from acclimate.plan import Optimiser, Plan
from acclimate.transforms.augment import Geometry
from acclimate.transforms.shifts import Shift, draw

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"

PERLIN = {  # object mean, background mean, noise, share of the object, cells of the noise
    "dev": {
        "perlin-dev-1": dict(inside=0.7, outside=0.3, sigma=0.15, share=(0.3, 0.5), cells=4),
        "perlin-dev-2": dict(inside=0.35, outside=0.6, sigma=0.12, share=(0.15, 0.4), cells=3),
        "perlin-dev-3": dict(inside=0.5, outside=0.4, sigma=0.08, share=(0.2, 0.35), cells=5),
    },
    "test": {
        "perlin-1": dict(inside=0.6, outside=0.4, sigma=0.10, share=(0.3, 0.5), cells=4),
        "perlin-2": dict(inside=0.3, outside=0.7, sigma=0.20, share=(0.2, 0.45), cells=3),
        "perlin-3": dict(inside=0.8, outside=0.45, sigma=0.12, share=(0.25, 0.4), cells=4, octaves=2),
        "perlin-4": dict(inside=0.25, outside=0.5, sigma=0.15, share=(0.15, 0.35), cells=5),
    },
}
# folder, masks, zoom at which structures are visible in 64 pixels
FOLDERS = {
    "dev": {"stare": ("vessel_stare", "masks", 0.5), "isbi": ("em_isbi2012", "masks_membrane", 0.5)},
    "test": {
        "lucchi": ("em_lucchi", "masks", 0.25),
        "vnc": ("em_vnc", "masks", 0.25),
        "drive": ("vessel_drive", "masks", 0.5),
        "nuclei": ("nuclei_fluo", "masks", 0.5),
    },
}
DIGITS = {"dev": ["usps"], "test": ["mnist", "syn-signs"]}
STEPS, SIDE = 400, 64


def folder_domains(name: str, masks: str) -> tuple[Domain, Domain]:
    """Train and test parts of a set of images and masks."""
    splits = json.loads((SHARED / name / "splits.json").read_text())
    parts = []
    for part in ("train", "test"):
        images, labels = [], []
        stems = [Path(stem).stem for stem in splits[part]]
        for stem in stems:
            (path,) = (SHARED / name / "images").glob(f"{stem}.*")
            (mask,) = (SHARED / name / masks).glob(f"{stem}.*")
            images.append(np.asarray(Image.open(path).convert("L"))[..., None])
            label = np.asarray(Image.open(mask)).astype(np.int16)
            labels.append(np.where(label == 255, -1, np.minimum(label, 1)))
        parts.append(Domain(f"{name} {part}", "segmentation", ("background", "object"), images, labels, stems))
    return parts[0], parts[1]


def domains(kind: str, name: str) -> tuple[Domain, Domain, float]:
    """Train and test domains and the zoom."""
    if name in PERLIN[kind]:
        found = []
        for part, count in (("train", 300), ("test", 200)):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {part}".encode()))
            images, masks = scenes(count, SIDE, generator=generator, **PERLIN[kind][name])
            names = [f"{part}-{i}" for i in range(count)]
            found.append(
                Domain(
                    name,
                    "segmentation",
                    ("background", "object"),
                    images.numpy(),
                    masks.numpy().astype(np.int16),
                    names,
                )
            )
        return found[0], found[1], 1.0
    if name in FOLDERS[kind]:
        folder, masks, zoom = FOLDERS[kind][name]
        return *folder_domains(folder, masks), zoom
    train, test = open_splits(name, 0.2, "classification")
    return train, test, 1.0


def source_model(kind: str, name: str, seed: int, place: Path):
    """The network trained on a source, kept in ``place``."""
    train, test, zoom = domains(kind, name)
    task = tasks.build(train.task, train.classes)
    torch.manual_seed(seed)
    how = Optimiser(kind="adam", lr=2e-3, schedule="poly")
    if train.task == "segmentation":
        net = networks.build("unet", classes=2, channels=1, size=SIDE, width=8, depth=3)
        preprocess = Preprocess(crop=(SIDE, SIDE), scale=zoom, channels=1, geometry=Geometry(flips="dihedral"))
        plan = Plan(
            steps=STEPS,
            batch=16,
            seed=seed,
            precision="float32",
            optimiser=Optimiser(kind="adam", lr=2e-3, schedule="poly"),
        )
    else:
        net = networks.build("dtn", classes=len(train.classes), channels=3, size=32)
        preprocess = Preprocess(size=(32, 32), channels=3)
        plan = Plan(steps=STEPS, batch=64, seed=seed, optimiser=how.replace(lr=1e-3))
    path = place / f"{name}-{seed}.safetensors"
    if path.exists():
        load_weights(net, read_tensors(path), str(path))
    else:
        done = adapt(net, train, None, "source-only", plan=plan, preprocess=preprocess, task=task, device="cpu")
        net = done.model.method.net
        write_tensors(path, net.state_dict())
    return net.eval(), task, preprocess.replace(geometry=Geometry()), test


def collect(kind: str, seeds: list[int], shifts: int, out: Path, only: list[str]) -> None:
    """One line a shift; what is there is not done again."""
    out.mkdir(parents=True, exist_ok=True)
    names = [*PERLIN[kind], *FOLDERS[kind], *DIGITS[kind]]
    for seed in seeds:
        for name in names:
            if only and name not in only:
                continue
            path = out / f"{kind}-{name}-{seed}.jsonl"
            done = len(path.read_text().splitlines()) if path.exists() else 0
            if done >= shifts:
                continue
            net, task, preprocess, test = source_model(kind, name, seed, out)
            looked, pool = test.holdout(0.5, seed)
            count = windows_of(*(preprocess.size or preprocess.crop or (SIDE, SIDE)))
            looked_at = cut(looked, task.name, preprocess, 2 * count, SIDE, seed)
            tried = cut(pool, task.name, preprocess, 3 * count, SIDE, seed + 1)
            source = reference(net, task, preprocess, looked_at, seed)
            begun = time.perf_counter()
            channels = looked_at.x.shape[1]
            # The empty shift comes first: advice where nothing moved counts too.
            wanted = [
                (),
                *draw(
                    shifts - 1,
                    1000 * seed + zlib.crc32(f"{kind} {name}".encode()) % 1000,
                    compound=0.5,
                    channels=channels,
                ),
            ]
            with path.open("a") as stream:
                for number in range(done, shifts):
                    found = trial(source, tried, wanted[number], 7919 * seed + number, count)
                    row = {
                        "source": name,
                        "seed": seed,
                        "own": source.score,
                        "shifts": [one.model_dump() for one in found.shifts],
                        "before": found.before,
                        "after": found.after,
                        "deviation": found.deviation,
                        "facts": found.facts,
                    }
                    stream.write(json.dumps(row) + "\n")
                    stream.flush()
            print(
                name,
                seed,
                f"own {source.score:.3f}",
                f"{(time.perf_counter() - begun) / max(1, shifts - done):.2f} s a shift",
                flush=True,
            )


# -- figures ----------------------------------------------------------------------------------------------------------

GROUPS: dict[
    str, tuple[str, ...]
] = {  # what the advisor may read; "agreement" says how much changes and is always known
    "Bhattacharyya before": ("bhattacharyya before",),
    "distances": ("frechet", "energy", "bhattacharyya", "shift ", "spread "),
    "confidence": ("calibrated score", "confidence", "thresholded", "entropy", "unsure"),
    "agreement": ("agreement", "steady", "differ", "margin", "halfway"),
    "morphology": ("shares", "last share", "largest share", "borders", "smooth"),
    "twin": ("twin",),
    "all but the twin": ("!twin",),
    "all": ("",),
}


def only(facts: dict[str, float], prefixes: tuple[str, ...]) -> dict[str, float]:
    """The facts of a group."""
    if prefixes[0].startswith("!"):
        return {name: value for name, value in facts.items() if not name.startswith(prefixes[0][1:])}
    return {n: v for n, v in facts.items() if n == "agreement" or n.startswith(prefixes)}


def as_trial(row: dict[str, Any], prefixes: tuple[str, ...] = ("",)) -> Trial:
    """A line of the collection as the advisor knows it."""
    shifts = tuple(Shift(**one) for one in row["shifts"])
    return Trial(shifts, only(row["facts"], prefixes), row["before"], row["after"], row["deviation"])


def own_families(rows: list[dict[str, Any]], prefixes: tuple[str, ...]) -> np.ndarray:
    """As the product does: trained on other kinds of shift of the same source and network."""
    predicted = np.zeros(len(rows))
    for key_ in sorted({(row["source"], row["seed"]) for row in rows}):
        mine = [i for i, row in enumerate(rows) if (row["source"], row["seed"]) == key_]
        predicted[mine] = leave_kinds_out([as_trial(rows[i], prefixes) for i in mine])
    return predicted


def other_sources(rows: list[dict[str, Any]], prefixes: tuple[str, ...]) -> np.ndarray:
    """Trained on the shifts of all other sources, none of this one."""
    predicted = np.zeros(len(rows))
    for source in sorted({row["source"] for row in rows}):
        trials = [as_trial(row, prefixes) for row in rows if row["source"] != source]
        learner = Learner([one.facts for one in trials], [one.gain for one in trials])
        mine = [i for i, row in enumerate(rows) if row["source"] == source]
        predicted[mine] = learner.predict([only(rows[i]["facts"], prefixes) for i in mine])
    return predicted


def figures(rows: list[dict[str, Any]], predicted: np.ndarray) -> dict[str, Any]:
    """How good predictions are, by seed: mean and deviation."""
    found: dict[str, list[float]] = {}
    for seed in sorted({row["seed"] for row in rows}):
        mine = np.array([row["seed"] == seed for row in rows])
        before, after = (np.array([row[when] for row in rows])[mine] for when in ("before", "after"))
        sources = np.array([row["source"] for row in rows])[mine]
        gain, guess = after - before, predicted[mine]
        advised, oracle = np.where(guess > 0, after, before), np.maximum(before, after)
        matters = np.abs(gain) > 0.01
        values = {
            "spearman": spearmanr(guess, gain).statistic,
            "spearman within a source": np.mean(
                [spearmanr(guess[sources == s], gain[sources == s]).statistic for s in set(sources)]
            ),
            "spearman where |gain| > .01": spearmanr(guess[matters], gain[matters]).statistic,
            "mean absolute error": np.abs(guess - gain).mean(),
            "score never": before.mean(),
            "score always": after.mean(),
            "score advised": advised.mean(),
            "score oracle": oracle.mean(),
            "share of the oracle's gain": (advised.mean() - before.mean()) / (oracle.mean() - before.mean()),
            "share of always' gain": (after.mean() - before.mean()) / (oracle.mean() - before.mean()),
            "adopted": (guess > 0).mean(),
            "harmful, of all": ((guess > 0) & (gain < -0.05)).mean(),
            "harmful, of adopted": ((guess > 0) & (gain < -0.05)).sum() / max(1, (guess > 0).sum()),
            "harmful if always": (gain < -0.05).mean(),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(float(value))
    return {
        name: {"mean": float(np.mean(v)), "deviation": float(np.std(v, ddof=1)) if len(v) > 1 else None}
        for name, v in found.items()
    }


def verdicts(rows: list[dict[str, Any]], predicted: np.ndarray) -> dict[str, Any]:
    """What the three verdicts were worth: each shift's interval from the residuals of all others of its source and network."""
    gain = np.array([row["after"] - row["before"] for row in rows])
    reach = changed([row["facts"] for row in rows])
    counts: dict[str, list[float]] = {"adapt": [], "don't adapt": [], "uncertain": []}
    covered = []
    for key_ in sorted({(row["source"], row["seed"]) for row in rows}):
        mine = np.array([i for i, row in enumerate(rows) if (row["source"], row["seed"]) == key_])
        for i in mine:
            others = mine[mine != i]
            relative = np.sort(np.abs(gain[others] - predicted[others]) / reach[others])
            said = interval(float(predicted[i]), float(reach[i]), relative)
            covered.append(said[0] <= gain[i] <= said[1])
            advice = Advice(float(predicted[i]), *said, LEVEL, len(others), [], 0.0, None)
            counts[verdict_of(advice)].append(float(gain[i]))
    return {
        "coverage of the 90 % interval": float(np.mean(covered)),
        **{
            name: {
                "times": len(gains),
                "mean gain": float(np.mean(gains)) if gains else None,
                "share with gain < -.05": float(np.mean(np.array(gains) < -0.05)) if gains else None,
                "share with gain > .02": float(np.mean(np.array(gains) > 0.02)) if gains else None,
            }
            for name, gains in counts.items()
        },
    }


def judge(kind: str, out: Path, results: Path) -> None:
    """All figures, as JSON and as a table."""
    rows = [json.loads(line) for path in sorted(out.glob(f"{kind}-*.jsonl")) for line in path.read_text().splitlines()]
    gain = np.array([row["after"] - row["before"] for row in rows])
    facts = {name: np.array([row["facts"][name] for row in rows]) for name in rows[0]["facts"]}
    raw = {
        "Bhattacharyya before": facts["bhattacharyya before"],
        "Bhattacharyya after": -facts["bhattacharyya after"],
        "Frechet before (late layers)": facts["frechet late before"],
        "Frechet after (late layers)": -facts["frechet late after"],
        "difference of calibrated scores": facts["calibrated score after"] - facts["calibrated score before"],
        "difference of DoC": facts["confidence difference after"] - facts["confidence difference before"],
        "difference of ATC": facts["thresholded confidence after"] - facts["thresholded confidence before"],
        "difference of steadiness": facts["steady after"] - facts["steady before"],
        "gain of the twin": facts["twin score after"] - facts["twin score before"],
    }
    found: dict[str, Any] = {
        "acclimate": __version__,
        "shifts": len(rows),
        "sources": {
            f"{name} {seed}": {
                "own": next(row["own"] for row in mine),
                "never": float(np.mean([row["before"] for row in mine])),
                "always": float(np.mean([row["after"] for row in mine])),
                "oracle": float(np.mean([max(row["before"], row["after"]) for row in mine])),
                "shifts": len(mine),
            }
            for name, seed in sorted({(row["source"], row["seed"]) for row in rows})
            if (mine := [row for row in rows if (row["source"], row["seed"]) == (name, seed)])
        },
        "share of shifts that change the score by more than .01": float((np.abs(gain) > 0.01).mean()),
        "rank correlation of single facts": {
            name: float(spearmanr(value, gain).statistic) for name, value in raw.items()
        },
        "other kinds of the same source": {},
        "other sources": {},
    }
    for name, prefixes in reversed(GROUPS.items()):
        found["other sources"][name] = figures(rows, other_sources(rows, prefixes))
        if name not in OWN:
            print(f"{name:22} other sources: rho {found['other sources'][name]['spearman']['mean']:.3f}", flush=True)
            continue
        predicted = own_families(rows, prefixes)
        found["other kinds of the same source"][name] = figures(rows, predicted)
        if name == "all":
            found["verdicts"] = verdicts(rows, predicted)
        write_json(results, found)
        for protocol in ("other kinds of the same source", "other sources"):
            one = found[protocol][name]
            print(
                f"{protocol:32} {name:22} rho {one['spearman']['mean']:.3f} "
                f"oracle's gain {one[ORACLES]['mean']:.1%} harmful {one['harmful, of adopted']['mean']:.1%} of adopted",
                flush=True,
            )
    write_json(results, found)
    print(json.dumps(found["verdicts"], indent=1))


OWN = ("Bhattacharyya before", "all but the twin", "all")  # the others would take an hour
ORACLES = "share of the oracle's gain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("collect", "judge"))
    parser.add_argument("--set", choices=("dev", "test"), default="dev")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shifts", type=int, default=26)
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".cache" / "advisor")
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results" / "advisor.json")
    chosen = parser.parse_args()
    if chosen.what == "judge":
        judge(chosen.set, chosen.out, chosen.results)
        return
    collect(chosen.set, chosen.seeds, chosen.shifts, chosen.out, chosen.only)


if __name__ == "__main__":
    main()
