"""Seconds that each distance takes, and what it says where nothing has changed.

python benchmarks/distances.py --out results/distances.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from acclimate.distances import DISTANCES

NULL_SIZES = ((64, 128), (64, 512), (64, 2_048), (64, 4_096), (1_024, 256), (1_024, 1_024), (1_024, 4_096))
CENTRED = ("classifier", "mmd")  # on their null by construction: no table needed


def gauss(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def seconds(n: int, d: int) -> dict[str, dict[str, float]]:
    """One call each on N(0, I) and N(0.05, I), float32 in; processor seconds are those of all threads together."""
    x, y = gauss(n, d, 0), gauss(n, d, 1) + 0.05
    DISTANCES["frechet"](x[:64], y[:64])  # the first call loads the linear algebra
    found = {}
    for name, distance in DISTANCES.items():
        wall, processor = time.perf_counter(), time.process_time()
        distance(x, y)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        found[name] = {"wall": round(wall, 2), "processor": round(processor, 2)}
        print(f"{name:24} {wall:7.2f} s, processor {processor:7.2f} s", flush=True)
    return found


def null_bias(repeats: int) -> list[dict[str, object]]:
    """Means over draws of two sets from N(0, I_d); "/d" where a distance sums over channels."""
    found = []
    for d, n in NULL_SIZES:
        # One draw is enough where the spread is a hundredth of the mean.
        draws = [(gauss(n, d, 2 * i), gauss(n, d, 2 * i + 1)) for i in range(repeats if d < 1_024 else 1)]
        for name in DISTANCES.keys() - set(CENTRED):
            values = [float(DISTANCES[name](x, y)) for x, y in draws]
            per = d if name.startswith("frechet") else 1
            mean = statistics.mean(values) / per
            found.append({"d": d, "n": n, "distance": name + ("/d" if per > 1 else ""), "mean": mean})
    return sorted(found, key=lambda row: (row["distance"], row["d"], row["n"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--channels", type=int, default=1_024)
    parser.add_argument("--repeats", type=int, default=5, help="draws per null (1 where there are 1,024 channels)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "rows": options.rows,
        "channels": options.channels,
        "repeats": options.repeats,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "load before": os.getloadavg()[0],  # above the number of cores, wall seconds say little
        "torch": torch.__version__,
        "seconds": seconds(options.rows, options.channels),
        "null": null_bias(options.repeats),
    }
    for row in result["null"]:
        print(f"{row['distance']:24} d={row['d']:<5} n={row['n']:<5} {row['mean']:9.5f}")
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
