"""Windows of a domain: what the diagnosis looks at instead of whole images."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Stream
from acclimate.transforms.augment import Geometry, Photometry

PLAIN = {"mean": 0.0, "std": 1.0, "geometry": Geometry(), "views": {"weak": Photometry()}}


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


def cut(domain: Domain, task: str, preprocess: Preprocess, count: int, side: int = 128, seed: int = 0) -> Windows:
    """``count`` windows of at most ``side`` x ``side`` pixels, spread evenly over the images of a domain.

    Classification takes whole images at the model's size, each at most once. Segmentation cuts at random places of the
    image at the model's scale, as training does; a window is no larger than the smallest of the images looked at.
    """
    if task == "classification":
        count = min(count, len(domain))
        changes = PLAIN
    else:
        sizes = [domain.images[i].shape[:2] for i in range(min(8, len(domain)))]
        height, width = (
            min(side, max(16, int(min(size[axis] for size in sizes) * preprocess.scale) // 16 * 16)) for axis in (0, 1)
        )
        changes = {**PLAIN, "crop": (height, width)}
    stream = Stream(
        domain, "windows", task, preprocess.replace(**changes), batch=count, seed=seed, memory_budget=0, workers=0
    )
    batch = stream.batch(0)
    return Windows(batch.x, None if domain.labels is None else batch.y, batch.index)


def normalised(x: Tensor, preprocess: Preprocess) -> Tensor:
    """What the network takes, (v - mean) / std, from images ``(N, C, H, W)`` in [0, 1]."""
    mean, std = (torch.as_tensor(value).view(-1, 1, 1) for value in (preprocess.mean, preprocess.std))
    return (x - mean) / std
