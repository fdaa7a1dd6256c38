"""Where in an image the classes of the source lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.errors import UsageError

FLOOR = 1e-3
"""Of a prior whose mean is 1: what never lay at a place in the source is unlikely there, not impossible."""


class SpatialPrior(nn.Module):
    """q_k(n), the share of the source's class k that lies at place n, in units of an even spread.

    The buffer ``q (K, *grid)`` lies on a grid over the image, whatever the image's size. Its mean is 1 for each class: it says
    where a class lies, not how frequent it is. It is 1 everywhere before :meth:`fit`, and for a class that no label shows.
    """

    q: Tensor

    def __init__(self, classes: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("q", torch.ones(classes, *grid))

    @torch.no_grad()
    def fit(self, labels: Iterable[Tensor], total: Callable[[Tensor], Tensor]) -> None:
        """From label maps ``(N, H, W)``, -1 for "ignore"; ``total`` sums over processes.

        Raises :class:`UsageError` where there is one label for a whole image.
        """
        covered = torch.zeros_like(self.q)
        for y in labels:
            if y.ndim != 3:
                raise UsageError("an image with one label has no places: set spatial_prior=False for classification")
            for k in range(len(covered)):
                covered[k] += functional.adaptive_avg_pool2d((y == k).float(), self.grid).sum(0)
        q = smoothed(total(covered))
        mean = q.mean((1, 2), keepdim=True)
        self.q.copy_(torch.where(mean > 0, q / mean.where(mean > 0, 1.0), 1.0))

    def forward(self, logits: Tensor) -> Tensor:
        """Logits ``(N, K, H, W)`` of p_k(n) q_k(n) / sum_c p_c(n) q_c(n), q brought to ``(H, W)`` bilinearly."""
        q = functional.interpolate(self.q[None], logits.shape[2:], mode="bilinear", align_corners=False)
        return logits.float() + q.clamp_min(FLOOR).log()


def smoothed(maps: Tensor) -> Tensor:
    """Maps ``(K, h, w)`` under a Gaussian of one cell; beyond its border a map goes on as at its border."""
    bell = (-(torch.arange(-3.0, 4.0, device=maps.device) ** 2) / 2).exp()
    bell = bell / bell.sum()
    padded = functional.pad(maps[:, None], (3, 3, 3, 3), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))[:, 0]
