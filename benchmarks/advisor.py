"""Is the advice right? Shifts of many sources, each really adapted and scored, kept as one JSON line each.

    python benchmarks/advisor.py collect --set test [--seeds 0 1 2] [--shifts 45] [--out .cache/advisor]
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

import numpy as np
import torch
from PIL import Image

from acclimate import networks, tasks
from acclimate.data import Domain, open_splits
from acclimate.data.perlin import scenes
from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis.advisor import trial
from acclimate.diagnosis.behaviour import reference
from acclimate.diagnosis.windows import cut
from acclimate.engine.adapt import adapt
from acclimate.engine.checkpoint import load_weights, read_tensors, write_tensors
from acclimate.plan import Optimiser, Plan
from acclimate.transforms.augment import Geometry
from acclimate.transforms.shifts import draw

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
STEPS, SIDE, WINDOWS = 400, 64, 48


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
            looked_at = cut(looked, task.name, preprocess, 2 * WINDOWS, SIDE, seed)
            tried = cut(pool, task.name, preprocess, 3 * WINDOWS, SIDE, seed + 1)
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
                    found = trial(source, tried, wanted[number], 7919 * seed + number, WINDOWS)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("collect",))
    parser.add_argument("--set", choices=("dev", "test"), default="dev")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shifts", type=int, default=40)
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".cache" / "advisor")
    parser.add_argument("--only", nargs="+", default=[])
    chosen = parser.parse_args()
    collect(chosen.set, chosen.seeds, chosen.shifts, chosen.out, chosen.only)


if __name__ == "__main__":
    main()
