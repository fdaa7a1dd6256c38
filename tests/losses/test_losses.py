"""Losses against PyTorch, closed forms and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from acclimate.losses import cross_entropy, dann_ramp, domain_accuracy, domain_cross_entropy, reverse

SHAPES = [((6, 4), (6,)), ((3, 4, 5, 7), (3, 5, 7)), ((2, 4, 9), (2, 9))]


@pytest.mark.parametrize(("logits", "labels"), SHAPES)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_cross_entropy_equals_torch(logits: tuple[int, ...], labels: tuple[int, ...], last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    zs = torch.randn(logits, generator=generator)
    if last and zs.ndim == 4:
        zs = zs.contiguous(memory_format=torch.channels_last)
    ys = torch.randint(-1, 4, labels, generator=generator)
    mine, theirs = (zs.clone().requires_grad_() for _ in range(2))
    a = cross_entropy(mine, ys)
    b = functional.cross_entropy(theirs, ys, ignore_index=-1)
    torch.testing.assert_close(a, b)
    a.backward()
    b.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_cross_entropy_has_the_value_of_its_formula() -> None:
    assert cross_entropy(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])).item() == pytest.approx(
        math.log(4 / 3)
    )


@pytest.mark.parametrize(("logits", "labels"), SHAPES)
def test_cross_entropy_without_labels_is_zero_with_zero_gradient(logits: tuple, labels: tuple) -> None:
    zs = torch.randn(logits, requires_grad=True)
    loss = cross_entropy(zs, torch.full(labels, -1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(zs.grad, torch.zeros(logits))  # type: ignore[arg-type]


@given(
    values=st.lists(st.floats(-65504, 65504, width=16), min_size=6, max_size=6),
    labels=st.lists(st.integers(-1, 2), min_size=2, max_size=2),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
@settings(max_examples=60, deadline=None)
def test_cross_entropy_is_finite_at_the_extremes(values: list[float], labels: list[int], dtype: torch.dtype) -> None:
    zs = torch.tensor(values).view(2, 3).to(dtype).requires_grad_()
    loss = cross_entropy(zs, torch.tensor(labels))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert loss >= 0
    assert zs.grad.isfinite().all()  # type: ignore[union-attr]


def test_losses_keep_float64_and_pass_a_gradient_check() -> None:
    torch.manual_seed(0)
    zs = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    ys = torch.tensor([[0, 1], [2, -1], [-1, 0], [1, 1]])
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, ys), zs)
    d = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: domain_cross_entropy(d[:2], d[2:]), d)


# -- domains ----------------------------------------------------------------------------------------------------------


def test_undecided_critic_costs_log_two() -> None:
    assert domain_cross_entropy(torch.zeros(3, 1), torch.zeros(9, 1)).item() == pytest.approx(math.log(2))


def test_best_critic_costs_log_two_minus_the_divergence() -> None:
    """Two domains over three symbols: the critic log p_s / p_t reaches log 2 - JSD (theorem 1 of Goodfellow et al.)."""
    ps, pt = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    best = (ps / pt).log()
    ds, dt = (torch.repeat_interleave(best, (p * 4).long()) for p in (ps, pt))
    mean = (ps + pt) / 2
    jsd = (ps * (ps / mean).log()).sum() / 2 + (pt * (pt / mean).log()).sum() / 2
    assert domain_cross_entropy(ds, dt).item() == pytest.approx(math.log(2) - jsd.item(), rel=1e-5)
    assert domain_cross_entropy(1.2 * ds, 1.2 * dt) > domain_cross_entropy(ds, dt)


def test_domains_weigh_the_same_whatever_their_sizes() -> None:
    ds, dt = torch.tensor([0.3, -1.0]), torch.tensor([2.0])
    torch.testing.assert_close(domain_cross_entropy(ds, dt), domain_cross_entropy(ds, dt.repeat(100)))
    assert domain_accuracy(torch.tensor([1.0, -1.0]), torch.tensor([-1.0] * 10)) == 0.75


@given(st.floats(-65504, 65504, width=16), st.floats(-65504, 65504, width=16))
@settings(max_examples=40, deadline=None)
def test_domain_loss_is_finite_at_the_extremes(a: float, b: float) -> None:
    d = torch.tensor([a, b], dtype=torch.float16, requires_grad=True)
    loss = domain_cross_entropy(d[:1], d[1:])
    loss.backward()
    assert loss.isfinite()
    assert d.grad.isfinite().all()  # type: ignore[union-attr]


def test_domain_loss_equals_binary_cross_entropy() -> None:
    ds, dt = torch.randn(7, 1), torch.randn(7, 1)
    every = torch.cat([ds, dt])
    truth = torch.cat([torch.ones(7, 1), torch.zeros(7, 1)])
    expected = functional.binary_cross_entropy_with_logits(every, truth)
    torch.testing.assert_close(domain_cross_entropy(ds, dt), expected)


# -- reversal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_reversal_is_the_identity_with_the_gradient_turned(weight: float) -> None:
    x = torch.randn(3, 2, requires_grad=True)
    out = reverse(x, weight)
    direction = torch.randn(3, 2)
    (out * direction).sum().backward()
    assert torch.equal(out, x)
    torch.testing.assert_close(x.grad, -weight * direction)


@pytest.mark.parametrize(("fraction", "value"), [(0.0, 0.0), (0.1, math.tanh(0.5)), (0.5, 0.98661), (1.0, 0.99991)])
def test_ramp_has_the_values_of_the_paper(fraction: float, value: float) -> None:
    assert dann_ramp(fraction) == pytest.approx(value, abs=5e-6)
