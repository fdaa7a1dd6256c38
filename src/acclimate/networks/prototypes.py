"""Classes as points among features: where they lie, how near a pixel is to each, and how they move."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.losses.precision import full

FAR = 1e9
"""The distance of a class that has no prototype: its share in a softmax over distances is exactly 0, and no gradient is NaN."""


def class_means(features: Tensor, labels: Tensor, classes: int, minimum: int = 10) -> Tensor:
    """The mean feature of each class in each image, summed over images: ``(K, C + 1)``, the last column counts the images.

    Args:
        features: ``(N, C, h, w)``.
        labels: ``(N, h, w)`` integers in -1..K-1; -1 is left out.
        minimum: pixels of a class below which an image does not count for it.

    One tensor, so that sums over batches and processes are sums of it. Zhang et al., CVPR 2021, in the released form:
    images that hold a class weigh alike.
    """
    with torch.autocast(features.device.type, enabled=False):
        f = full(features.detach()).flatten(2)
        each = (labels.flatten(1)[:, None] == torch.arange(classes, device=f.device)[:, None]).to(f.dtype)
        pixels = each.sum(2, keepdim=True)  # (N, K, 1)
        counts = (pixels >= minimum).to(f.dtype)
        means = each @ f.transpose(1, 2) / pixels.clamp_min(1)
        return torch.cat([means * counts, counts], 2).sum(0)


def moved(prototypes: Tensor, known: Tensor, found: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """eta_k <- decay eta_k + (1 - decay) f, once for each image: prototypes ``(K, C)`` and which are known ``(K,)``.

    Args:
        found: of :func:`class_means`. The n images of a class are taken as n times their mean: the same but for their order.
        decay: 0 replaces the prototypes.

    A class that no image holds stays where it is; one that is seen first begins at its mean.
    """
    images = found[:, -1:]
    kept = torch.where(known[:, None] | (images == 0), decay**images, 0.0)
    return kept * prototypes + (1 - kept) * found[:, :-1] / images.clamp_min(1), known | (images[:, 0] > 0)


def nearness(features: Tensor, prototypes: Tensor, known: Tensor, temperature: float = 1.0) -> Tensor:
    """-||f_i - eta_k|| / tau as logits ``(N, K, h, w)``; their softmax over k are ProDA's weights omega and assignments z.

    Args:
        features: ``(N, C, h, w)``; a gradient reaches them.
        prototypes, known: ``(K, C)`` and ``(K,)``; a class that is not known is :data:`FAR` from every pixel.

    ||f||^2 - 2 f eta + ||eta||^2, about the prototypes' mean, where it loses the fewest digits: never ``(N, K, C, h, w)``.
    """
    with torch.autocast(features.device.type, enabled=False):
        centre = prototypes.mean(0)
        f, eta = full(features) - centre[:, None, None], prototypes - centre
        squared = f.square().sum(1, keepdim=True) + eta.square().sum(1)[:, None, None]
        squared = squared - 2 * torch.einsum("nchw,kc->nkhw", f, eta)
        distance = squared.clamp_min(1e-12).sqrt()  # the root has no slope at 0
        return -torch.where(known[:, None, None], distance, FAR) / temperature


def resized(labels: Tensor, maps: Tensor) -> Tensor:
    """Integers ``(N, H, W)`` at the resolution of ``maps (N, *, h, w)``: the one in the middle of each cell."""
    return functional.interpolate(labels[:, None].float(), maps.shape[2:], mode="nearest-exact")[:, 0].long()
