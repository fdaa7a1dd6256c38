"""Steps per second of DANN: ours, a plain loop, and pytorch-adapt, in turns in one run.

All train the same networks (the classical MNIST ones) on the same images with the same batch and steps; Adam at 1e-3.
Ratios are of steps per CPU-second-free wall time within one run, the median over rounds, so that a slow minute of the
machine hits everybody. Host synchronisations are counted in a separate, untimed pass.

    python benchmarks/throughput.py --peers FOLDER [--rounds 5] [--steps 300] [--data digits.npz] [--out results/throughput.json]

FOLDER holds the peers' scripts (peer_dann_plain.py, peer_dann_pytorch_adapt.py); each prints one JSON line. Peers that
cannot be imported are left blank.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from acclimate.data import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.adapt import adapt
from acclimate.engine.evaluate import evaluate
from acclimate.networks import Network
from acclimate.plan import Optimiser, Plan

OURS = {
    "acclimate float32": {"precision": "float32", "channels_last": False},
    "acclimate defaults": {},
}
PEERS = {"plain": "peer_dann_plain.py", "pytorch-adapt": "peer_dann_pytorch_adapt.py"}


class Net(nn.Module):
    """The same layers as the peers': 768 features, a head of 100, 100, 10."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 48, 5), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Flatten(),
        )
        self.head = nn.Sequential(*(nn.Linear(768, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)))

    def forward(self, x):
        return self.head(self.features(x))


class Count(TorchDispatchMode):
    """Counts what makes a host wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.operations[function.overloadpacket.__name__] += 1
        return function(*arguments, **(options or {}))


def domains(data: Path) -> tuple[Domain, Domain]:
    loaded = np.load(data)
    digits = tuple("0123456789")

    def domain(name: str) -> Domain:
        images = loaded[f"x{name}"]
        images = images[..., None].repeat(3, -1) if images.ndim == 3 else images
        return Domain(name, "classification", digits, images, loaded[f"y{name}"], [str(i) for i in range(len(images))])

    return domain("s"), domain("t")


def ours(name: str, data: Path, steps: int, seed: int, clock: bool = True) -> dict[str, float]:
    """One training run: steps/s, target accuracy; or, untimed, synchronisations per step."""
    source, target = domains(data)
    torch.manual_seed(seed)
    net = Network(Net(), "head", input_shape=(3, 28, 28))
    # pytorch-adapt's reversal has no ramp, so none here; its objective weighs each domain's term by one half.
    plan = Plan(
        steps=steps, batch=64, seed=seed, log_every=steps, optimiser=Optimiser(kind="adam", lr=1e-3), **OURS[name]
    )
    begun: list[float] = []
    count = Count()

    def first_step(report) -> None:
        begun.append(time.perf_counter())

    if not clock:
        with count:
            adapt(net, source, target, plan=plan, preprocess=Preprocess(size=(28, 28)))
        waits = sum(count.operations[n] for n in ("_local_scalar_dense", "nonzero", "is_nonzero"))
        return {"host synchronisations per step": waits / steps}
    done = adapt(net, source, target, plan=plan, preprocess=Preprocess(size=(28, 28)), observer=first_step)
    return {"steps_per_s": steps / done.seconds, "target_acc": evaluate(done.model, target).value}


def peer(script: Path, data: Path, steps: int, seed: int, threads: int) -> dict[str, float] | None:
    command = [sys.executable, str(script), "--data", str(data), "--steps", str(steps), "--seed", str(seed)]
    done = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, cwd=script.parent)
    if done.returncode:
        print(f"{script.name} did not run: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[0])


def host_synchronisations(name: str, data: Path) -> float:
    """Per step: the difference of two runs, so that what happens once (loading, the last log line) does not count."""
    short, long = (
        ours(name, data, steps, 0, clock=False)["host synchronisations per step"] * steps for steps in (4, 24)
    )
    return (long - short) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder of the peers' scripts")
    parser.add_argument("--data", type=Path, help="npz with xs, ys, xt, yt (uint8); default: bundled digits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accuracy-steps", type=int, default=0, help="also train this long with 3 seeds and compare")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or bundled(Path(folder) / "digits.npz")
        result = measure(options, data.resolve())
    print(table(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def bundled(path: Path) -> Path:
    """Rendered digits and blended ones as an npz."""
    from acclimate.data import open_domain

    source, target = open_domain("digits-rendered"), open_domain("digits-blended")
    arrays = {}
    for name, domain in (("s", source), ("t", target)):
        images = [image if image.shape[-1] == 3 else image.repeat(3, -1) for image in domain.images]
        arrays[f"x{name}"], arrays[f"y{name}"] = np.stack(images), np.array(domain.labels)
    np.savez(path, **arrays)
    return path


def measure(options: argparse.Namespace, data: Path) -> dict[str, object]:
    def run(name: str, steps: int, seed: int) -> dict[str, float] | None:
        if name in OURS:
            return ours(name, data, steps, seed)
        return peer(options.peers / PEERS[name], data, steps, seed, options.threads) if options.peers else None

    names = [*OURS, *PEERS]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(options.rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:  # nobody always runs first
            if found := run(name, options.steps, i):
                speeds[name].append(found["steps_per_s"])
                print(f"round {i}: {name} {found['steps_per_s']:.1f} steps/s", file=sys.stderr, flush=True)
    accuracy: dict[str, list[float]] = {}
    if options.accuracy_steps:
        for name in names:
            found = [run(name, options.accuracy_steps, seed) for seed in range(3)]
            accuracy[name] = [100 * f["target_acc"] for f in found if f]

    def ratio(a: str, b: str) -> float | None:
        pairs = [x / y for x, y in zip(speeds[a], speeds[b])]
        return statistics.median(pairs) if pairs else None

    return {
        "steps": options.steps,
        "rounds": options.rounds,
        "batch": "64 + 64",
        "threads": options.threads,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "steps per second": speeds,
        "ratios": {
            "acclimate float32 / plain": ratio("acclimate float32", "plain"),
            "acclimate defaults / plain": ratio("acclimate defaults", "plain"),
            "acclimate defaults / pytorch-adapt": ratio("acclimate defaults", "pytorch-adapt"),
        },
        "host synchronisations per step": {name: host_synchronisations(name, data) for name in OURS},
        "accuracy steps": options.accuracy_steps,
        "target accuracy": accuracy,
    }


def table(result: dict) -> str:
    lines = [f"{name:38} {'-' if value is None else f'{value:.2f}'}" for name, value in result["ratios"].items()]
    lines += [f"host syncs per step, {name:17} {v:.0f}" for name, v in result["host synchronisations per step"].items()]
    for name, values in result["target accuracy"].items():
        if values:
            lines.append(f"target accuracy, {name:20} {statistics.mean(values):.1f} +- {statistics.stdev(values):.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
