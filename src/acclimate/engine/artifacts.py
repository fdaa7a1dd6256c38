"""Columns: what a Sweep keeps for each image of a stream, in one file that the checkpoint names with its sha256."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        self._values: list[dict[str, Tensor]] = []  # of a batch each: one value per image, and "index"
        self._maps: dict[str, Tensor] = {}  # "name/index", since images may differ in size

    def keep(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        """Remember values ``(N,)`` or maps ``(N, H, W)`` of the batch's images."""
        kept = {name: value.cpu() for name, value in columns.items()}
        if all(value.ndim == 1 for value in kept.values()):
            self._values.append({"index": batch.index.cpu(), **kept})
            return
        for row, i in enumerate(batch.index.tolist()):
            self._maps |= {f"{name}/{i}": value[row] for name, value in kept.items()}

    def publish(self, stage: str, stream: Stream | None) -> None:
        """After a Sweep: merge all processes' shares into one file and join it to the stream it was made from."""
        if not self.world.any(bool(self._values or self._maps)):
            return
        if stream is None:
            raise UsageError(f"stage {stage!r} keeps columns, so it must sweep exactly one stream")
        path = self.folder / f"{stream.name}-{stage.replace(' ', '-')}.safetensors"
        parts = [path.with_name(f".{path.stem}-{rank}.part") for rank in range(self.world.size)]
        names = self._values[0] if self._values else ()
        write_tensors(
            parts[self.world.rank], {**self._maps, **{n: torch.cat([row[n] for row in self._values]) for n in names}}
        )
        self._values, self._maps = [], {}
        self.world.wait()
        if self.world.first:
            shares = [read_tensors(part) for part in parts]
            merged = _by_image(shares) if any("index" in share for share in shares) else _union(shares)
            if len(merged.pop("index")) != len(stream):
                raise UsageError(f"stage {stage!r} must keep a value for every image of {stream.name!r}")
            write_tensors(path, merged)
            for part in parts:
                part.unlink()
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


def _by_image(shares: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One vector for each column, in the order of the images; ``index`` holds those that are there."""
    filled = [share for share in shares if share]
    columns = {name: torch.cat([share[name] for share in filled]) for name in filled[0]}
    order = columns["index"].argsort()
    return {name: value[order] for name, value in columns.items()} | {"index": columns["index"].unique()}


def _union(shares: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The maps of all processes, and the images that they belong to."""
    merged = {name: value for share in shares for name, value in share.items()}
    return merged | {"index": torch.tensor(sorted({int(name.partition("/")[2]) for name in merged}))}
