"""Columns: what a Sweep keeps for each image of a stream, in files that the checkpoint names with their sha256."""

from __future__ import annotations

import os
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

HELD = 2**28  # bytes of maps that wait in memory before they are written


class Artifacts:
    """Collects ``Method.keep`` during a Sweep and joins the columns to the stream.

    One value per image: the first process merges all shares into one file. Maps: each process writes files of some hundred
    megabytes as it goes, so that memory stays bounded whatever the size of the domain.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.published: dict[str, dict[str, str]] = {}  # stream -> file -> sha256
        self._values: list[dict[str, Tensor]] = []  # of a batch each: one value per image, and "index"
        self._maps: dict[str, Tensor] = {}  # "name/index", since images may differ in size
        self._parts: list[Path] = []  # maps that are written already

    def keep(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        """Remember values ``(N,)``, maps ``(N, H, W)`` or floating maps ``(N, K, h, w)`` of the batch's images."""
        kept = {name: value.cpu() for name, value in columns.items()}
        if all(value.ndim == 1 for value in kept.values()):
            self._values.append({"index": batch.index.cpu(), **kept})
            return
        for name, value in kept.items():
            if value.is_floating_point() != (value.ndim == 4) or (
                value.ndim == 3 and value.shape[1:] != batch.x.shape[2:]
            ):
                raise UsageError(
                    f"column {name!r} has the shape {tuple(value.shape)}: keep labels as integers (N, H, W) of the image's "
                    "size, soft maps as floats (N, K, h, w)"
                )
        for row, i in enumerate(batch.index.tolist()):
            self._maps |= {f"{name}/{i}": value[row].contiguous() for name, value in kept.items()}
        if sum(value.nbytes for value in self._maps.values()) >= HELD:
            self._write_maps()

    def _write_maps(self) -> None:
        part = self.folder / f".maps-{self.world.rank}-{len(self._parts)}.part"
        write_tensors(part, self._maps)
        self._parts.append(part)
        self._maps = {}

    def publish(self, stage: str, stream: Stream | None) -> None:
        """After a Sweep: make files of what all processes kept, and join them to the stream it was made from."""
        if not self.world.any(bool(self._values or self._maps or self._parts)):
            return
        if stream is None:
            raise UsageError(f"stage {stage!r} keeps columns, so it must sweep exactly one stream")
        stem = f"{stream.name}-{stage.replace(' ', '-')}"
        if self.world.any(bool(self._maps or self._parts)):
            paths = self._publish_maps(stem)
            images = {int(name.partition("/")[2]) for path in paths for name in _names(path)}
        else:
            paths, images = self._publish_values(stem)
        if len(images) != len(stream):
            raise UsageError(f"stage {stage!r} must keep a value for every image of {stream.name!r}")
        self._join(stream, {path.name: sha256(path) for path in paths})

    def _publish_maps(self, stem: str) -> list[Path]:
        if self._maps:
            self._write_maps()
        if self.world.first:
            for stale in self.folder.glob(f"{stem}-maps-*.safetensors"):
                stale.unlink()
        self.world.wait()
        for number, part in enumerate(self._parts):
            os.replace(part, self.folder / f"{stem}-maps-{self.world.rank}-{number}.safetensors")
        self._parts = []
        self.world.wait()
        return sorted(self.folder.glob(f"{stem}-maps-*.safetensors"))

    def _publish_values(self, stem: str) -> tuple[list[Path], set[int]]:
        path = self.folder / f"{stem}.safetensors"
        parts = [self.folder / f".{stem}-{rank}.part" for rank in range(self.world.size)]
        names = self._values[0] if self._values else ()
        write_tensors(parts[self.world.rank], {name: torch.cat([row[name] for row in self._values]) for name in names})
        self._values = []
        self.world.wait()
        images = set(torch.cat([read_tensors(part).get("index", torch.empty(0)) for part in parts]).long().tolist())
        self.world.wait()
        if self.world.first:
            write_tensors(path, _by_image([read_tensors(part) for part in parts]))
            for part in parts:
                part.unlink()
        self.world.wait()
        return [path], images

    def _join(self, stream: Stream, files: Mapping[str, str]) -> None:
        """Make the files' values columns of the stream."""
        paths = [self.folder / name for name in files]
        names = sorted({name.partition("/")[0] for path in paths for name in _names(path)})
        stream.join({name: Column(paths, name) for name in names})
        self.published[stream.name] = dict(files)

    def restore(self, published: Mapping[str, Mapping[str, str]], streams: Mapping[str, Stream]) -> None:
        """Join what a checkpoint names. Raises :class:`DataError` if a file is not the one that was saved."""
        for name, files in published.items():
            for file, digest in files.items():
                path = self.folder / file
                if not path.exists() or sha256(path) != digest:
                    raise DataError(f"{path} is missing or has changed since the checkpoint; start again with --force")
            self._join(streams[name], files)


def _names(path: Path) -> list[str]:
    """The names in a file alone: the values may be many gigabytes."""
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _by_image(shares: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One vector for each column, in the order of the images."""
    filled = [share for share in shares if share]
    columns = {name: torch.cat([share[name] for share in filled]) for name in filled[0]}
    order = columns.pop("index").argsort()
    return {name: value[order] for name, value in columns.items()}
