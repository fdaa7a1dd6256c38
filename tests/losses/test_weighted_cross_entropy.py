"""Cross-entropy with trust, against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from acclimate.losses import cross_entropy, weighted_cross_entropy


def sample(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels (a fifth of them ignored) and weights of 3 maps of 4 x 5 positions and 3 classes."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((3, 4, 5)) < 0.2, -1, rng.integers(0, 3, (3, 4, 5)))
    return (
        torch.from_numpy(3 * rng.standard_normal((3, 3, 4, 5))),
        torch.from_numpy(labels),
        torch.rand(3, 4, 5).double(),
    )


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_weighted_sum_is_divided_by_the_number_of_labels(seed: int) -> None:
    z, y, w = sample(seed)
    total, n = 0.0, 0
    log_p = log_softmax(z.numpy(), axis=1)
    for i, row, column in np.ndindex(*y.shape):
        if (label := int(y[i, row, column])) >= 0:
            total -= float(w[i, row, column]) * log_p[i, label, row, column]
            n += 1
    assert weighted_cross_entropy(z, y, w).item() == pytest.approx(total / n, rel=1e-12)


def test_it_is_scikit_learns_loss_times_the_mean_weight() -> None:
    z, y, w = sample(1)
    known = y >= 0
    p = z.softmax(1).movedim(1, -1)[known].numpy()
    expected = log_loss(y[known].numpy(), p, sample_weight=w[known].numpy()) * w[known].mean().item()
    assert weighted_cross_entropy(z, y, w).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("q", [0.0, 0.3, 1.0])
def test_one_weight_for_all_scales_the_plain_loss(q: float) -> None:
    """Divided by the sum of the weights, q would cancel."""
    z, y, _ = sample(2)
    weighted = weighted_cross_entropy(z, y, torch.full(y.shape, q))
    assert weighted.item() == pytest.approx(q * cross_entropy(z, y).item())


def test_labels_that_are_ignored_or_weigh_nothing_have_no_gradient() -> None:
    z, y, w = sample(3)
    w[0] = 0
    z.requires_grad_()
    weighted_cross_entropy(z, y, w).backward()
    norms = z.grad.norm(dim=1)  # type: ignore[union-attr]
    assert torch.equal(norms > 0, (y >= 0) & (w > 0))


def test_nothing_labelled_costs_nothing() -> None:
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = weighted_cross_entropy(z, torch.full((2, 4, 4), -1), torch.ones(2, 4, 4))
    loss.backward()
    assert loss == 0
    assert (z.grad == 0).all()  # type: ignore[union-attr]


def test_gradient_is_right_and_weights_get_none() -> None:
    z, y, w = sample(4)
    assert torch.autograd.gradcheck(lambda z: weighted_cross_entropy(z, y, w), z.requires_grad_())
    w.requires_grad_()
    weighted_cross_entropy(z, y, w).backward()
    assert w.grad is None


def test_halves_are_summed_in_float32() -> None:
    z, y, w = (
        torch.zeros(2, 2, 300, 300, dtype=torch.float16),
        torch.zeros(2, 300, 300, dtype=torch.long),
        torch.ones(2, 300, 300),
    )
    loss = weighted_cross_entropy(z, y, w)  # the sum, 124,766, is above the largest float16
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 1), (3, 1, 1), (4, 5)])
def test_shapes_that_would_broadcast_are_refused(shape: tuple[int, ...]) -> None:
    z, y, _ = sample(5)
    with pytest.raises(ValueError, match="one weight to each position"):
        weighted_cross_entropy(z, y, torch.ones(shape))
