"""Streams: batch k, augmentation included, is a pure function of (seed, stream, k).

So resuming is arithmetic, the number of threads or processes changes nothing, and a longer source does not reorder the
target. Images that fit the memory budget are decoded once and stay on the device as uint8; others are decoded ahead by
threads, in the same order.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from acclimate.data.domain import IGNORE, Domain
from acclimate.data.preprocess import Preprocess
from acclimate.errors import AcclimateError, DataError, UsageError
from acclimate.random import key
from acclimate.transforms.augment import DRAWS, move, recolour

SWEEP_IMAGES, SWEEP_PIXELS = 256, 1 << 22
RARE_SHARE, RARE_TRIES = 3000 / 512**2, 10  # of a crop's pixels; crops looked at (DAFormer, section 3.3 and its code)


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a step function gets: ``x (N, C, H, W)`` float, labels ``y (N,)`` or ``(N, H, W)``, -1 for "ignore".

    ``index`` says which images of the domain they are, ``views`` holds each view that the stage asked for (``x`` is the
    first), ``columns`` what Sweeps kept for these images. ``y`` of an unlabelled domain is empty.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    views: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]


class Stream:
    """An endless, keyed order of batches over one domain.

    Args:
        domain: where the images come from; labels are read only if the domain has them.
        name: part of the key of every draw ("source", "target").
        task: "classification" or "segmentation".
        batch: images per step over all processes; ``rank`` takes its rows of ``world``.
        memory_budget: GiB; a domain that needs more is decoded batch by batch.

    Raises :class:`UsageError` for a batch that ``world`` does not divide, :class:`DataError` for an unreadable image.
    """

    def __init__(
        self,
        domain: Domain,
        name: str,
        task: str,
        preprocess: Preprocess,
        *,
        batch: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        memory_budget: float = 2.0,
        workers: int = 2,
    ) -> None:
        if batch % world:
            raise UsageError(f"batch {batch} cannot be shared by {world} processes; choose a multiple of {world}")
        if task == "classification" and preprocess.size is None:
            raise UsageError("classification needs Preprocess(size=(height, width))")
        self.domain, self.name, self.task, self.preprocess = domain, name, task, preprocess.of(name)
        self.batch_size, self.seed, self.device = batch, seed, torch.device(device)
        self.rank, self.world = rank, world
        self.columns: dict[str, Column] = {}
        self._order = functools.lru_cache(4)(self._permutation)
        self._chosen = functools.lru_cache(64)(self._choose)  # asked for by the batch and by the threads that decode it
        self._images: list[Tensor] | Tensor | None = None
        self._labels: list[Tensor] | Tensor | None = None
        self._ahead: dict[tuple[int, float | None], Future[tuple[Tensor, list[Tensor]]]] = {}
        self._pool: ThreadPoolExecutor | None = None
        if self._bytes() <= memory_budget * 2**30:
            self._load()
        elif workers:
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"decode-{name}")
            self._depth = 2 * workers

    @property
    def resident(self) -> bool:
        """Whether the decoded images stay on the device."""
        return self._images is not None

    def __len__(self) -> int:
        return len(self.domain)

    # -- which images ---------------------------------------------------------------------------------------------

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(key(self.seed, self.name, "epoch", epoch)).permutation(len(self))

    def indices(self, k: int) -> np.ndarray:
        """The images of the global batch k: positions kB .. kB + B - 1 of all epochs' permutations in a row."""
        epochs, places = np.divmod(np.arange(k * self.batch_size, (k + 1) * self.batch_size), len(self))
        parts = [self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return np.concatenate(parts)

    def names(self, k: int, rare_classes: float | None = None) -> list[str]:
        """The file names of batch k, for messages."""
        return [self.domain.names[i] for i in self._chosen(k, rare_classes)[0]]

    def _choose(self, k: int, rare_classes: float | None) -> tuple[np.ndarray, np.ndarray | None]:
        """The images of the global batch k, and the class that each was drawn for, if it was."""
        if rare_classes is None:
            return self.indices(k), None
        counts = self._class_counts
        frequencies = counts.sum(0) / counts.sum()
        rarest = frequencies[frequencies > 0].min()  # exp(1 / T) alone would overflow
        odds = np.where(frequencies > 0, np.exp((rarest - frequencies) / rare_classes), 0.0)
        rng = np.random.default_rng(key(self.seed, self.name, "rare classes", k))
        classes = rng.choice(counts.shape[1], self.batch_size, p=odds / odds.sum())
        wanted = self._rare_pixels
        chosen = []
        for label, draw in zip(classes, rng.random(self.batch_size)):
            with_it = np.flatnonzero(counts[:, label] >= min(wanted, counts[:, label].max()))
            chosen.append(with_it[int(draw * len(with_it))])
        return np.array(chosen), classes

    @functools.cached_property
    def _rare_pixels(self) -> float:
        height, width = self.preprocess.crop or self._decode(0).shape[:2]
        return RARE_SHARE * height * width

    @functools.cached_property
    def _class_counts(self) -> np.ndarray:
        """How many pixels of each class ``(N, K)`` the images hold: one pass over all label maps."""
        if self.task != "segmentation" or self.domain.labels is None:
            raise UsageError(f"rare-class sampling counts label maps, and the stream {self.name!r} has none")
        k = len(self.domain.classes)

        def count(i: int) -> np.ndarray:
            label = self._host_label(i)
            return np.bincount(label[label >= 0], minlength=k)

        with ThreadPoolExecutor(2) as pool:
            counts = np.stack(list(pool.map(count, range(len(self)))))
        if not counts.any():
            raise DataError(
                f"{self.domain.name}: no pixel of its masks has a class, so none can be drawn as a rare one"
            )
        return counts

    @functools.cached_property
    def _host_labels(self) -> list[np.ndarray] | None:
        """Resident labels in the host's memory, where looking at them stops no device."""
        return None if self._labels is None else [label.cpu().numpy() for label in self._labels]

    def _host_label(self, i: int) -> np.ndarray:
        return self._label(i).numpy() if self._host_labels is None else self._host_labels[i]

    def _mine(self, rows: np.ndarray) -> np.ndarray:
        share = self.batch_size // self.world
        return rows[self.rank * share : (self.rank + 1) * share]

    def _draws(self, k: int, what: str, columns: int) -> np.ndarray:
        """Uniform numbers for the global batch, of which this process takes its rows."""
        rng = np.random.default_rng(key(self.seed, self.name, what, k))
        return self._mine(rng.random((self.batch_size, columns), dtype=np.float32))

    def join(self, columns: Mapping[str, Column]) -> None:
        """Replace the columns; what was decoded ahead with the old ones is dropped."""
        self.columns = dict(columns)
        for stale in self._ahead.values():
            stale.cancel()
        self._ahead = {}

    # -- batches --------------------------------------------------------------------------------------------------

    def batch(self, k: int, views: Sequence[str] = ("weak",), rare_classes: float | None = None) -> Batch:
        """Batch k with the named views of :class:`Preprocess`. Reads nothing back from the device.

        Args:
            rare_classes: temperature T of rare-class sampling (Hoyer et al., DAFormer, CVPR 2022, eq. 5 and 6), for label
                maps: for each place in the batch a class c with P(c) proportional to exp((1 - f_c) / T), f_c its share of
                all labelled pixels, then an image that holds enough of it (3,000 pixels for a crop of 512 x 512), then
                the first of ten crops that holds half as much, or the last of them. None: every image in turn.
        """
        missing = [view for view in views if view not in self.preprocess.views]
        if missing:
            raise UsageError(f"no view {missing[0]!r} in Preprocess.views (known: {', '.join(self.preprocess.views)})")
        index = self._mine(self._chosen(k, rare_classes)[0])
        pixels, maps = self._fetch(k, rare_classes)
        x = self._floats(pixels)
        geometry = self.preprocess.geometry
        if geometry.flips != "none" or geometry.moves:
            x, moved = move(
                x,
                maps if self.task == "segmentation" else [],
                self._upload(self._draws(k, "geometry", DRAWS)),
                geometry,
            )
            maps = moved or maps
        pictures = {}
        for view in views:
            photometry = self.preprocess.views[view]
            draws = self._upload(self._draws(k, view, DRAWS))
            noise = key(self.seed, self.name, view, "noise", k)
            pictures[view] = self._normalise(
                recolour(x, draws, photometry, noise, row=self.rank * len(x), rows=self.batch_size)
            )
        labels = [maps.pop(0).long()] if self.domain.labels is not None else [torch.empty(0, device=self.device)]
        return Batch(
            pictures[views[0]], labels[0], self._upload(index), pictures, dict(zip(self.columns, maps, strict=True))
        )

    def sweep(self) -> Iterator[Batch]:
        """This process's share of all images once: whole images of one size per batch, unaugmented, in a keyed order, with
        their labels.

        The order is shuffled because neighbours (slices of one volume, frames of one film) in a batch of their own would
        make its statistics narrower than the domain's.
        """
        order = np.random.default_rng(key(self.seed, self.name, "sweep")).permutation(len(self))[
            self.rank :: self.world
        ]
        for index, x in self.pictures(order.tolist()):
            y = torch.empty(0, device=self.device)
            if self.domain.labels is not None:
                y = torch.stack([self._map_of(i, image) for i, image in zip(index, x.movedim(1, -1))]).long()
            yield Batch(x, y, self._upload(np.array(index)), {"weak": x}, {})

    def pictures(self, indices: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """The given images, whole and normalised, in batches of one size: pairs of indices and ``(N, C, H, W)``."""
        waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        for i in indices:
            image = self._image(i)
            group = waiting.setdefault(tuple(image.shape), [])
            group.append((i, image))
            if len(group) >= max(1, min(SWEEP_IMAGES, SWEEP_PIXELS // (image.shape[0] * image.shape[1]))):
                yield self._together(waiting.pop(tuple(image.shape)))
        for group in waiting.values():
            yield self._together(group)

    def _together(self, group: list[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
        return [i for i, _ in group], self._normalise(self._floats(torch.stack([image for _, image in group])))

    # -- pixels ---------------------------------------------------------------------------------------------------

    def _bytes(self) -> float:
        """What the decoded domain would take, judged by its first image."""
        return (
            len(self)
            * self._decode(0).numel()
            * (3 if self.task == "segmentation" and self.domain.labels is not None else 1)
        )

    def _read(self, what: Sequence[object], i: int) -> np.ndarray:
        try:
            return np.asarray(what[i])
        except AcclimateError:
            raise
        except Exception as error:
            raise DataError(f"{self.domain.names[i]} cannot be read ({error}); run: acclimate check") from error

    def _decode(self, i: int) -> Tensor:
        """Image i as uint8 ``(H, W, C)``, resized or scaled, on the CPU."""
        image = self._read(self.domain.images, i)
        image = image[..., None] if image.ndim == 2 else image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise DataError(
                f"{self.domain.names[i]}: an image must be uint8 (H, W), (H, W, 1) or (H, W, 3), "
                f"not {image.dtype} {image.shape}"
            )
        if self.preprocess.channels == 1 and image.shape[-1] == 3:
            image = np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]  # ITU-R BT.601 luma
        if self.task == "classification" and self.preprocess.fit == "centre":
            image = _middle(image, self._size(*image.shape[:2]))
        return _resize(torch.from_numpy(np.array(image)), self._size(*image.shape[:2]))

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.task == "classification":
            return self.preprocess.size or (height, width)
        scale = self.preprocess.scale_of(self.name)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _label(self, i: int) -> Tensor:
        """Label i: a scalar, or an int16 map ``(H, W)`` of the image's size."""
        assert self.domain.labels is not None
        label = self._read(self.domain.labels, i)
        if label.size and not IGNORE <= int(label.min()) <= int(label.max()) < len(self.domain.classes):
            raise DataError(
                f"{self.domain.names[i]}: labels must lie in {IGNORE}..{len(self.domain.classes) - 1}, "
                f"not {int(label.min())}..{int(label.max())}; {IGNORE} means ignore"
            )
        if self.task == "classification":
            return torch.tensor(int(label))
        tensor = torch.from_numpy(label.astype(np.int16))
        size = self._size(*label.shape)
        if size == label.shape:
            return tensor
        # "nearest-exact" takes the middle of each cell, as the image's own resize does; "nearest" takes its corner
        return functional.interpolate(tensor[None, None].float(), size, mode="nearest-exact")[0, 0].short()

    def _load(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            images = list(pool.map(self._decode, range(len(self))))
            labels = None if self.domain.labels is None else list(pool.map(self._label, range(len(self))))
        for i, (image, label) in enumerate(zip(images, labels or [])):
            self._same_size(i, image, label)
        if self.task == "classification":
            if len({image.shape[-1] for image in images}) > 1:
                images = [image.expand(-1, -1, 3) for image in images]
            self._images = torch.stack(images).to(self.device)
            self._labels = None if labels is None else torch.stack(labels).to(self.device)
        else:
            self._images = [image.to(self.device) for image in images]
            self._labels = None if labels is None else [label.to(self.device) for label in labels]

    def _same_size(self, i: int, image: Tensor, label: Tensor) -> None:
        if self.task == "segmentation" and image.shape[:2] != label.shape:
            raise DataError(
                f"{self.domain.names[i]}: the mask has {tuple(label.shape)} pixels, the image {tuple(image.shape[:2])}; "
                "make them equal or remove the pair"
            )

    def _image(self, i: int) -> Tensor:
        return self._decode(i).to(self.device) if self._images is None else self._images[i]

    def _map_of(self, i: int, image: Tensor) -> Tensor:
        """Label i, checked against the image ``(H, W, C)``."""
        label = self._label(i).to(self.device) if self._labels is None else self._labels[i]
        self._same_size(i, image, label)
        return label

    def _fetch(self, k: int, rare: float | None) -> tuple[Tensor, list[Tensor]]:
        """uint8 ``(N, H, W, C)`` and what goes with it (labels first, then columns), on the device."""
        if self._pool is None:
            return self._gather(k, rare)
        for ahead in range(k, k + self._depth):
            if (ahead, rare) not in self._ahead:
                self._ahead[ahead, rare] = self._pool.submit(self._gather, ahead, rare)
        for stale in [old for old in self._ahead if old[1] != rare or not k <= old[0] < k + self._depth]:
            self._ahead.pop(stale).cancel()
        return self._ahead.pop((k, rare)).result()

    def _gather(self, k: int, rare: float | None) -> tuple[Tensor, list[Tensor]]:
        everyone, classes = self._chosen(k, rare)
        index = self._mine(everyone)
        if self.task == "classification":
            rows = self._upload(index)
            if isinstance(self._images, Tensor):
                pixels = self._images.index_select(0, rows)
            else:
                images = [self._decode(i) for i in index]
                channels = max(image.shape[-1] for image in images)
                pixels = torch.stack([image.expand(-1, -1, channels) for image in images]).to(self.device)
            values = []
            if self.domain.labels is not None:
                stored = isinstance(self._labels, Tensor)
                values.append(
                    self._labels.index_select(0, rows)  # type: ignore[union-attr]
                    if stored
                    else torch.stack([self._label(i) for i in index]).to(self.device)
                )
            return pixels, values + [self._upload(column.whole()[index]) for column in self.columns.values()]
        if classes is None:
            places = self._draws(k, "crop", 2)
        else:
            tries = self._draws(k, "rare crop", 2 * RARE_TRIES).reshape(-1, RARE_TRIES, 2)
            drawn_for = zip(index.tolist(), tries, self._mine(classes))
            places = np.stack([self._place_of_class(i, options, label) for i, options, label in drawn_for])
        crops = [self._crop(i, place) for i, place in zip(index.tolist(), places)]
        if len({crop[0].shape for crop in crops}) > 1:
            raise UsageError("images of different sizes need a crop: set Preprocess(crop=(height, width)) or --crop")
        return torch.stack([crop[0] for crop in crops]), [
            torch.stack(maps) for maps in zip(*(crop[1:] for crop in crops))
        ]

    def _corner(self, shape: Sequence[int], place: np.ndarray) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop at a place in [0, 1) x [0, 1)."""
        height, width = self.preprocess.crop or shape[:2]
        top, left = (int(p * max(0, have - want + 1)) for p, have, want in zip(place, shape, (height, width)))
        return top, left, height, width

    def _place_of_class(self, i: int, places: np.ndarray, wanted: int) -> np.ndarray:
        """The first of several places where the crop holds enough of a class, or the last."""
        label = self._host_label(i)
        for place in places:
            top, left, height, width = self._corner(label.shape, place)
            if (label[top : top + height, left : left + width] == wanted).sum() > self._rare_pixels / 2:
                return place
        return places[-1]

    def _crop(self, i: int, place: np.ndarray) -> list[Tensor]:
        """Image i, its label map and its columns, cut at one place. Outside a small image: its edge, label -1."""
        image = self._image(i)
        maps = [self._upload(column.map(i)) for column in self.columns.values()]
        if self.domain.labels is not None:
            maps.insert(0, self._map_of(i, image))
        top, left, height, width = self._corner(image.shape, place)
        cut = [image[top : top + height, left : left + width]]
        below, right = height - cut[0].shape[0], width - cut[0].shape[1]
        if below or right:
            rows = torch.arange(height, device=self.device).clamp_max(cut[0].shape[0] - 1)
            columns = torch.arange(width, device=self.device).clamp_max(cut[0].shape[1] - 1)
            cut = [cut[0][rows][:, columns]]
        for m in maps:
            if m.is_floating_point():
                cut.append(_cut_soft(m, image.shape, (top, left, height, width)))
            else:
                m = m[top : top + height, left : left + width]
                cut.append(functional.pad(m, (0, right, 0, below), value=IGNORE) if below or right else m)
        return [cut[0].expand(-1, -1, self.preprocess.channels), *cut[1:]]

    def _floats(self, pixels: Tensor) -> Tensor:
        """uint8 ``(N, H, W, C)`` to channels-last float ``(N, C, H, W)`` in [0, 1]."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float32).mul_(1 / 255)
        return x.expand(-1, self.preprocess.channels, -1, -1) if x.shape[1] == 1 else x

    def _normalise(self, x: Tensor) -> Tensor:
        mean, std = self.preprocess.mean, self.preprocess.std
        if isinstance(mean, float) and isinstance(std, float):
            return x.mul(1 / std).sub_(mean / std).contiguous(memory_format=torch.channels_last)
        shift, scale = (torch.tensor(v, device="cpu").expand(3).view(3, 1, 1) for v in (mean, std))
        return ((x - self._upload(shift)) / self._upload(scale)).contiguous(memory_format=torch.channels_last)

    def _upload(self, value: np.ndarray | Tensor) -> Tensor:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(value)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)  # a pageable copy would wait for the device

    def fingerprint(self) -> str:
        """Changes with the names, the labels' presence and the pixels (of all images where resident, else of 16)."""
        digest = hashlib.blake2b(
            repr((list(self.domain.names), self.domain.labels is not None)).encode(), digest_size=16
        )
        chosen = range(len(self)) if self.resident else np.linspace(0, len(self) - 1, min(16, len(self))).astype(int)
        if isinstance(self._images, Tensor):
            digest.update(self._images.cpu().numpy().data)
        else:
            for i in chosen:
                digest.update(np.ascontiguousarray(self._image(int(i)).cpu().numpy()).data)
        if self.domain.labels is not None:
            for i in chosen:
                label = self._label(int(i)) if self._labels is None else self._labels[int(i)]
                digest.update(np.ascontiguousarray(label.cpu().numpy()).data)
        return digest.hexdigest()


class Column:
    """A value per image, or a map per image, that a Sweep kept in an artifact's files; maps are read one by one."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        opened = [safe_open(path, framework="pt") for path in paths]
        self._files: dict[str, Any] = {key_: file for file in opened for key_ in file.keys()}  # noqa: SIM118 (no mapping)
        self._whole: Tensor | None = None

    def whole(self) -> Tensor:
        """``(N,)``, of a classification stream."""
        if self._whole is None:
            self._whole = self._files[self.name].get_tensor(self.name)
        return self._whole

    def map(self, i: int) -> Tensor:
        """``(H, W)`` labels or ``(K, h, w)`` values of image i, of a segmentation stream."""
        return self._files[f"{self.name}/{i}"].get_tensor(f"{self.name}/{i}")


def _cut_soft(m: Tensor, image: Sequence[int], crop: tuple[int, int, int, int]) -> Tensor:
    """``(K, H, W)`` of a crop (top, left, height, width) of a map ``(K, h, w)`` of a whole image, bilinear; 0 outside the
    image."""
    top, left, height, width = crop
    ys = torch.arange(top, top + height, device=m.device) + 0.5
    xs = torch.arange(left, left + width, device=m.device) + 0.5
    grid = torch.stack(
        [(2 * xs / image[1] - 1).expand(height, -1), (2 * ys / image[0] - 1)[:, None].expand(-1, width)], -1
    )
    cut = functional.grid_sample(m[None].float(), grid[None], padding_mode="border", align_corners=False)[0]
    return cut * ((ys < image[0])[:, None] & (xs < image[1]))


def _middle(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of ``(H, W, C)``, at most ``size`` large."""
    top, left = (max(0, have - want) // 2 for have, want in zip(image.shape, size))
    return image[top : top + size[0], left : left + size[1]]


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 ``(H, W, C)``, bilinear, antialiased where it shrinks."""
    if tuple(image.shape[:2]) == tuple(size):
        return image
    x = image.permute(2, 0, 1)[None].float()
    x = functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    return x.round_().clamp_(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()
