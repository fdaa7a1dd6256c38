"""Windows of a domain: what the diagnosis looks at instead of whole images."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Stream
from acclimate.errors import DataError
from acclimate.transforms.augment import Geometry, Photometry

PLAIN = {"mean": 0.0, "std": 1.0, "geometry": Geometry(), "views": {"weak": Photometry()}}
LOOKED_AT = 20  # images of a domain whose size is read
MULTIPLE = 16  # a U-Net halves the sides four times
REDUCED = 128  # pixels: the larger side of an image of which brightness, contrast and colour are measured


@dataclasses.dataclass(frozen=True)
class Windows:
    """Images, or parts of them, at the size at which the network sees them."""

    x: Tensor  # (N, C, H, W) in [0, 1], not normalised
    y: Tensor | None  # (N,) or (N, H, W), -1 is "ignore"; None without labels
    images: Tensor  # (N,) the image each window was cut from

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Windows:
        return Windows(self.x[rows], None if self.y is None else self.y[rows], self.images[rows])


def window_size(scale: float, side: int, *domains: Domain) -> tuple[int, int]:
    """``(height, width)`` of a window that fits up to 20 images of each domain at the model's scale: at most ``side``,
    a multiple of 16.

    Raises :class:`DataError` for images of less than 16 pixels.
    """
    sizes = {
        domain.name: [domain.images[i].shape[:2] for i in range(0, len(domain), max(1, len(domain) // LOOKED_AT))]
        for domain in domains
    }
    found = []
    for axis in (0, 1):
        smallest, name = min((min(size[axis] for size in seen), name) for name, seen in sizes.items())
        here = int(smallest * scale)
        if here < MULTIPLE:
            at = "" if scale == 1 else f" at the model's scale of {scale:g}"
            raise DataError(
                f"{name} has images of {here} pixels{at}; windows need at least {MULTIPLE} x {MULTIPLE}: "
                "leave out or enlarge the small ones"
            )
        found.append(min(side, here) // MULTIPLE * MULTIPLE)
    return found[0], found[1]


def cut(
    domain: Domain, task: str, preprocess: Preprocess, count: int, side: int | tuple[int, int] = 128, seed: int = 0
) -> Windows:
    """``count`` windows of at most ``side`` x ``side`` pixels, spread evenly over the images of a domain.

    Classification takes whole images at the model's size, each at most once. Segmentation cuts at random places of the
    image at the model's scale, as training does. Domains that are to be compared need windows of one size: pass that of
    :func:`window_size` as ``side``; a single number gives what fits this domain.
    """
    if task == "classification":
        count = min(count, len(domain))
        changes = PLAIN
    else:
        size = window_size(preprocess.scale_of("target"), side, domain) if isinstance(side, int) else side
        changes = {**PLAIN, "crop": size}
    stream = Stream(
        domain, "windows", task, preprocess.replace(**changes), batch=count, seed=seed, memory_budget=0, workers=0
    )
    batch = stream.batch(0)
    return Windows(batch.x, None if domain.labels is None else batch.y, batch.index)


def reduced(domain: Domain, preprocess: Preprocess, images: Tensor) -> list[Tensor]:
    """The given images of a domain, whole: ``(1, C, H, W)`` in [0, 1], the larger side brought down to 128 pixels by
    averaging."""
    stream = Stream(
        domain.unlabelled(),
        "whole",
        "segmentation",
        preprocess.replace(**PLAIN, crop=None, size=None, scale=1.0),
        batch=1,
        memory_budget=0,
        workers=0,
    )
    found: dict[int, Tensor] = {}
    for i in images.tolist():
        for _, x in stream.pictures([i]):
            by = min(1.0, REDUCED / max(x.shape[-2:]))
            size = [max(1, round(length * by)) for length in x.shape[-2:]]
            found[i] = x if by == 1 else functional.interpolate(x, size, mode="area")
    return [found[i] for i in images.tolist()]


def ordinals(images: Tensor) -> Tensor:
    """``(N,)``: of each window, how many windows of the same image come before it."""
    order = images.argsort(stable=True)
    ordered = images[order]
    first = torch.searchsorted(ordered, ordered)  # where each image begins
    found = torch.empty_like(images)
    found[order] = torch.arange(len(images), device=images.device) - first
    return found


def alike(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Which windows ``(N,)`` and ``(M,)`` to keep, so that every image of either side counts as many.

    Means over different numbers of windows would have different spreads, and two sets of the same kind would differ.
    """
    most = min(int(images.unique(return_counts=True)[1].min()) for images in (source, target))
    return ordinals(source) < most, ordinals(target) < most


def normalised(x: Tensor, preprocess: Preprocess) -> Tensor:
    """What the network takes, (v - mean) / std, from images ``(N, C, H, W)`` in [0, 1]."""
    mean, std = (torch.as_tensor(value).view(-1, 1, 1) for value in (preprocess.mean, preprocess.std))
    return (x - mean) / std
