"""Class mixing: what belongs to half of a source image's classes is pasted onto a target image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.errors import UsageError


class Mixed(NamedTuple):
    """Images with the labels of their pixels and how far these are trusted."""

    x: Tensor  # (N, C, H, W)
    y: Tensor  # (N, H, W)
    weights: Tensor  # (N, H, W)


def half_of_the_classes(labels: Tensor, classes: int) -> Tensor:
    """Which pixels belong to a random half of the classes of their image: ``(N, H, W)`` -> ``(N, H, W)`` boolean.

    Of n classes in an image ceil(n / 2) are drawn, without replacement: of a binary mask the one or the other, of an image
    with a single class that one, thus all. Pixels with the label -1 belong to no class. Draws from torch's generator of the
    labels' device; reads nothing back.
    """
    numbers = torch.arange(classes, device=labels.device)
    present = (labels.flatten(1)[:, None] == numbers[:, None]).any(2)
    order = torch.rand(present.shape, device=labels.device).masked_fill(~present, 2.0)  # the absent come last
    rank = order.argsort(1).argsort(1)
    half = (present.sum(1, keepdim=True) + 1) // 2
    chosen = functional.pad(rank < half, (1, 0))  # the first column is that of "ignore", never chosen
    return chosen.gather(1, labels.flatten(1) + 1).view_as(labels)


def class_mix(xs: Tensor, ys: Tensor, xt: Tensor, pseudo: Tensor, weights: Tensor, classes: int) -> Mixed:
    """Target images onto which half of the classes of the source image of the same row are pasted, labels included.

    Tranheden et al., DACS, WACV 2021, after Olsson et al., ClassMix, WACV 2021.

    Args:
        xs: source images ``(N, C, H, W)`` with labels ``ys (N, H, W)``, -1 for "ignore": such pixels are not pasted.
        xt: target images of the same shape with pseudo-labels ``pseudo (N, H, W)`` and their ``weights``: ``(N, H, W)``, or one
            for each image or for all, as ``(N, 1, 1)`` or a scalar.
        classes: how many there are.

    Returns images, labels and weights; pasted labels weigh 1.
    """
    if xs.shape != xt.shape:
        raise UsageError(
            f"images of {tuple(xs.shape)} cannot be pasted onto {tuple(xt.shape)}; set Preprocess(crop=(height, width)) or --crop"
        )
    pasted = half_of_the_classes(ys, classes)
    return Mixed(
        torch.where(pasted[:, None], xs, xt),
        torch.where(pasted, ys, pseudo),
        torch.where(pasted, torch.ones_like(weights), weights),
    )
