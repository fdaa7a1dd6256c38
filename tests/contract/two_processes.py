"""One process of several, ``two_processes.py RANK SIZE FOLDER``: runs and resumes every method, saves what came out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import contextlib

import pytest
import torch
import torch.distributed as dist
from runs import GAMES, METHODS, Killed, network, on_tick, plan, start, state
from toys import PREPROCESS

from acclimate.engine.checkpoint import write_tensors
from acclimate.errors import UsageError
from acclimate.files import write_json
from acclimate.methods import find
from acclimate.transforms.augment import Geometry

ADDITIVE: dict[str, dict[str, Any]] = {
    "self-training": {"portion": 1.0, "portion_max": 1.0},
    "crst": {"portion": 1.0, "portion_max": 1.0},
    "vada": {"lambda_s": 0.0, "lambda_t": 0.0},  # its directions are drawn by each process
    "dirt-t": {"lambda_s": 0.0, "lambda_t": 0.0},
    "shot": {"diversity": 0.0},
    "tri-training": {"threshold": 0.9999},  # nobody is that sure: how many are accepted differs between processes
}
"""Settings under which a method's losses are means over the same number of samples in every process."""


def often() -> Any:
    return plan(steps=9, log_every=1, save_every=2)


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-{size}", rank=rank, world_size=size)
    out = folder / f"{rank}-of-{size}"
    for name in METHODS:
        if "classification" in find(name).card.tasks:
            net = network("classification", norm=False)
            geometry = Geometry(flips="horizontal", rotate=10, shift=0.1)
            preprocess = PREPROCESS["classification"].replace(geometry=geometry)
            try:
                shared = folder / f"curve-{name}-{size}"
                run = start(name, net=net, how=often(), preprocess=preprocess, folder=shared, **ADDITIVE.get(name, {}))
            except UsageError as error:  # a method of statistics only
                write_json(out / f"curve-{name}.json", str(error))
            else:
                write_json(out / f"curve-{name}.json", run.history)
    if size > 1:
        for name, task in GAMES:
            whole = start(name, task, how=often(), folder=folder / f"whole-{name}-{task}")
            write_tensors(out / f"whole-{name}-{task}.safetensors", state(whole))
            write_tensors(out / f"resumed-{name}-{task}.safetensors", state(resumed(name, task, folder)))
    dist.destroy_process_group()


def resumed(name: str, task: str, folder: Path) -> Any:
    """Interrupted after seven updates or batches of a Sweep, on all processes, and gone on with."""

    def interrupt(now: int) -> None:
        if now == 7:
            raise Killed

    place = folder / f"resumed-{name}-{task}"
    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, interrupt)
        with contextlib.suppress(Killed):
            start(name, task, how=often(), folder=place)
    dist.barrier()
    return start(name, task, how=often(), folder=place)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
