"""The pull of a class-wise memory against a double loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.losses import memory_contrast


def by_double_loop(vectors: Tensor, scores: Tensor, memory: Tensor, memory_scores: Tensor) -> float:
    """The three formulas of the paper, pair by pair, in NumPy; places with score 0 hold no vector."""
    loss = 0.0
    for c in range(len(vectors)):
        mine = [i for i in range(vectors.shape[1]) if scores[c, i] > 0]
        kept = [j for j in range(memory.shape[1]) if memory_scores[c, j] > 0]
        attention = sum(float(scores[c, i]) for i in mine), sum(float(memory_scores[c, j]) for j in kept)
        for i in mine:
            for j in kept:
                p, z = vectors[c, i].numpy(), memory[c, j].numpy()
                w_p = len(mine) * float(scores[c, i]) / attention[0]
                w_z = len(kept) * float(memory_scores[c, j]) / attention[1]
                cosine = float(p @ z / np.linalg.norm(p) / np.linalg.norm(z))
                loss += w_p * w_z * (1 - cosine) / len(mine) / len(kept)
    return loss / len(vectors)


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four classes: both sides, no vector of the student, none in the memory, a single one on either side."""
    torch.manual_seed(0)
    vectors, memory = torch.randn(4, 5, 3, dtype=dtype), torch.randn(4, 6, 3, dtype=dtype)
    scores, memory_scores = torch.rand(4, 5, dtype=dtype) + 0.1, torch.rand(4, 6, dtype=dtype) + 0.1
    scores[0, 3:], scores[1], memory_scores[2] = 0, 0, 0
    scores[3, 1:], memory_scores[3, :-1] = 0, 0
    return vectors, scores, memory, memory_scores


def test_contrast_equals_a_double_loop() -> None:
    parts = example()
    assert memory_contrast(*parts).item() == pytest.approx(by_double_loop(*parts), rel=1e-12)


def test_contrast_by_hand() -> None:
    """Opposite vectors cost 2, orthogonal ones 1; attention 3 : 1 gives (3 * 2 + 1) / 4; the second class is absent."""
    vectors = torch.tensor([[[0.0, -5.0], [2.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]])
    scores, memory = torch.tensor([[0.75, 0.25], [0.0, 0.0]]), torch.tensor([[[0.0, 0.1]], [[1.0, 0.0]]])
    assert memory_contrast(vectors, scores, memory, torch.ones(2, 1)).item() == pytest.approx(1.75 / 2)


def test_classes_without_a_vector_have_no_gradient() -> None:
    vectors, scores, memory, memory_scores = (part.requires_grad_() for part in example())
    memory_contrast(vectors, scores, memory, memory_scores).backward()
    assert memory.grad is None
    for value in (vectors, scores):
        assert value.grad is not None
        assert value.grad.isfinite().all()
        assert torch.equal(value.grad[1:3], torch.zeros_like(value.grad[1:3]))
        assert value.grad[0].norm() > 0


def test_nothing_at_all_costs_nothing() -> None:
    vectors = torch.zeros(2, 3, 4, requires_grad=True)
    loss = memory_contrast(vectors, torch.zeros(2, 3), torch.zeros(2, 5, 4), torch.zeros(2, 5))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(vectors.grad, torch.zeros(2, 3, 4))  # type: ignore[arg-type]


def test_contrast_passes_a_gradient_check_and_computes_in_float32() -> None:
    vectors, scores, memory, memory_scores = example()
    there, known = scores > 0, memory_scores > 0
    assert torch.autograd.gradcheck(
        lambda v, s, m: memory_contrast(v, s * there, memory, m * known),
        (vectors.requires_grad_(), scores.requires_grad_(), memory_scores.requires_grad_()),
    )
    low = [part.detach().to(torch.bfloat16) for part in (vectors, scores, memory, memory_scores)]
    found = memory_contrast(*low)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(by_double_loop(*(part.double() for part in low)), abs=1e-6)
