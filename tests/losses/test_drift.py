"""Distances and overlaps of weights against NumPy, hand values and finite differences."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.errors import UsageError
from acclimate.losses import weight_drift, weight_overlap


def moved(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).to(dtype)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    return net, other


def test_drift_is_the_squared_distance_of_all_weights() -> None:
    net, other = moved()
    pairs = [(a.detach().numpy(), b.detach().numpy()) for a, b in zip(net.parameters(), other.parameters())]
    flat = np.concatenate([(a - b).ravel() for a, b in pairs])
    assert weight_drift(net, other).item() == pytest.approx(float(np.linalg.norm(flat) ** 2))
    means = [float(np.mean((a - b) ** 2)) for a, b in pairs]
    assert weight_drift(net, other, "mean").item() == pytest.approx(sum(means))
    assert weight_drift(net, net).item() == 0


def test_drift_pulls_towards_the_reference_and_leaves_it_alone() -> None:
    net, other = moved()
    weight_drift(net, other).backward()
    for mine, theirs in zip(net.parameters(), other.parameters()):
        torch.testing.assert_close(mine.grad, 2 * (mine - theirs).detach())
        assert theirs.grad is None


def test_drift_refuses_modules_of_different_structure() -> None:
    with pytest.raises(ValueError, match="shorter"):
        weight_drift(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))


def test_overlap_has_the_value_of_its_formula() -> None:
    """W1^T W2 = [[1, -2], [7, -7]], whose columns have the absolute sums 8 and 9."""
    w1, w2 = torch.tensor([[1.0, 3.0], [0.0, 1.0]]), torch.tensor([[1.0, -2.0], [4.0, -1.0]])
    assert (w1.numpy().T @ w2.numpy()).tolist() == [[1, -2], [7, -7]]
    assert weight_overlap(w1, w2).item() == (8 + 9) / 2


def test_overlap_is_zero_where_each_unit_reads_for_one_classifier_only() -> None:
    w1, w2 = torch.randn(4, 5), torch.randn(4, 5)
    w1[:2], w2[2:] = 0, 0
    assert weight_overlap(w1, w2).item() == 0
    assert weight_overlap(w2, w2).item() > 0


def test_overlap_counts_places_of_a_kernel_as_features() -> None:
    w1, w2 = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)
    torch.testing.assert_close(weight_overlap(w1, w2), weight_overlap(w1.flatten(1), w2.flatten(1)))


def test_overlap_is_computed_in_float32() -> None:
    w = torch.full((8, 4), 100.0, dtype=torch.float16)
    assert weight_overlap(w, w).item() == 4 * 8e4  # each product is beyond float16
    with torch.autocast("cpu", torch.bfloat16):
        assert weight_overlap(w.float(), w.float()).dtype == torch.float32


def test_overlap_refuses_layers_that_read_different_features() -> None:
    with pytest.raises(UsageError, match="same shape"):
        weight_overlap(torch.randn(4, 5), torch.randn(4, 6))


def test_both_pass_a_gradient_check() -> None:
    net, other = moved()
    weights = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: weight_overlap(w[0], w[1]), weights)

    def drift(*values: torch.Tensor) -> torch.Tensor:
        named = dict(zip((name for name, _ in net.named_parameters()), values))
        holder = copy.deepcopy(net)
        for name, value in named.items():
            module, _, leaf = name.rpartition(".")
            del holder.get_submodule(module)._parameters[leaf]
            holder.get_submodule(module)._parameters[leaf] = value  # type: ignore[assignment]
        return weight_drift(holder, other, "mean")

    values = tuple(p.detach().clone().requires_grad_() for p in net.parameters())
    assert torch.autograd.gradcheck(drift, values)
