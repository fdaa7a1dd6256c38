"""The labels and regularisers of CRST against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import entr, softmax

from acclimate.losses.soft_labels import entropy_soft_labels, negative_entropy, soft_cross_entropy, squared_norm

ALPHA = 0.25


def example() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(40, 4, 2, dtype=torch.float64).mul(2).softmax(1), torch.tensor([0.9, 0.6, 0.4, 0.95]).double()


def ratios(p: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    return p.log() - thresholds.log()[:, None]


def test_soft_labels_minimise_their_objective() -> None:
    """Against a numerical minimum over the simplex."""
    p, thresholds = example()
    found, _ = entropy_soft_labels(ratios(p, thresholds), ALPHA)
    for i in range(8):
        ratio = np.log(p[i, :, 0].numpy() / thresholds.numpy())

        def cost(z: np.ndarray, ratio: np.ndarray = ratio) -> float:
            y = softmax(z)
            return float(-(y * ratio).sum() - ALPHA * entr(y).sum())

        best = softmax(minimize(cost, np.zeros(4), tol=1e-12).x)
        assert found[i, :, 0].numpy() == pytest.approx(best, abs=1e-4)


def test_soft_labels_are_kept_where_a_label_costs_less_than_none() -> None:
    """The rule in its own words: -sum y log p + alpha sum y log y < -sum y log t."""
    p, thresholds = example()
    y, kept = entropy_soft_labels(ratios(p, thresholds), ALPHA)
    rows, labels = p.movedim(1, -1).numpy(), y.movedim(1, -1).numpy()
    left = -(labels * np.log(rows)).sum(-1) - ALPHA * entr(labels).sum(-1)
    right = -(labels * np.log(thresholds.numpy())).sum(-1)
    assert kept.tolist() == (left < right).tolist()
    assert 0.1 < kept.double().mean() < 0.9


def test_soft_cross_entropy_and_regularisers_equal_numpy() -> None:
    torch.manual_seed(1)
    zs, counts = torch.randn(3, 4, 5, 2, dtype=torch.float64), torch.rand(3, 5, 2) > 0.4
    ys = torch.randn(3, 4, 5, 2, dtype=torch.float64).softmax(1)
    p, y = softmax(zs.numpy(), 1), ys.numpy()
    chosen = counts.numpy()
    assert soft_cross_entropy(zs, ys, counts).item() == pytest.approx(-(y * np.log(p)).sum(1)[chosen].mean())
    assert negative_entropy(zs, counts).item() == pytest.approx(-entr(p).sum(1)[chosen].mean())
    assert squared_norm(zs, counts).item() == pytest.approx((p**2).sum(1)[chosen].mean())


@pytest.mark.parametrize("loss", [negative_entropy, squared_norm, lambda z, c: soft_cross_entropy(z, z.softmax(1), c)])
def test_no_pixel_costs_nothing_and_the_gradient_is_right(loss) -> None:
    zs = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    nothing = loss(zs, torch.zeros(2, 4, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(zs.grad, torch.zeros_like(zs))  # type: ignore[arg-type]
    counts = torch.rand(2, 4) > 0.3
    fixed = zs.detach().softmax(1)
    checked = loss if loss in (negative_entropy, squared_norm) else lambda z, c: soft_cross_entropy(z, fixed, c)
    assert torch.autograd.gradcheck(lambda z: checked(z, counts), zs)
    assert loss(zs.detach().to(torch.float16), counts).dtype == torch.float32
