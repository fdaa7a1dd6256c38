"""Adversarial losses against PyTorch, their theorems and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from acclimate.losses import critic_loss, domain_cross_entropy, fooling_loss
from acclimate.losses.gan import Form

FORMS: tuple[Form, ...] = ("vanilla", "least-squares")
PURE = {"vanilla": functional.binary_cross_entropy_with_logits, "least-squares": functional.mse_loss}
form = pytest.mark.parametrize("form", FORMS)


@form
def test_equals_the_loss_of_pytorch_with_targets_one_and_zero(form: Form) -> None:
    real, fake = torch.randn(5, 1), torch.randn(9, 1)
    truth = PURE[form](real, torch.ones(5, 1)) + PURE[form](fake, torch.zeros(9, 1))
    torch.testing.assert_close(critic_loss(real, fake, form), truth / 2)
    torch.testing.assert_close(fooling_loss(fake, form), PURE[form](fake, torch.ones(9, 1)))


def test_critic_of_images_is_the_critic_of_domains() -> None:
    real, fake = torch.randn(5, 1), torch.randn(9, 1)
    torch.testing.assert_close(critic_loss(real, fake), domain_cross_entropy(real, fake))


@form
def test_sides_weigh_the_same_whatever_their_sizes(form: Form) -> None:
    real, fake = torch.tensor([0.3, -1.0]), torch.tensor([2.0])
    torch.testing.assert_close(critic_loss(real, fake, form), critic_loss(real, fake.repeat(100), form))


@form
def test_best_critic_costs_what_the_theorem_says(form: Form) -> None:
    """Over three symbols: log 2 - JSD (Goodfellow et al., theorem 1); sum p q / (p + q) (Mao et al., eq. 5)."""
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    best = (p / q).log() if form == "vanilla" else p / (p + q)
    real, fake = (torch.repeat_interleave(best, (share * 4).long()) for share in (p, q))
    mean = (p + q) / 2
    jsd = ((p * (p / mean).log()).sum() + (q * (q / mean).log()).sum()) / 2
    least = math.log(2) - jsd if form == "vanilla" else (p * q / (p + q)).sum() / 2
    assert critic_loss(real, fake, form).item() == pytest.approx(float(least), rel=1e-5)
    for moved in (best + 0.1, best - 0.1, 1.2 * best):
        real, fake = (torch.repeat_interleave(moved, (share * 4).long()) for share in (p, q))
        assert critic_loss(real, fake, form) > least


@form
def test_gradient_of_the_opponent_does_not_vanish_where_the_critic_wins(form: Form) -> None:
    fake = torch.tensor([-50.0], requires_grad=True)
    fooling_loss(fake, form).backward()
    assert fake.grad.item() <= -1 + 1e-6  # type: ignore[union-attr]  # of log(1 - D) it would be -exp(-50)


@form
def test_finite_at_the_extremes_and_in_float32(form: Form) -> None:
    d = torch.tensor([6e4, -6e4], dtype=torch.float16, requires_grad=True)
    for loss in (critic_loss(d[:1], d[1:], form), critic_loss(d[1:], d[:1], form), fooling_loss(d, form)):
        assert loss.dtype == torch.float32
        assert loss.isfinite()
    with torch.autocast("cpu", torch.bfloat16):
        assert fooling_loss(d.bfloat16(), form).dtype == torch.float32


@form
def test_passes_a_gradient_check(form: Form) -> None:
    d = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: critic_loss(d[:2], d[2:], form), d)
    assert torch.autograd.gradcheck(lambda d: fooling_loss(d, form), d)
