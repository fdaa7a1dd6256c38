"""The nuclear norm of predictions against eigenvalues in NumPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.selection.bnm import bnm


@pytest.mark.parametrize(("rows", "classes"), [(60, 5), (3, 8), (6, 6)])
def test_it_is_the_sum_of_roots_of_the_grams_eigenvalues(rows: int, classes: int) -> None:
    zt = 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = np.exp(zt.numpy()) / np.exp(zt.numpy()).sum(1, keepdims=True)
    gram = p.T @ p if rows > classes else p @ p.T
    expected = np.sqrt(np.linalg.eigvalsh(gram).clip(0)).sum() / math.sqrt(rows * min(rows, classes))
    assert bnm(zt) == pytest.approx(expected, rel=1e-9)


def test_by_hand() -> None:
    """(3/4, 1/4) and (1/4, 3/4) form a symmetric matrix with eigenvalues 1 and 1/2: 3/2 / sqrt(2 * 2)."""
    zt = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    assert bnm(zt) == pytest.approx(0.75, rel=1e-6)


def test_its_ends() -> None:
    """12 rows of 4 classes. Sure and even: 1. One class: sqrt(12) / sqrt(12 * 4). Undecided: half of that."""
    assert bnm(1e4 * torch.eye(4).repeat(3, 1)) == pytest.approx(1, rel=1e-12)
    assert bnm(torch.tensor([[1e4, 0.0, 0.0, 0.0]]).repeat(12, 1)) == pytest.approx(1 / 2, rel=1e-12)
    assert bnm(torch.zeros(12, 4)) == pytest.approx(1 / 4, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(2, 9), st.floats(0, 1e4), st.integers(0, 2**31))
def test_it_stays_within_its_bounds(rows: int, classes: int, scale: float, seed: int) -> None:
    zt = scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))
    least = 1 / math.sqrt(classes * min(rows, classes))  # ||P||_* >= ||P||_F >= sqrt(N / K)
    assert least * (1 - 1e-9) <= bnm(zt) <= 1
