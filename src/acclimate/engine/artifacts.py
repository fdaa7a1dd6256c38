"""Columns: what a Sweep keeps for each image of a stream, in one file that the checkpoint names with its sha256."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from acclimate.data.streams import Batch, Column, Stream
from acclimate.engine.checkpoint import read_tensors, write_tensors
from acclimate.engine.world import World
from acclimate.errors import DataError, UsageError
from acclimate.files import sha256


class Artifacts:
    """Collects ``Method.keep`` during a Sweep; the first process publishes, all join the columns to the stream."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.published: dict[str, dict[str, str]] = {}  # stream -> file, sha256
        self._kept: dict[int, dict[str, Tensor]] = {}

    def keep(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        """Remember values ``(N,)`` or maps ``(N, H, W)`` of the batch's images."""
        values = {name: value.cpu() for name, value in columns.items()}
        for row, i in enumerate(batch.index.tolist()):
            self._kept[i] = {name: value[row] for name, value in values.items()}

    def publish(self, stage: str, stream: Stream | None) -> None:
        """After a Sweep: merge all processes' shares into one file and join it to the stream it was made from."""
        if not self.world.any(bool(self._kept)):
            return
        if stream is None:
            raise UsageError(f"stage {stage!r} keeps columns, so it must sweep exactly one stream")
        path = self.folder / f"{stream.name}-{stage.replace(' ', '-')}.safetensors"
        parts = [path.with_name(f".{path.stem}-{rank}.part") for rank in range(self.world.size)]
        write_tensors(parts[self.world.rank], {f"{n}/{i}": v for i, row in self._kept.items() for n, v in row.items()})
        self._kept = {}
        self.world.wait()
        if self.world.first:
            merged: dict[str, Tensor] = {}
            for part in parts:
                merged |= read_tensors(part)
                part.unlink()
            if len({name.partition("/")[2] for name in merged}) != len(stream):
                raise UsageError(f"stage {stage!r} must keep a value for every image of {stream.name!r}")
            if stream.task == "classification":
                names = {name.partition("/")[0] for name in merged}
                merged = {name: torch.stack([merged[f"{name}/{i}"] for i in range(len(stream))]) for name in names}
            write_tensors(path, merged)
        self.world.wait()
        self.join(stream, path)

    def join(self, stream: Stream, path: Path) -> None:
        """Make the file's values columns of the stream."""
        with safe_open(path, framework="pt") as file:  # the names alone: the values may be many gigabytes
            names = sorted({name.partition("/")[0] for name in file.keys()})  # noqa: SIM118 (it is no mapping)
        stream.join({name: Column(path, name) for name in names})
        self.published[stream.name] = {"file": path.name, "sha256": sha256(path)}

    def restore(self, published: Mapping[str, Mapping[str, str]], streams: Mapping[str, Stream]) -> None:
        """Join what a checkpoint names. Raises :class:`DataError` if a file is not the one that was saved."""
        for name, entry in published.items():
            path = self.folder / entry["file"]
            if not path.exists() or sha256(path) != entry["sha256"]:
                raise DataError(f"{path} is missing or has changed since the checkpoint; start again with --force")
            self.join(streams[name], path)
