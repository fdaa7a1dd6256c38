"""Predictions that do not change in the direction in which they would change most."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from acclimate.losses.precision import full


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """mean_i KL(softmax(teacher_i) || softmax(student_i)) of logits ``(N, K, *)``; no gradient reaches the teacher."""
    log_p, log_q = full(teacher).detach().log_softmax(1), full(student).log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def virtual_adversarial(
    predict: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor, radius: float = 3.5, xi: float = 1e-2
) -> Tensor:
    """mean_i KL(p(x_i) || p(x_i + r_i)), r_i = argmax_{||r|| <= radius} KL(p(x_i) || p(x_i + r)) by one power step.

    r = radius g / ||g||, g = grad_d KL(p(x) || p(x + d)) at d = xi d0, where d0 is a random direction of length 1.

    Args:
        predict: images ``(N, C, H, W)`` to logits ``(N, K, *)``. It is called twice, with noise and dropout of its own if
            it has any; batch statistics shall not move while it runs (:func:`acclimate.networks.norm.held`).
        x: images.
        logits: of ``x``; the reference, through which no gradient flows.
        radius: Euclidean length of r_i over a whole image, in units of ``x``.
        xi: step of the finite difference. The papers' 1e-6 is lost in float32, where x + d rounds to x: the direction is
            then mostly rounding error. Autocast is left while the direction is sought, for the same reason.

    Miyato et al., TPAMI 2019, algorithm 1; one power step and 3.5 as in Shu et al., ICLR 2018.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = full(x)
        d = (xi * _unit(torch.randn_like(x))).requires_grad_()
        with torch.enable_grad():
            (g,) = torch.autograd.grad(divergence(logits, predict(x + d)), d)
    return divergence(logits, predict(x + radius * _unit(g)))


def _unit(x: Tensor) -> Tensor:
    """Each image scaled to Euclidean length 1; an image of zeros stays."""
    tiny, ones = torch.finfo(x.dtype).tiny, [1] * (x.ndim - 1)
    x = x / x.abs().flatten(1).amax(1).clamp_min(tiny).view(-1, *ones)  # or the squares of 1e-20 would vanish
    return x / x.flatten(1).norm(dim=1).clamp_min(tiny).view(-1, *ones)
