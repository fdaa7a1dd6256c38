"""Telling two domains apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.losses.precision import full


def domain_cross_entropy(ds: Tensor, dt: Tensor) -> Tensor:
    """Binary cross-entropy of a domain critic: (mean_s -log sigmoid(ds) + mean_t -log(1 - sigmoid(dt))) / 2.

    Args:
        ds: the critic's logits for source samples, any shape; it should say 1.
        dt: the critic's logits for target samples, any shape; it should say 0.

    Both domains weigh the same whatever their numbers of samples. The minimum over critics is log 2 - JSD(p_s, p_t)
    (Goodfellow et al. 2014, theorem 1).
    """
    return (functional.softplus(-full(ds)).mean() + functional.softplus(full(dt)).mean()) / 2


@torch.no_grad()
def domain_accuracy(ds: Tensor, dt: Tensor) -> Tensor:
    """The share of samples whose domain the critic names rightly, both domains weighing the same; 0.5 is chance."""
    return ((ds > 0).float().mean() + (dt <= 0).float().mean()) / 2
