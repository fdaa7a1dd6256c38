"""The Charbonnier entropy against SciPy, hand values and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from acclimate.losses import charbonnier_entropy, entropy


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 7)])
@pytest.mark.parametrize("eta", [0.5, 1.5, 2.0])
def test_equals_the_formula_on_entropies_of_scipy(shape: tuple[int, ...], eta: float) -> None:
    zs = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = zs.softmax(1).movedim(1, -1).flatten(0, -2).numpy()
    h = scipy_entropy(p, axis=1, base=4)
    assert charbonnier_entropy(zs, eta).item() == pytest.approx(((h**2 + 1e-6) ** eta).mean(), rel=1e-12)


def test_by_hand() -> None:
    """Undecided between two or nineteen classes: (1 + 1e-6)^2. Sure: 1e-12. (3/4, 1/4): log_2 4 - 3/4 log_2 3, to the fourth."""
    for classes in (2, 19):
        assert charbonnier_entropy(torch.zeros(2, classes, 3, 3)).item() == pytest.approx(1, abs=3e-6)
    assert charbonnier_entropy(torch.tensor([[60.0, 0.0]], dtype=torch.float64)).item() == pytest.approx(1e-12)
    h = 2 - 0.75 * math.log2(3)
    assert charbonnier_entropy(torch.tensor([[math.log(3.0), 0.0]])).item() == pytest.approx(h**4, rel=1e-5)


def test_eta_of_a_half_is_the_mean_entropy_in_units_of_its_largest() -> None:
    zs = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(charbonnier_entropy(zs, 0.5, 0.0), entropy(zs) / math.log(3))


def test_undecided_predictions_count_more_than_in_the_entropy() -> None:
    zs = torch.tensor([[0.5, 0.0], [3.0, 0.0]], requires_grad=True)
    shares = []
    for loss in (charbonnier_entropy, entropy):
        (gradient,) = torch.autograd.grad(loss(zs), zs)
        shares.append((gradient[1].norm() / gradient[0].norm()).item())
    assert shares[0] < shares[1]


def test_gradient() -> None:
    zs = torch.randn(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(charbonnier_entropy, (zs,))


def test_sure_predictions_of_half_precision_have_a_finite_gradient() -> None:
    zs = torch.tensor([[200.0, -200.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = charbonnier_entropy(zs)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, zs)
    assert torch.isfinite(gradient).all()
