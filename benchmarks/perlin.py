"""Seconds per 10,000 Perlin scenes (images and masks): ours, plain NumPy, and the package perlin-noise.

    python benchmarks/perlin.py [--count 2000] [--size 128] [--threads 2] [--rounds 5] [--out results/perlin.json]

In turns, ``rounds`` times; the median is reported, and the fastest round, which a busy machine disturbs least. The load
before the run is written beside them. NumPy works image by image, without loops over pixels, on one core. perlin-noise
is called once per pixel for the noise alone; one image is timed and multiplied. What is not installed is left blank.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from acclimate.data.perlin import foreground, perlin, scenes

CELLS = 4
LOOK = {"inside": 0.7, "outside": 0.3, "sigma": 0.15}
SHARE = (0.3, 0.5)
BLOCK = 64  # images at a time, where parts are timed alone


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def noise(count: int, size: int) -> None:
    random, error = generator(), torch.empty(BLOCK, size, size)
    for index in range(count):
        error[index % BLOCK].normal_(generator=random)


def masks(count: int, size: int) -> Callable[[], None]:
    field = perlin(BLOCK, size, CELLS, generator=generator())

    def cut() -> None:
        for start in range(0, count, BLOCK):
            foreground(field[: count - start], 0.4)

    return cut


def fields(count: int, size: int) -> None:
    for start in range(0, count, BLOCK):
        perlin(min(BLOCK, count - start), size, CELLS, generator=generator())


def numpy_field(random: np.random.Generator, size: int) -> np.ndarray:
    angle = 2 * np.pi * random.random((CELLS + 1, CELLS + 1), dtype=np.float32)
    sine, cosine = np.sin(angle), np.cos(angle)
    position = ((np.arange(size, dtype=np.float32) + 0.5) / size * CELLS).astype(np.float32)
    cell = position.astype(np.int64)
    offset = position - cell
    fade = offset**3 * (offset * (6 * offset - 15) + 10)

    def corner(down: int, right: int) -> np.ndarray:
        at = np.ix_(cell + down, cell + right)
        return sine[at] * (offset - down)[:, None] + cosine[at] * (offset - right)

    top, bottom = ((1 - fade) * corner(row, 0) + fade * corner(row, 1) for row in (0, 1))
    return (1 - fade)[:, None] * top + fade[:, None] * bottom


def numpy_scenes(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = np.empty((count, size, size), np.uint8)
    shapes = np.empty((count, size, size), np.uint8)
    for index in range(count):
        field = numpy_field(random, size)
        background = field.size - round(random.uniform(*SHARE) * field.size)
        mask = np.zeros(field.size, np.uint8)
        mask[np.argpartition(field.ravel(), background)[background:]] = 1
        shapes[index] = mask.reshape(size, size)
        value = LOOK["outside"] + (LOOK["inside"] - LOOK["outside"]) * shapes[index]
        value = value + LOOK["sigma"] * random.standard_normal((size, size), dtype=np.float32)
        images[index] = np.clip(np.rint(value * 255), 0, 255)
    return images, shapes


def package_field(size: int) -> Callable[[], None] | None:
    try:
        from perlin_noise import PerlinNoise
    except ImportError:
        return None

    def field() -> None:
        source = PerlinNoise(octaves=CELLS, seed=1)  # what it calls octaves are cells along a side
        for row in range(size):
            for column in range(size):
                source([(row + 0.5) / size, (column + 0.5) / size])

    return field


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/perlin.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = [round(value, 2) for value in os.getloadavg()]
    count, size = options.count, options.size
    # name: call, images it makes
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "ours": (lambda: scenes(count, size, **LOOK, share=SHARE, cells=CELLS, generator=generator()), count),
        "ours, Perlin fields alone": (lambda: fields(count, size), count),
        "ours, masks alone": (masks(count, size), count),
        "ours, white noise alone": (lambda: noise(count, size), count),
        "NumPy": (lambda: numpy_scenes(count // 4, size), count // 4),
    }
    package = package_field(size)
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call, _ in calls.values():
        call()
    for _ in range(options.rounds):
        for name, (call, images) in calls.items():
            timed[name].append(tuple(value / images for value in seconds(call)))
    results: dict[str, dict[str, object] | None] = {}
    for name, rounds in timed.items():
        wall = [one[0] for one in rounds]
        results[name] = {
            "images_per_s": round(1 / statistics.median(wall), 1),
            "s_per_10000": round(1e4 * statistics.median(wall), 3),
            "fastest_s_per_10000": round(1e4 * min(wall), 3),
            "cpu_s_per_10000": round(1e4 * statistics.median(one[1] for one in rounds), 3),
            "extrapolated": False,
        }
    results["perlin-noise"] = None
    if package is not None:
        wall, processor = seconds(package)
        results["perlin-noise"] = {
            "images_per_s": round(1 / wall, 3),
            "s_per_10000": round(1e4 * wall, 0),
            "fastest_s_per_10000": round(1e4 * wall, 0),
            "cpu_s_per_10000": round(1e4 * processor, 0),
            "extrapolated": True,
        }
    print(f"{size} x {size}, {options.threads} threads, {options.rounds} rounds of {count}, load before {load[0]}")
    for name, row in results.items():
        if row is None:
            print(f"{name:28}  not installed")
            continue
        mark = "  (one image of noise alone, extrapolated)" if row["extrapolated"] else ""
        print(
            f"{name:28} {row['images_per_s']:>10} images/s {row['s_per_10000']:>10} s per 10,000"
            f" (fastest {row['fastest_s_per_10000']}, CPU {row['cpu_s_per_10000']}){mark}"
        )
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load": load,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    settings = {"count": count, "size": size, "cells": CELLS, "rounds": options.rounds, "share": SHARE, **LOOK}
    options.out.write_text(json.dumps({"machine": machine, "settings": settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
