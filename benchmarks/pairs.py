"""The advice beside what truly happened, on real pairs: a model of one place, images of another.

    ACCLIMATE_DATA=... python benchmarks/pairs.py [--seeds 0] [--out .cache/pairs] [--results results/advice.json]

For each pair a network is trained on the source; the diagnosis reads its held-out labelled images and the target's unlabelled
training images; then AdaBN is run on these, and both models are scored on the target's labelled test images. Resumable: one
JSON file a pair and seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from advisor import REPOSITORY, folder_domains

from acclimate import __version__, networks, tasks
from acclimate.data import Domain, open_splits
from acclimate.data.folder import match_classes
from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis.diagnose import diagnose
from acclimate.engine.adapt import adapt
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.files import read_json, write_json
from acclimate.plan import Optimiser, Plan
from acclimate.transforms.augment import Geometry

# source, target, width of the U-Net (None: the digit network), zoom, crop, steps, batch
PAIRS: dict[str, tuple[str, str, int | None, float, int, int, int]] = {
    "lucchi-to-vnc": ("lucchi", "vnc", 16, 0.5, 192, 500, 4),
    "vnc-to-lucchi": ("vnc", "lucchi", 16, 0.5, 192, 500, 4),
    "drive-to-chase": ("vessel_drive", "vessel_chase", 16, 0.5, 128, 400, 4),
    "chase-to-drive": ("vessel_chase", "vessel_drive", 16, 0.5, 128, 400, 4),
    "camvid-day-to-dusk": ("camvid:day", "camvid:dusk", 16, 0.5, 128, 500, 8),
    "mnist-to-mnist-m": ("mnist", "mnist-m", None, 1.0, 32, 1000, 64),
    "syn-signs-to-gtsrb": ("syn-signs", "gtsrb", None, 1.0, 32, 1000, 64),
}


TRIALS, ENOUGH = 30, 8


def splits(name: str, task: str) -> tuple[Domain, Domain]:
    """Train and test parts."""
    return folder_domains(name, "masks") if name.startswith("vessel") else open_splits(name, 0.2, task)


def source_model(pair: str, train: Domain, seed: int, place: Path) -> Model:
    """The network of a pair, trained on its source and kept in ``place``."""
    _, _, width, zoom, crop, steps, batch = PAIRS[pair]
    if (place / "model.json").exists():
        return Model.load(place)
    task = tasks.build(str(train.task), train.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if width is None:
            net = networks.build("dtn", classes=len(train.classes), channels=3, size=32)
            preprocess = Preprocess(size=(32, 32), channels=3)
        else:
            channels = 3 if train.images[0].shape[-1] == 3 else 1
            net = networks.build("unet", classes=len(train.classes), channels=channels, size=crop, width=width)
            preprocess = Preprocess(
                crop=(crop, crop),
                scale=zoom,
                channels=channels,
                geometry=Geometry(flips="horizontal" if channels == 3 else "dihedral"),
            )
    plan = Plan(steps=steps, batch=batch, seed=seed, optimiser=Optimiser(kind="adam", lr=1e-3, schedule="poly"))
    done = adapt(net, train, None, "source-only", plan=plan, preprocess=preprocess, task=task, device="cpu")
    done.model.save(place)
    return done.model


def judge(pair: str, seed: int, out: Path) -> dict[str, Any]:
    """The diagnosis, and what adaptation truly did."""
    source, target, width, *_ = PAIRS[pair]
    task = "classification" if width is None else "segmentation"
    train, held_out = splits(source, task)
    there, there_test = (match_classes(train, one) for one in splits(target, task))
    begun = time.perf_counter()
    model = source_model(pair, train, seed, out / f"{pair}-{seed}")
    trained = time.perf_counter() - begun
    looked_at = there.unlabelled()
    if len(looked_at) > 500:
        looked_at = looked_at.subset(
            torch.randperm(len(looked_at), generator=torch.Generator().manual_seed(seed))[:500].tolist()
        )
    # A model is surer of images that it was trained on; they serve where there are too few others, as in the command line.
    asked = held_out if len(held_out) >= ENOUGH else train
    found = diagnose(asked, looked_at, model, trials=TRIALS, seed=seed)
    # AdaBN as the command line runs it, on whole images.
    adapted = adapt(
        model.method.net,
        None,
        looked_at,
        "adabn",
        plan=Plan(seed=seed),
        preprocess=model.preprocess,
        task=model.method.task,
        device="cpu",
    ).model
    tested = (
        there_test if len(there_test) <= 2000 else there_test.subset(range(0, len(there_test), len(there_test) // 2000))
    )
    scores = {
        name: evaluate(one, domain)
        for name, one, domain in (
            ("own", model, held_out if len(held_out) <= 2000 else held_out.subset(range(2000))),
            ("before", model, tested),
            ("after", adapted, tested),
        )
    }
    return {
        "pair": pair,
        "seed": seed,
        "acclimate": __version__,
        **{name: one.value for name, one in scores.items()},
        "intervals": {name: one.interval for name, one in scores.items()},
        "diagnosis": found.model_dump(mode="json", exclude={"tried"}),
        "train seconds": trained,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".cache" / "pairs")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results" / "advice.json")
    chosen = parser.parse_args()
    for seed in chosen.seeds:
        for pair in chosen.only:
            path = chosen.out / f"{pair}-{seed}.json"
            if not path.exists():
                write_json(path, judge(pair, seed, chosen.out))
            one = read_json(path)
            gain = one["diagnosis"]["gain"]
            print(
                f"{pair:20} seed {seed}: {one['before']:.3f} -> {one['after']:.3f}; predicted "
                f"{gain['predicted']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] {one['diagnosis']['verdict']}",
                flush=True,
            )
    found = [json.loads(path.read_text()) for path in sorted(chosen.out.glob("*.json"))]
    write_json(chosen.results, found)


if __name__ == "__main__":
    main()
