"""The README's pictures, from a finished run's evidence.

python benchmarks/figures.py RUN OUT.png [--players source-only adabn] [--columns 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

COLOUR = np.array([230, 159, 0])  # orange of the Okabe-Ito palette: safe for colour-blind readers


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image in grey with the foreground of a mask tinted."""
    rgb = np.repeat(image[..., :1], 3, -1).astype(float) if image.shape[-1] == 1 else image.astype(float)
    tinted = np.where((mask == 1)[..., None], 0.45 * rgb + 0.55 * COLOUR, rgb)
    return tinted.round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--players", nargs=2, default=["source-only", "adabn"])
    parser.add_argument("--columns", type=int, default=4)
    options = parser.parse_args()
    evidence = load_file(options.run / "evidence.safetensors")
    rows = [
        ("target image", None),
        *((f"{name}", f"prediction/{name}") for name in options.players),
        ("truth", "truth"),
    ]
    width = 1.5 * options.columns
    figure, axes = plt.subplots(len(rows), options.columns, figsize=(width, 1.5 * len(rows)), squeeze=False)
    for column in range(options.columns):
        image = evidence[f"image/{column}"]
        for axis, (title, key) in zip(axes[:, column], rows):
            axis.imshow(image.squeeze() if key is None else overlay(image, evidence[f"{key}/{column}"]), cmap="gray")
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=80)


if __name__ == "__main__":
    main()
