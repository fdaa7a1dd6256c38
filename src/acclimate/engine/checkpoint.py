"""Checkpoints that exist wholly or not at all.

A checkpoint is a folder whose ``MANIFEST.json`` holds the sha256 of every other file. It is written under a temporary
name and renamed into place last, so a kill at any moment loses at most the steps since the one before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from acclimate.errors import DataError, NumericError
from acclimate.files import read_json, sha256, storage_errors, sync_folder, umask, write_bytes, write_text

MANIFEST = "MANIFEST.json"


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run stands: before step ``step`` of stage ``stage``."""

    stage: int = 0
    step: int = 0


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by group ("method", "optimiser net", ...), and facts as JSON."""

    position: Position
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run; the newest ``keep`` stay."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        half = [path for path in folder.glob("[0-9]*") if not (path / MANIFEST).exists()]  # killed while deleting it
        for stale in [*folder.glob(".writing-*"), *half]:
            shutil.rmtree(stale, ignore_errors=True)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write atomically. Raises :class:`StorageError` if the disk is full; older checkpoints are untouched."""
        place = self.folder / f"{checkpoint.position.stage:03d}-{checkpoint.position.step:08d}"
        with storage_errors(place):
            self.folder.mkdir(parents=True, exist_ok=True)
            writing = Path(tempfile.mkdtemp(dir=self.folder, prefix=".writing-"))
            try:
                for group, tensors in checkpoint.tensors.items():
                    write_tensors(writing / f"{group}.safetensors", tensors)
                facts = {**dataclasses.asdict(checkpoint.position), **checkpoint.facts}
                write_text(writing / "facts.json", json.dumps(facts, indent=2))
                manifest = {path.name: sha256(path) for path in sorted(writing.iterdir())}
                write_text(writing / MANIFEST, json.dumps(manifest, indent=2))
                os.chmod(writing, 0o777 & ~umask())
                if place.exists():  # the same position again, after a forced resume
                    shutil.rmtree(place)
                os.replace(writing, place)
            except BaseException:
                shutil.rmtree(writing, ignore_errors=True)
                raise
            sync_folder(self.folder)
        found = self.all()
        after = found.index(place) + 1
        for old in found[: max(0, after - self.keep)] + found[after:]:  # what lies further ahead could not be loaded
            shutil.rmtree(old)
        return place

    def all(self) -> list[Path]:
        """Existing checkpoints, oldest first."""
        return sorted(path.parent for path in self.folder.glob(f"[0-9]*/{MANIFEST}"))

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are all as the manifest says."""
        for place in reversed(self.all()):
            try:
                manifest = read_json(place / MANIFEST)
            except (DataError, UnicodeDecodeError):
                continue
            if all((place / name).exists() and sha256(place / name) == digest for name, digest in manifest.items()):
                facts = read_json(place / "facts.json")
                position = Position(facts.pop("stage"), facts.pop("step"))
                files = [place / name for name in manifest if name.endswith(".safetensors")]
                return Checkpoint(position, {path.stem: load_file(path) for path in files}, facts)
        return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, atomically."""
    write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises :class:`DataError` if the file is missing or damaged."""
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise DataError(f"{path} is missing or damaged ({error}); train again or copy it anew") from error


@torch.no_grad()
def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy into the module's own tensors, keeping their strides, after checking names, shapes and values.

    Raises :class:`DataError` that lists what is missing, unexpected or of another shape, and :class:`NumericError` for a
    value that is not finite.
    """
    mine = module.state_dict()
    missing, unexpected = sorted(mine.keys() - tensors.keys()), sorted(tensors.keys() - mine.keys())
    kinds = {name: [(tuple(t.shape), t.dtype) for t in (tensors[name], mine[name])] for name in mine if name in tensors}
    shapes = [f"{name} has {found}, not {wanted}" for name, (found, wanted) in kinds.items() if found != wanted]
    if missing or unexpected or shapes:
        raise DataError(
            f"{origin} does not fit this network: missing {missing[:5] or 'nothing'}, unexpected {unexpected[:5] or 'nothing'}"
            + (f", {'; '.join(shapes[:3])}" if shapes else "")
        )
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise NumericError(f"{origin}: {name} holds values that are not finite; it must not be used")
    for name, value in tensors.items():
        mine[name].copy_(value)
