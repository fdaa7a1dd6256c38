"""Class confusion against the paper's matrices in NumPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from acclimate.selection.mcc import mcc


def matrices(zt: torch.Tensor, temperature: float) -> float:
    """As printed: rescaled predictions, weights, correlation, rows to sum 1, what is off the diagonal."""
    p = np.exp(zt.double().numpy() / temperature)
    p /= p.sum(1, keepdims=True)
    rows, classes = p.shape
    entropies = -(p * np.log(p)).sum(1)
    weights = np.diag(rows * (1 + np.exp(-entropies)) / (1 + np.exp(-entropies)).sum())
    correlation = p.T @ weights @ p
    correlation /= correlation.sum(1, keepdims=True)
    return float((correlation.sum() - np.trace(correlation)) / classes)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("rows", "classes"), [(70, 5), (3, 8), (1, 4)])
def test_it_is_the_papers_matrices(rows: int, classes: int, temperature: float) -> None:
    zt = 4 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))
    assert mcc(zt, temperature) == pytest.approx(matrices(zt, temperature), rel=1e-10)
    assert mcc(zt) == mcc(zt, 2.5)


def test_by_hand() -> None:
    """(3/4, 1/4) and (1/4, 3/4) weigh the same: C is (10, 6; 6, 10) / 16, off the diagonal 6/16 in both rows."""
    zt = 2.5 * torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    assert mcc(zt) == pytest.approx(3 / 8, rel=1e-6)


def test_weights_by_hand() -> None:
    """(1, 0) and (1/2, 1/2) weigh 2 : 3/2. C is (2 + 3/8, 3/8; 3/8, 3/8): 3/22 and 1/2 off the diagonal, mean 7/22."""
    assert mcc(torch.tensor([[1e4, 0.0], [0.0, 0.0]])) == pytest.approx(7 / 22, rel=1e-9)


def test_its_ends() -> None:
    """Sure of every class: 0. The same prediction everywhere, sure or not, even where the others underflow: 1 - 1/K."""
    assert mcc(1e4 * torch.eye(4).repeat(3, 1)) == 0
    for row in ([0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0], [1e4, 0.0, -50.0, -1e4]):
        assert mcc(torch.tensor([row]).repeat(7, 1)) == pytest.approx(3 / 4, rel=1e-12)


def test_a_class_that_nobody_predicts_counts_as_confused() -> None:
    """Two sure classes of three; the third row of C is what (1, 0, x) and (0, 1, x) leave as x vanishes."""
    zt = torch.tensor([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0]])
    assert mcc(zt) == pytest.approx(1 / 3, rel=1e-12)
    assert mcc(zt / 1e3) == pytest.approx(matrices(zt / 1e3, 2.5), rel=1e-9)
