"""Entropies against SciPy, hand values and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from torch.nn import functional

from acclimate.losses import entropy, marginal_entropy

SHAPES = [(6, 4), (3, 4, 5, 7), (2, 4, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_entropies_equal_scipy(shape: tuple[int, ...]) -> None:
    zs = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = zs.softmax(1).movedim(1, -1).flatten(0, -2).numpy()
    assert entropy(zs).item() == pytest.approx(scipy_entropy(p, axis=1).mean(), rel=1e-12)
    assert marginal_entropy(zs).item() == pytest.approx(scipy_entropy(p.mean(0)), rel=1e-12)


def test_entropies_of_predictions_by_hand() -> None:
    """Two sure predictions of two of three classes: no entropy each, log 2 together. (3/4, 1/4): 2 log 2 - 3/4 log 3."""
    sure = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    assert entropy(sure).item() == pytest.approx(0, abs=1e-12)
    assert marginal_entropy(sure).item() == pytest.approx(math.log(2), rel=1e-6)
    unsure = torch.tensor([[math.log(3.0), 0.0]])
    assert entropy(unsure).item() == pytest.approx(2 * math.log(2) - 0.75 * math.log(3), rel=1e-6)


def test_undecided_predictions_have_the_largest_entropy() -> None:
    assert entropy(torch.zeros(3, 5)).item() == pytest.approx(math.log(5))
    assert marginal_entropy(torch.zeros(3, 5)).item() == pytest.approx(math.log(5))


def test_entropies_pass_a_gradient_check() -> None:
    torch.manual_seed(0)
    zs = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy, zs)
    assert torch.autograd.gradcheck(marginal_entropy, zs)


def test_descent_makes_predictions_surer_and_more_diverse() -> None:
    torch.manual_seed(0)
    zs = (0.1 * torch.randn(12, 3) + torch.tensor([0.5, 0.0, 0.0])).requires_grad_()  # all a little for the first class
    optimiser = torch.optim.Adam([zs], 0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (entropy(zs) - marginal_entropy(zs)).backward()
        optimiser.step()
    assert functional.one_hot(zs.argmax(1), 3).sum(0).min() >= 3
    assert zs.softmax(1).amax(1).min() > 0.95


@given(
    values=st.lists(st.floats(-65504, 65504, width=16), min_size=6, max_size=6),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    loss=st.sampled_from([entropy, marginal_entropy]),
)
@settings(max_examples=80, deadline=None)
def test_entropies_are_finite_at_the_extremes(values: list[float], dtype: torch.dtype, loss: object) -> None:
    zs = torch.tensor(values).view(2, 3).to(dtype).requires_grad_()
    value = loss(zs)  # type: ignore[operator]
    value.backward()
    assert value.dtype == torch.float32
    assert -1e-6 <= value <= math.log(3) + 1e-5
    assert zs.grad.isfinite().all()  # type: ignore[union-attr]
