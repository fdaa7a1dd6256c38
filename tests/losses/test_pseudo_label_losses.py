"""Symmetric cross-entropy, distillation and uniformity against NumPy, SciPy and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor

from acclimate.losses import cross_entropy, distillation, divergence, symmetric_cross_entropy, uniformity


def made(dtype: torch.dtype = torch.float32, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, other logits, labels with ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    zs, other = (scale * torch.randn(3, 4, 5, 6, generator=generator, dtype=dtype) for _ in range(2))
    return zs, other, torch.randint(-1, 4, (3, 5, 6), generator=generator)


def rows(zs: Tensor) -> np.ndarray:
    return zs.double().movedim(1, -1).reshape(-1, zs.shape[1]).numpy()


# -- symmetric cross-entropy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "beta", "scale"), [(0.1, 1.0, 2.0), (1.0, 0.0, 2.0), (0.0, 1.0, 30.0)])
def test_symmetric_cross_entropy_is_both_directions(alpha: float, beta: float, scale: float) -> None:
    zs, _, ys = made(scale=scale)
    counts = (ys >= 0).flatten().numpy()
    p, y = softmax(rows(zs), 1)[counts], np.eye(4)[ys.flatten().numpy()[counts]]
    forward = -(y * np.log(np.clip(p, 1e-30, 1))).sum(1)
    backward = -(np.clip(p, 1e-7, 1) * np.log(np.clip(y, 1e-4, 1))).sum(1)
    expected = (alpha * forward + beta * backward).mean()
    assert symmetric_cross_entropy(zs, ys, alpha, beta).item() == pytest.approx(expected, rel=1e-5)


def test_symmetric_cross_entropy_has_the_value_of_its_formula() -> None:
    found = symmetric_cross_entropy(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0]))
    assert found.item() == pytest.approx(0.1 * math.log(4 / 3) + 0.25 * math.log(1e4), rel=1e-6)


def test_a_wrong_label_costs_a_bounded_amount_in_the_reverse_direction() -> None:
    sure = torch.tensor([[100.0, 0.0, 0.0]])
    assert symmetric_cross_entropy(sure, torch.tensor([1]), alpha=0).item() == pytest.approx(math.log(1e4), rel=1e-5)
    assert cross_entropy(sure, torch.tensor([1])).item() == pytest.approx(100)


# -- distillation -----------------------------------------------------------------------------------------------------


def test_distillation_is_the_divergence_of_scipy() -> None:
    """Of the student's logarithms: the released code of ProDA puts probabilities in their place, which is no divergence."""
    teacher, student, ys = made()
    counts = ys >= 0
    p, q = softmax(rows(teacher), 1), softmax(rows(student), 1)
    expected = rel_entr(p, q).sum(1)[counts.flatten().numpy()].mean()
    found = distillation(teacher, student, counts)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    quirk = torch.nn.functional.kl_div(student.softmax(1), teacher.softmax(1), reduction="none").sum(1)[counts].mean()
    assert abs(quirk.item() - expected) > 0.1


def test_distillation_of_oneself_is_nothing_and_never_negative() -> None:
    teacher, student, ys = made()
    everywhere = torch.ones_like(ys, dtype=torch.bool)
    assert distillation(teacher, teacher, everywhere).item() == pytest.approx(0, abs=1e-7)
    assert distillation(teacher, student, everywhere) > 0
    torch.testing.assert_close(distillation(teacher, student, everywhere), divergence(teacher, student))


def test_no_gradient_reaches_the_teacher() -> None:
    teacher, student, ys = made()
    teacher.requires_grad_()
    student.requires_grad_()
    distillation(teacher, student, ys >= 0).backward()
    assert teacher.grad is None
    counted = (student.grad != 0).any(1)  # type: ignore[union-attr]
    assert torch.equal(counted, ys >= 0)


# -- uniformity -------------------------------------------------------------------------------------------------------


def test_uniformity_is_the_divergence_from_uniform_and_log_k() -> None:
    zs, _, ys = made()
    p = softmax(rows(zs), 1)
    expected = rel_entr(np.full_like(p, 0.25), p).sum(1)[(ys >= 0).flatten().numpy()].mean() + math.log(4)
    assert uniformity(zs, ys >= 0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("p", "value"), [((0.8, 0.1, 0.05, 0.05), 3.6989), ((0.25, 0.25, 0.25, 0.25), 2.4082)])
def test_uniformity_has_worked_values(p: tuple[float, ...], value: float) -> None:
    """Two predictions worked out in decimal logarithms, as a sum over the classes."""
    zs = torch.tensor(p).log()[None]
    assert 4 * uniformity(zs, torch.tensor([True])).item() / math.log(10) == pytest.approx(value, abs=1e-3)


# -- all --------------------------------------------------------------------------------------------------------------

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "symmetric": symmetric_cross_entropy,
    "distillation": lambda zs, ys: distillation(made(zs.dtype)[1][: len(zs)], zs, ys >= 0),
    "uniformity": lambda zs, ys: uniformity(zs, ys >= 0),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_nothing_that_counts_costs_nothing(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    zs, _, ys = made()
    zs.requires_grad_()
    found = loss(zs, torch.full_like(ys, -1))
    found.backward()
    assert found.item() == 0
    assert torch.equal(zs.grad, torch.zeros_like(zs))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_those_of_finite_differences(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    zs, _, ys = made(torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, ys[:1]), zs[:1].requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_half_precision_is_computed_in_full(loss: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    zs, _, ys = made(scale=1e4)
    zs = zs.to(dtype).requires_grad_()
    found = loss(zs, ys)
    found.backward()
    assert found.dtype == torch.float32
    assert found.isfinite()
    assert zs.grad.isfinite().all()  # type: ignore[union-attr]
