"""Weights that were trained elsewhere, as a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acclimate import networks, tasks
from acclimate.engine.adapt import default_preprocess
from acclimate.engine.checkpoint import load_weights
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.methods import find
from acclimate.networks import foreign
from acclimate.plan import Plan

LISTED = 20


def import_weights(
    path: Path,
    *,
    network: str,
    classes: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    size: Sequence[int] | None = None,
    channels: int = 3,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    force: bool = False,
) -> Model:
    """Put the weights in ``path`` into a registered network and save it in ``folder`` as a source-only model.

    Args:
        classes: names in the order of the network's outputs.
        settings: of the network.
        size, channels, mean, std: of its images; default: what the network was made for.

    Raises :class:`UsageError` for a name or setting that does not exist or a folder that is taken, :class:`DataError`
    for a file that holds more than weights, or whose weights do not fit: all that differs is listed.
    """
    if (folder / "model.json").exists() and not force:
        raise UsageError(f"{folder} already holds a model; choose another --out, or --force to replace it")
    if len(set(classes)) < len(classes) or not all(classes):
        raise UsageError(f"class names must differ and must not be empty: {', '.join(classes)}")
    with torch.random.fork_rng(devices=[]):
        net = networks.build(network, classes=len(classes), channels=channels, size=size, **dict(settings or {}))
        task = tasks.build("segmentation" if len(net.shapes["logits"]) == 3 else "classification", classes)
        method = find("source-only")(net, task, Plan())
    fill(net.module, foreign.load_weights(path), path)
    changes = {"mean": _per_channel(mean), "std": _per_channel(std)}
    preprocess = default_preprocess(net, task).replace(
        **{key: value for key, value in changes.items() if value is not None}
    )
    model = Model(method.eval(), preprocess, torch.device("cpu"))
    model.save(folder)
    return model


def fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load after comparing all names and shapes. Raises :class:`DataError` listing what differs."""
    mine = module.state_dict()
    problems = [
        *(f"missing     {name}" for name in mine if name not in weights),
        *(f"unexpected  {name}" for name in weights if name not in mine),
        *(
            f"shape       {name}: {tuple(weights[name].shape)} in the file, {tuple(mine[name].shape)} in the network"
            for name in mine
            if name in weights and weights[name].shape != mine[name].shape
        ),
    ]
    if problems:
        more = f"\n  ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise DataError(
            f"{path} does not fit this network; choose another --network, --network-set or --classes\n  "
            + "\n  ".join(problems[:LISTED])
            + more
        )
    load_weights(module, weights, str(path))


def _per_channel(value: float | Sequence[float] | None) -> Any:
    return tuple(map(float, value)) if isinstance(value, Sequence) else None if value is None else float(value)
