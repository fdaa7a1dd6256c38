"""Small fixed pairs on which adaptation must help, one for each task; no file, no download."""

from __future__ import annotations

import numpy as np
from torch import nn

from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.networks.contract import Network

SIDE = 16
SHAPES = ("bar", "cross", "ring")


def _shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks ``(N, 16, 16)`` in {0, 1} of three shapes at random places, and which shape each is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    masks = np.zeros((count, SIDE, SIDE), np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for mask, label in zip(masks, labels):
        cy, cx = rng.uniform(5, SIDE - 6, 2)
        dy, dx = np.abs(y - cy), np.abs(x - cx)
        bar, column = (dy < 1.3) & (dx < 4.5), (dx < 1.3) & (dy < 4.5)
        distance = np.hypot(dy, dx)
        mask[:] = (bar, bar | column, (distance > 2.2) & (distance < 4.2))[label]
    return masks, labels


def classification(count: int = 300, seed: int = 0) -> tuple[Domain, Domain, Domain]:
    """Source, target and target test: the target is brighter, flatter, noisier and tinted."""

    def domain(name: str, seed: int, shifted: bool) -> Domain:
        masks, labels = _shapes(count, seed)
        rng = np.random.default_rng(seed + 1000)
        grey = (0.2 + 0.6 * masks)[..., None].repeat(3, -1)
        if shifted:
            grey = (0.45 + 0.3 * masks)[..., None] * np.array([1.15, 1.0, 0.85])
        noisy = grey + (0.11 if shifted else 0.08) * rng.standard_normal(grey.shape)
        images = (noisy.clip(0, 1) * 255).astype(np.uint8)
        return Domain(name, "classification", SHAPES, images, labels, [f"{name}-{i}" for i in range(count)])

    return domain("source", seed, False), domain("target", seed + 1, True), domain("target-test", seed + 2, True)


def segmentation(count: int = 60, seed: int = 0) -> tuple[Domain, Domain, Domain]:
    """Source, target and target test: shapes brighter than the ground; the target is darker and flatter."""

    def domain(name: str, seed: int, low: float, high: float) -> Domain:
        masks, _ = _shapes(4 * count, seed)
        masks = masks.reshape(count, 2, 2, SIDE, SIDE).swapaxes(2, 3).reshape(count, 2 * SIDE, 2 * SIDE)
        rng = np.random.default_rng(seed + 1000)
        noisy = low + (high - low) * masks + 0.1 * rng.standard_normal(masks.shape)
        images = (noisy.clip(0, 1) * 255).astype(np.uint8)[..., None]
        names = [f"{name}-{i}" for i in range(count)]
        return Domain(name, "segmentation", ("ground", "shape"), images, masks.astype(np.int16), names)

    return (
        domain("source", seed, 0.35, 0.85),
        domain("target", seed + 1, 0.15, 0.45),
        domain("target-test", seed + 2, 0.15, 0.45),
    )


class SmallNet(nn.Module):
    """Two convolutions with BatchNorm, a mean, a linear layer."""

    def __init__(self, classes: int = 3, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1)]
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.fc = nn.Linear(32 * (SIDE // 4) ** 2, classes)

    def forward(self, x):
        return self.fc(self.body(x))


class SmallSegmenter(nn.Module):
    """Three convolutions with BatchNorm at full size."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 12), (12, 12), (12, 12)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate"),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        return self.head(self.body(x))


def network(task: str, norm: bool = True) -> Network:
    if task == "classification":
        return Network(SmallNet(norm=norm), head="fc", input_shape=(3, SIDE, SIDE))
    return Network(SmallSegmenter(), head="head", input_shape=(1, 2 * SIDE, 2 * SIDE))


PAIRS = {"classification": classification, "segmentation": segmentation}
PREPROCESS = {
    "classification": Preprocess(size=(SIDE, SIDE)),
    "segmentation": Preprocess(crop=(SIDE, SIDE), channels=1),
}
SETTINGS = {
    "fine-tune": {"pull": 1.0},  # the toys' rate is twenty times its own, and four images lack a class
    "label2image-da": {"width": 4, "critic_width": 4, "latent": 8},
    "3c-gan": {"width": 4, "critic_width": 4, "latent": 8},
    "suit": {"generator_width": 4, "blocks": 1, "critic_width": 4, "generator_lr": 2e-3, "critic_lr": 2e-3},
    "cellseguda": {"critic_width": 8, "width": 4},
    "adaptsegnet": {"critic_width": 8},
    "gam": {
        "critics": {"features": 0.001, "logits": 0.01},
        "hidden": (16,),
        "critic_lr": 0.005,
    },  # SGD of .02 moves the net
    "tri-training": {"rounds": 2, "threshold": 0.4, "source_share": 0.4},
    "vada": {"decay": 0.9},  # 150 steps
    "dirt-t": {"decay": 0.9, "interval": 3},
    "shot": {"refreshes": 3},
    "memory-bank": {"width": 8, "size": 16, "samples": 32, "decay": 0.9, "confidence": 0.5, "ramp": 0.34},
    "memory-bank-few": {
        "width": 8,
        "size": 16,
        "samples": 32,
        "decay": 0.9,
        "confidence": 0.5,
        "images": 4,
        "ramp": 0.34,
    },
    "proda": {"warm_up": 0.34, "critic_width": 8, "stride": 1, "confidence": 0.5, "decay": 0.9},
    "mic": {"block": 4, "decay": 0.9, "threshold": 0.6},
}
"""Of methods whose parts are, by default, far larger than the toy networks."""
