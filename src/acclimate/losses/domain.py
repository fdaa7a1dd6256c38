"""Telling two domains apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def domain_cross_entropy(ds: Tensor, dt: Tensor) -> Tensor:
    """Binary cross-entropy of a domain critic: mean_s -log sigmoid(ds) + mean_t -log(1 - sigmoid(dt)).

    Args:
        ds: the critic's logits for source samples, any shape; it should say 1.
        dt: the critic's logits for target samples, any shape; it should say 0.

    The minimum over critics is 2 log 2 - 2 JSD(p_s, p_t) (Ganin et al., JMLR 2016, eq. 8; Goodfellow et al. 2014, thm. 1).
    """
    return functional.softplus(-ds.float()).mean() + functional.softplus(dt.float()).mean()


@torch.no_grad()
def domain_accuracy(ds: Tensor, dt: Tensor) -> Tensor:
    """The share of samples whose domain the critic names rightly, both domains weighing the same; 0.5 is chance."""
    return ((ds > 0).float().mean() + (dt <= 0).float().mean()) / 2
