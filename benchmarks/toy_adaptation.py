"""Model adaptation on points of the plane: the classifier's boundary before and after, and what the generator draws.

python benchmarks/toy_adaptation.py docs/studies/model-adaptation

Two interleaved half-moons; the target is the source turned by 35 degrees and moved. The method is 3C-GAN as it stands; only
its networks are small dense ones. Writes ``toy.svg`` and ``toy.json``.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

import acclimate
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.methods.base import Method
from acclimate.methods.three_c_gan import ThreeCGAN
from acclimate.networks.contract import Network

CLASSES, COLOURS = ("upper moon", "lower moon"), ("#0072B2", "#D55E00")
SIZE, SEEDS = 2000, (0, 1, 2)


def dense(*widths: int, last: type[nn.Module] | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers[:-1], *([last()] if last else []))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), dense(2, 64, 64), nn.ReLU())
        self.head = nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class PointGenerator(nn.Module):
    """(z, class) to a point ``(N, 1, 1, 2)`` in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = dense(4 + 2, 64, 64, 2, last=nn.Tanh)

    def forward(self, y: Tensor) -> Tensor:
        z = torch.randn(len(y), 4, device=y.device)
        return self.layers(torch.cat([z, nn.functional.one_hot(y, 2).float()], 1)).view(-1, 1, 1, 2).float()


class PointsGAN(ThreeCGAN):
    """3C-GAN, its generator and critic replaced by dense networks."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        Method.__init__(self, *arguments, **settings)  # type: ignore[arg-type]
        self.generator, self.critic = PointGenerator(), nn.Sequential(nn.Flatten(), dense(2, 64, 64, 1))
        self.source_net = copy.deepcopy(self.net).requires_grad_(False)


def domain(name: str, seed: int, degrees: float, move: tuple[float, float]) -> Domain:
    """Points as images of 1 x 2 pixels, in 256 levels."""
    points, labels = make_moons(SIZE, noise=0.08, random_state=seed)
    points = (points - [0.5, 0.25]) * 0.45
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (points @ turn.T + move).clip(-1, 1)
    images = np.rint((points + 1) * 127.5).astype(np.uint8).reshape(-1, 1, 2, 1)
    return Domain(name, "classification", CLASSES, images, labels, [f"{name}-{i}" for i in range(SIZE)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    preprocess = Preprocess(size=(1, 2), channels=1)
    found: dict[str, list[float]] = {"source-only on its source": [], "source-only": [], "3c-gan": []}
    begun = time.perf_counter()
    for seed in SEEDS:
        source, target = domain("source", seed, 0, (0, 0)), domain("target", 100 + seed, 35, (0.1, 0.1))
        torch.manual_seed(seed)
        net = Network(Classifier(), "head", input_shape=(1, 1, 2))
        adam = acclimate.Optimiser(kind="adam", lr=1e-3)
        plan = acclimate.Plan(steps=600, batch=128, seed=seed, precision="float32", optimiser=adam)
        before = acclimate.adapt(net, source, None, "source-only", plan=plan, preprocess=preprocess)
        after = acclimate.adapt(
            before.model.method.net,
            None,
            target,
            PointsGAN,
            plan=plan.replace(steps=2500),
            preprocess=preprocess,
            task=before.model.method.task,
            generated=1.0,
            radius=0.1,
            critic_lr=1e-3,
            generator_lr=1e-3,
        )
        scores = [
            acclimate.evaluate(m, d).value
            for m, d in ((before.model, source), (before.model, target), (after.model, target))
        ]
        for name, value in zip(found, scores):
            found[name].append(value)
        if seed == SEEDS[0]:
            picture(before.model.method, after.model.method, source, target, out / "toy.svg")
    minutes = (time.perf_counter() - begun) / 60
    facts = {
        name: {"values": v, "mean": float(np.mean(v)), "deviation": float(np.std(v, ddof=1))}
        for name, v in found.items()
    }
    (out / "toy.json").write_text(
        json.dumps({"accuracy": facts, "seeds": list(SEEDS), "minutes": minutes}, indent=1) + "\n"
    )
    print(json.dumps(facts, indent=1), f"{minutes:.1f} min")


@torch.no_grad()
def picture(before: Method, after: Method, source: Domain, target: Domain, path: Path) -> None:
    """Source with its boundary; target with the source's; target with the adapted one; what the generator draws."""
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "toy"})
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), sharex=True, sharey=True)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 200)] * 2, indexing="xy"), -1)
    torch.manual_seed(0)
    labels = torch.arange(600) % 2
    drawn = after.generate(labels).view(-1, 2).numpy()
    shown = [
        ("source and its model", before, points(source), source.labels),
        ("target, before adaptation", before, points(target), target.labels),
        ("target, after adaptation", after, points(target), target.labels),
        ("what the generator draws", after, drawn, labels.numpy()),
    ]
    for axis, (title, method, places, classes) in zip(axes, shown):
        z = method.predict(grid.view(-1, 1, 1, 2)).softmax(1)[:, 1].view(200, 200)
        axis.contourf(grid[..., 0], grid[..., 1], z, levels=[0, 0.5, 1], colors=["#cfe3f1", "#f7dccb"])
        axis.contour(grid[..., 0], grid[..., 1], z, levels=[0.5], colors="black", linewidths=1)
        for label, colour in enumerate(COLOURS):
            some = places[np.asarray(classes) == label][:200]
            axis.scatter(*some.T, s=4, color=colour, linewidths=0, label=CLASSES[label])
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
    axes[0].legend(loc="lower left", fontsize=7, markerscale=2, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def points(found: Domain) -> np.ndarray:
    return np.asarray(found.images, float).reshape(-1, 2) / 127.5 - 1


if __name__ == "__main__":
    main()
