"""MMD, CORAL and classifier discrepancy against double loops, NumPy, scikit-learn, POT and hand values."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from acclimate.distances import mmd
from acclimate.errors import UsageError
from acclimate.losses import classifier_discrepancy, coral, multi_kernel_mmd

PAIRED = [multi_kernel_mmd, coral]
names = pytest.mark.parametrize("loss", PAIRED, ids=lambda loss: loss.__name__)


def gauss(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def two(n: int = 9, m: int = 6, d: int = 4) -> tuple[Tensor, Tensor]:
    """Two sets that differ in mean, scale and correlation."""
    return gauss(n, d, seed=1), gauss(m, d, seed=2) @ (torch.eye(d).double() + 0.4 * gauss(d, d, seed=3)) + 0.7


# -- MMD --------------------------------------------------------------------------------------------------------------


def mmd_by_loops(fs: np.ndarray, ft: np.ndarray, kernels: int) -> float:
    both = [*fs, *ft]
    apart = [float(((a - b) ** 2).sum()) for i, a in enumerate(both) for j, b in enumerate(both) if i != j]
    base = statistics.fmean(apart) / 2 ** (kernels // 2)

    def mean(xs: np.ndarray, ys: np.ndarray) -> float:
        values = [
            sum(math.exp(-float(((a - b) ** 2).sum()) / (base * 2**u)) for u in range(kernels)) for a in xs for b in ys
        ]
        return statistics.fmean(values)

    return mean(fs, fs) + mean(ft, ft) - 2 * mean(fs, ft)


@pytest.mark.parametrize("kernels", [1, 2, 5])
@pytest.mark.parametrize("size", [(9, 6, 4), (5, 5, 30), (2, 3, 1)])
def test_mmd_equals_a_double_loop(kernels: int, size: tuple[int, int, int]) -> None:
    fs, ft = two(*size)
    expected = mmd_by_loops(fs.numpy(), ft.numpy(), kernels)
    assert multi_kernel_mmd(fs, ft, kernels).item() == pytest.approx(expected, rel=1e-10)


def test_mmd_of_one_kernel_equals_that_of_scikit_learn_and_pot() -> None:
    """The mean of a matrix of kernels from one library, distances from another."""
    import ot
    from sklearn.metrics.pairwise import rbf_kernel

    fs, ft = (x.numpy() for x in two(20, 12, 3))
    both = np.concatenate([fs, ft])
    sigma = ot.dist(both, both).sum() / (32 * 31)
    k = rbf_kernel(both, both, gamma=1 / sigma)
    expected = k[:20, :20].mean() + k[20:, 20:].mean() - 2 * k[:20, 20:].mean()
    assert multi_kernel_mmd(*two(20, 12, 3), kernels=1).item() == pytest.approx(expected, rel=1e-10)


def test_mmd_of_two_pairs_of_points_by_hand() -> None:
    """0, 0 against 1, 1: squared distances 0 and 1, their mean over pairs 8 / 12, so k = exp(-3 / 2)."""
    zeros, ones = torch.zeros(2, 1), torch.ones(2, 1)
    assert multi_kernel_mmd(zeros, ones, 1).item() == pytest.approx(2 - 2 * math.exp(-1.5), rel=1e-6)


def test_mmd_is_biased_where_the_measure_of_a_data_set_is_not() -> None:
    """Mean over draws of equal distributions: about 2 (k(a, a) - E k) / n against 0."""
    draws = [(gauss(16, 3, seed=2 * i), gauss(16, 3, seed=2 * i + 1)) for i in range(200)]
    biased = [multi_kernel_mmd(fs, ft).item() / 5 for fs, ft in draws]
    unbiased = [mmd(fs, ft).item() for fs, ft in draws]
    assert min(biased) > 0 > min(unbiased)
    assert statistics.fmean(biased) > 0.03
    assert abs(statistics.fmean(unbiased)) < 3 * statistics.stdev(unbiased) / math.sqrt(200)


@pytest.mark.parametrize("distance", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_mmd_has_a_gradient_however_far_apart_the_domains_are(distance: float, unit: float) -> None:
    """One fixed narrow width would give exp(-distance^2) = 0, and a gradient of 0 with it."""
    fs = (unit * gauss(16, 8, seed=1, dtype=torch.float32)).requires_grad_()
    ft = unit * (gauss(16, 8, seed=2, dtype=torch.float32) + distance)
    fixed = (torch.exp(-torch.cdist(fs, ft).square() / unit**2)).mean()
    multi_kernel_mmd(fs, ft).backward()
    towards = (fs.grad * (ft - fs).detach()).sum(1)  # type: ignore[operator]
    if distance > 10:
        assert fixed == 0
        assert (towards < 0).all()  # descending brings every source sample nearer
        assert fs.grad.norm() * unit * distance > 0.01  # type: ignore[union-attr]  # per width, whatever the unit


def test_no_gradient_reaches_the_widths() -> None:
    """Scaling everything changes nothing, so a gradient through the widths would be orthogonal to the samples."""
    fs, ft = (x.requires_grad_() for x in two())
    multi_kernel_mmd(fs, ft).backward()
    centre = torch.cat([fs, ft]).detach().mean(0)
    radial = sum((x.grad * (x.detach() - centre)).sum() for x in (fs, ft))  # type: ignore[operator]
    assert abs(radial) > 0.01


@pytest.mark.parametrize("same", [0.0, 3e4])
def test_mmd_of_one_point_repeated_is_zero_and_finite(same: float) -> None:
    fs = torch.full((4, 3), same, requires_grad=True)
    loss = multi_kernel_mmd(fs, torch.full((4, 3), same))
    loss.backward()
    assert loss.item() == 0
    assert fs.grad.isfinite().all()  # type: ignore[union-attr]


def test_mmd_keeps_its_digits_far_from_the_origin() -> None:
    fs, ft = two()
    near, far = (multi_kernel_mmd((fs + c).float(), (ft + c).float()).item() for c in (0.0, 1000.0))
    assert far == pytest.approx(near, rel=1e-3)


# -- CORAL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(9, 6, 4), (5, 7, 40), (60, 50, 3), (5, 5, 10), (5, 5, 11)])
def test_coral_equals_numpy(size: tuple[int, int, int]) -> None:
    """Both ways of computing it, with more activations than samples and with fewer."""
    fs, ft = two(*size)
    d = size[2]
    apart = np.cov(fs.numpy(), rowvar=False) - np.cov(ft.numpy(), rowvar=False)
    assert coral(fs, ft).item() == pytest.approx(np.linalg.norm(apart, "fro") ** 2 / (4 * d**2), rel=1e-9)


def test_coral_by_hand() -> None:
    """Variances 2 and 8 of one value: (2 - 8)^2 / 4 = 9."""
    assert coral(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [9.0]])).item() == pytest.approx(9)


def test_coral_is_blind_to_means() -> None:
    fs, ft = two()
    assert_close(coral(fs + 3, ft - 100), coral(fs, ft))


# -- discrepancy of classifiers ---------------------------------------------------------------------------------------


def test_discrepancy_by_hand() -> None:
    """Opposite certain answers differ by 1 in two of K classes: 2 / K; the mean is over the samples too."""
    for k in (2, 10):
        one, other = torch.zeros(1, k), torch.zeros(1, k)
        one[0, 0], other[0, 1] = 100, 100
        assert classifier_discrepancy(one, other).item() == pytest.approx(2 / k)
        assert classifier_discrepancy(torch.cat([one, one]), torch.cat([one, other])).item() == pytest.approx(1 / k)


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5, 7)])
def test_discrepancy_equals_scipy(shape: tuple[int, ...]) -> None:
    from scipy.special import softmax

    zs1, zs2 = gauss(*shape, seed=1), gauss(*shape, seed=2)
    expected = np.abs(softmax(zs1.numpy(), 1) - softmax(zs2.numpy(), 1)).mean()
    assert classifier_discrepancy(zs1, zs2).item() == pytest.approx(expected)
    assert_close(classifier_discrepancy(zs1, zs2), classifier_discrepancy(zs2, zs1))
    assert classifier_discrepancy(zs1, zs1) == 0


@pytest.mark.parametrize("other", [(1, 4), (6, 1), (4,), (6, 4, 1), (5, 4)])
def test_discrepancy_of_other_shapes_is_refused(other: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="same shape"):
        classifier_discrepancy(gauss(6, 4), gauss(*other))


# -- what they share --------------------------------------------------------------------------------------------------


@names
@given(n=st.integers(2, 8), m=st.integers(2, 8), d=st.integers(1, 20), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_symmetric_and_never_negative(loss, n: int, m: int, d: int, seed: int) -> None:
    fs, ft = gauss(n, d, seed=seed), 2 * gauss(m, d, seed=seed + 1) + 1
    assert loss(fs, ft).item() == pytest.approx(loss(ft, fs).item(), rel=1e-9)
    assert loss(fs, ft) >= 0


@names
@pytest.mark.parametrize("d", [3, 60])
def test_zero_for_identical_sets_in_any_order(loss, d: int) -> None:
    fs = gauss(12, d)
    assert loss(fs, fs).item() == pytest.approx(0, abs=1e-12)
    assert loss(fs, fs.flip(0)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("d", [3, 14])
def test_coral_passes_a_gradient_check(d: int) -> None:
    assert torch.autograd.gradcheck(coral, tuple(x.requires_grad_() for x in two(4, 5, d)))


def test_mmd_has_the_gradient_of_its_formula_with_the_width_held() -> None:
    """gradcheck cannot say this: finite differences would move the width."""
    fs, ft = (x.requires_grad_() for x in two(4, 5, 3))
    both = torch.cat([fs, ft])
    width = torch.cdist(both, both).square().sum().item() / (9 * 8)

    def held(fs: Tensor, ft: Tensor) -> Tensor:
        ss, tt, st = (
            torch.exp(-(a[:, None] - b).square().sum(-1) / width).mean() for a, b in ((fs, fs), (ft, ft), (fs, ft))
        )
        return ss + tt - 2 * st

    assert torch.autograd.gradcheck(held, (fs, ft))
    mine, theirs = (torch.autograd.grad(value, (fs, ft)) for value in (multi_kernel_mmd(fs, ft, 1), held(fs, ft)))
    assert_close(mine, theirs)


def test_discrepancy_passes_a_gradient_check() -> None:
    assert torch.autograd.gradcheck(
        classifier_discrepancy, (gauss(3, 4, seed=1).requires_grad_(), gauss(3, 4, seed=2).requires_grad_())
    )


@names
def test_activations_of_any_shape_are_flattened_by_sample(loss) -> None:
    fs, ft = gauss(6, 2, 3, 4, seed=1), gauss(5, 2, 3, 4, seed=2)
    assert_close(loss(fs, ft), loss(fs.flatten(1), ft.flatten(1)))


@names
@pytest.mark.parametrize(("one", "other"), [((6, 4), (6, 1)), ((6, 1), (6, 4)), ((6,), (6,)), ((1, 4), (6, 4))])
def test_sets_that_do_not_match_are_refused_not_broadcast(loss, one: tuple, other: tuple) -> None:
    with pytest.raises(UsageError, match="two samples"):
        loss(gauss(*one), gauss(*other))


@pytest.mark.parametrize("loss", [*PAIRED, classifier_discrepancy], ids=lambda loss: loss.__name__)
def test_half_precision_and_autocast_do_not_reach_the_sums(loss) -> None:
    fs, ft = gauss(16, 8, seed=1, dtype=torch.float32), gauss(16, 8, seed=2, dtype=torch.float32) * 2
    with torch.autocast("cpu", torch.bfloat16):
        inside, half = loss(fs, ft), loss(fs.bfloat16(), ft.bfloat16())
    assert_close(inside, loss(fs, ft), rtol=1e-6, atol=0)
    assert_close(half, loss(fs.bfloat16().float(), ft.bfloat16().float()), rtol=1e-6, atol=0)
