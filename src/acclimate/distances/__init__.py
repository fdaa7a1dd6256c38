"""How far apart two sets of activations are: pure functions of two matrices of rows by channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from acclimate.distances.bhattacharyya import (
    bhattacharyya,
    bhattacharyya_full,
    bhattacharyya_histogram,
    usable_channels,
)
from acclimate.distances.classifier import classifier_two_sample
from acclimate.distances.gaussian import frechet, frechet_diagonal, frechet_moments
from acclimate.distances.kernel import mmd
from acclimate.distances.max_sliced import max_sliced_wasserstein
from acclimate.distances.null import Null, source_null
from acclimate.distances.sliced import sliced_energy, sliced_wasserstein


def _classifier(x: Tensor, y: Tensor) -> Tensor:
    """:func:`classifier_two_sample` as a tensor, every row its own image."""
    return torch.tensor(classifier_two_sample(x, y), dtype=torch.float64, device=x.device)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "frechet": frechet,
    "frechet-shrunk": partial(frechet, shrink=True),
    "frechet-diagonal": frechet_diagonal,
    "sliced-wasserstein": sliced_wasserstein,
    "max-sliced-wasserstein": max_sliced_wasserstein,
    "sliced-energy": sliced_energy,
    "bhattacharyya": bhattacharyya,
    "bhattacharyya-full": bhattacharyya_full,
    "bhattacharyya-histogram": bhattacharyya_histogram,
    "mmd": mmd,
    "classifier": _classifier,
}
"""Every distance by name; two ``(n, d)`` and ``(m, d)`` matrices in, a float64 scalar out.

Equal distributions give about 0, but for "classifier", whose 0.5 says so.
"""

__all__ = [
    "DISTANCES",
    "Null",
    "bhattacharyya",
    "bhattacharyya_full",
    "bhattacharyya_histogram",
    "classifier_two_sample",
    "frechet",
    "frechet_diagonal",
    "frechet_moments",
    "max_sliced_wasserstein",
    "mmd",
    "sliced_energy",
    "sliced_wasserstein",
    "source_null",
    "usable_channels",
]
