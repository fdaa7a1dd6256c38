"""The soft Dice loss by hand, against a plain loop, and by finite differences."""

from __future__ import annotations

import pytest
import torch

from acclimate.losses import soft_dice


def test_value_by_hand() -> None:
    """Overlap 0.8 + 0.1, predicted 1.6, truth 2: 1 - (1.8 + 1) / (1.6 + 2 + 1)."""
    p = torch.tensor([[[[0.8, 0.5], [0.1, 0.2]]]])
    y = torch.tensor([[[1, 0], [1, 0]]])
    assert soft_dice(p, y).item() == pytest.approx(1 - 2.8 / 4.6)


def test_empty_mask_predicted_empty_costs_nothing_and_a_perfect_one_neither() -> None:
    assert soft_dice(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)).item() == 0
    y = torch.randint(0, 2, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    assert soft_dice(y[:, None].float(), y).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(1 - y[:, None].float(), y).item() == pytest.approx(1 - 1 / 33)


def test_equals_a_loop_over_the_pixels_that_count() -> None:
    """Three classes, two images pooled; each foreground class is an ordinary binary Dice."""
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64).softmax(1)[:, 1:]
    y = torch.randint(-1, 3, (2, 5, 7), generator=generator)
    losses = []
    for k in (1, 2):
        overlap = predicted = truth = 0.0
        for n in range(2):
            for i in range(5):
                for j in range(7):
                    if y[n, i, j] >= 0:
                        value, is_k = p[n, k - 1, i, j].item(), float(y[n, i, j] == k)
                        overlap, predicted, truth = overlap + value * is_k, predicted + value, truth + is_k
        losses.append(1 - (2 * overlap + 0.5) / (predicted + truth + 0.5))
    assert soft_dice(p, y, smoothing=0.5).item() == pytest.approx(sum(losses) / 2, rel=1e-12)


def test_ignored_pixels_get_no_gradient() -> None:
    p = torch.full((1, 1, 2, 2), 0.4, requires_grad=True)
    soft_dice(p, torch.tensor([[[1, -1], [0, -1]]])).backward()
    assert p.grad is not None
    assert (p.grad[0, 0] != 0).tolist() == [[True, False], [True, False]]
    q = torch.full((1, 2, 2, 2), 0.4, requires_grad=True)
    loss = soft_dice(q, torch.full((1, 2, 2), -1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(q.grad, torch.zeros_like(q))  # type: ignore[arg-type]


def test_gradient_and_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(2, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0, 1, 2], [-1, 2, 0]])
    assert torch.autograd.gradcheck(lambda p: soft_dice(p, y), p)
    half = soft_dice(p.detach().bfloat16(), y)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(soft_dice(p.detach(), y).item(), abs=0.01)
