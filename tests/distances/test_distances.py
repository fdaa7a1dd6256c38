"""Distances against POT, SciPy, scikit-learn, closed forms and hand-computed values; their nulls; their guards."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor
from torch.testing import assert_close

from acclimate.distances import (
    DISTANCES,
    Null,
    bhattacharyya,
    bhattacharyya_full,
    bhattacharyya_histogram,
    classifier_two_sample,
    frechet,
    frechet_diagonal,
    frechet_moments,
    max_sliced_wasserstein,
    mmd,
    sliced_energy,
    sliced_wasserstein,
    source_null,
    usable_channels,
)
from acclimate.distances import kernel as kernel_module
from acclimate.distances.gaussian import ledoit_wolf
from acclimate.distances.projection import orthogonal_directions
from acclimate.errors import UsageError

SYMMETRIC = sorted(DISTANCES.keys() - {"bhattacharyya-histogram"})
ZERO_ON_ITSELF = sorted(DISTANCES.keys() - {"classifier", "mmd", "sliced-energy"})  # the last three are unbiased
SMALL = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=12)


def gauss(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two(n: int = 90, m: int = 70, d: int = 5) -> tuple[Tensor, Tensor]:
    """Two sets that differ in mean, scale and correlation."""
    mix = torch.eye(d, dtype=torch.float64) + 0.3 * gauss(d, d, 7)
    return gauss(n, d, 1), gauss(m, d, 2) @ mix * 1.4 + 0.5


def line(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


# -- Gaussian ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "d"), [(90, 70, 5), (300, 60, 40)])
def test_frechet_equals_pot(n: int, m: int, d: int) -> None:
    from ot import gaussian

    x, y = two(n, m, d)
    moments = [v for z in (x, y) for v in (z.mean(0).numpy(), np.cov(z.numpy().T))]
    expected = gaussian.bures_wasserstein_distance(moments[0], moments[2], moments[1], moments[3]) ** 2
    assert frechet(x, y).item() == pytest.approx(expected, rel=1e-6)
    assert frechet_moments(*(torch.from_numpy(v) for v in moments)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(12, 15), (12, 80), (80, 12)])
def test_few_rows_take_another_route_to_the_same_value(n: int, m: int) -> None:
    x, y = two(n, m, 30)
    expected = frechet_moments(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert_close(frechet(x, y), expected, rtol=1e-6, atol=0)


def test_frechet_of_diagonal_gaussians_has_its_closed_form() -> None:
    mean, a, b = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([1.0, 4.0, 0.0]), torch.tensor([9.0, 0.25, 1.0])
    value = frechet_moments(mean, a.diag(), torch.zeros(3), b.diag())
    assert value.item() == pytest.approx(1 + 4 + (1 - 3) ** 2 + (2 - 0.5) ** 2 + 1)


def test_frechet_diagonal_by_hand() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]])  # means 1, 2; variances 2, 2
    y = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0]])  # means 1, 0; variances 3, 0
    assert frechet_diagonal(x, y).item() == pytest.approx(0 + 4 + (2**0.5 - 3**0.5) ** 2 + 2)


@pytest.mark.parametrize(("n", "d"), [(50, 4), (20, 30)])
def test_shrunk_covariance_equals_scikit_learn(n: int, d: int) -> None:
    x = gauss(n, d) @ torch.linspace(0.2, 3, d, dtype=torch.float64).diag()
    assert_close(ledoit_wolf(x).numpy(), LedoitWolf().fit(x.numpy()).covariance_, rtol=1e-9, atol=1e-12)


def test_shrunk_frechet_uses_it() -> None:
    x, y = two()
    cov = [torch.from_numpy(LedoitWolf().fit(z.numpy()).covariance_) for z in (x, y)]
    assert_close(frechet(x, y, shrink=True), frechet_moments(x.mean(0), cov[0], y.mean(0), cov[1]))
    assert ledoit_wolf(torch.ones(4, 3).double()).abs().max() == 0


def test_moments_must_fit_each_other() -> None:
    eye = torch.eye(2)
    with pytest.raises(UsageError, match="shape"):
        frechet_moments(torch.zeros(2), eye, torch.zeros(3), torch.eye(3))
    with pytest.raises(UsageError, match="symmetric"):
        frechet_moments(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.zeros(2), eye)
    with pytest.raises(UsageError, match="finite"):
        frechet_moments(torch.zeros(2), eye * math.nan, torch.zeros(2), eye)


# -- projections ------------------------------------------------------------------------------------------------------


def test_directions_are_orthogonal_in_blocks_and_keyed() -> None:
    along = orthogonal_directions(6, 14, 3)
    assert along.shape == (14, 6)
    for block in (along[:6], along[6:12], along[12:]):
        assert_close(block @ block.T, torch.eye(len(block), dtype=torch.float64))
    assert torch.equal(along, orthogonal_directions(6, 14, 3))
    assert not torch.equal(along, orthogonal_directions(6, 14, 4))
    assert orthogonal_directions(3, 6_000, 0).mean(0).abs().max() < 0.03  # uniform: no side preferred


@pytest.mark.parametrize("m", [90, 70])
def test_sliced_wasserstein_equals_pot(m: int) -> None:
    from ot import sliced

    x, y = two(90, m)
    along = orthogonal_directions(5, 128, 0).T.numpy()
    expected = sliced.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=along, p=2) ** 2
    assert sliced_wasserstein(x, y).item() == pytest.approx(expected, rel=1e-9)


@given(a=SMALL, b=SMALL)
@settings(max_examples=60, deadline=None)
def test_on_a_line_unequal_sizes_agree_with_repetition(a: list[float], b: list[float]) -> None:
    """Every value repeated to a common size: a sorted pairing, by NumPy. SciPy has the same for energy."""
    long_a, long_b = np.sort(np.repeat(a, len(b))), np.sort(np.repeat(b, len(a)))
    assert sliced_wasserstein(line(a), line(b)).item() == pytest.approx(((long_a - long_b) ** 2).mean(), abs=1e-8)


@given(a=SMALL, b=SMALL)
@settings(max_examples=60, deadline=None)
def test_on_a_line_energy_equals_scipy_up_to_the_diagonal(a: list[float], b: list[float]) -> None:
    """SciPy averages over all pairs, the unbiased form over distinct ones."""
    biased = stats.energy_distance(a, b) ** 2
    for v in (a, b):
        mean = np.abs(np.subtract.outer(v, v)).mean()
        biased -= mean * len(v) / (len(v) - 1) - mean
    assert sliced_energy(line(a), line(b)).item() == pytest.approx(biased, abs=1e-8)


def test_a_shift_on_a_line_is_what_scipy_says() -> None:
    a, b = gauss(40, 1), gauss(40, 1) + 3  # a pure shift: W2 = W1
    expected = stats.wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    assert sliced_wasserstein(a, b).item() == pytest.approx(expected**2)
    assert max_sliced_wasserstein(a, b).item() == pytest.approx(expected**2)


def test_sliced_wasserstein_is_not_scaled_by_the_channels() -> None:
    x = gauss(50, 8)
    shift = torch.full((8,), 2.0)
    assert sliced_wasserstein(x, x + shift).item() == pytest.approx(4.0)  # 32 / 8, exactly by orthogonal blocks


def test_sliced_energy_by_hand() -> None:
    # 2 * (1 + 3 + 1 + 1) / 4 - 2 - 2, U-statistics
    assert sliced_energy(line([0, 2]), line([1, 3])).item() == pytest.approx(-1.0)


def test_a_large_offset_costs_no_digits() -> None:
    x, y = two()
    for name in ("sliced-energy", "sliced-wasserstein", "max-sliced-wasserstein", "mmd", "frechet"):
        assert_close(DISTANCES[name](x + 1e6, y + 1e6), DISTANCES[name](x, y), rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("m", [200, 150])
def test_max_sliced_finds_the_best_angle_of_a_plane(m: int) -> None:
    """Against a scan of the half circle with POT's one-dimensional transport."""
    from ot import wasserstein_1d

    x, y = two(200, m, 2)
    angles = np.linspace(0, math.pi, 721)
    along = np.stack([np.cos(angles), np.sin(angles)])
    best = wasserstein_1d(x.numpy() @ along, y.numpy() @ along, p=2).max()
    assert max_sliced_wasserstein(x, y).item() == pytest.approx(best, rel=1e-4)


def test_ascent_finds_the_one_channel_that_changed() -> None:
    x, y = gauss(1_000, 32, 1), gauss(1_000, 32, 2)
    y[:, 3] *= 4
    alone = sliced_wasserstein(x[:, 3:4], y[:, 3:4])
    start = max_sliced_wasserstein(x, y, steps=0)
    assert start < 0.5 * alone
    assert max_sliced_wasserstein(x, y) >= alone * 0.99


# -- Bhattacharyya ----------------------------------------------------------------------------------------------------


def test_bhattacharyya_equals_the_integral() -> None:
    """-ln of the integral of the root of the product of two normal densities, by quadrature."""
    x, y = two(d=3)
    grid = np.linspace(-40, 40, 80_001)
    expected = []
    for c in range(3):
        p, q = (stats.norm.pdf(grid, z[:, c].mean(), z[:, c].std()) for z in (x, y))
        expected.append(-math.log(np.trapezoid(np.sqrt(p * q), grid)))
    assert bhattacharyya(x, y).item() == pytest.approx(statistics.mean(expected), rel=1e-8)
    assert bhattacharyya_full(x[:, :1], y[:, :1]).item() == pytest.approx(expected[0], rel=1e-5)


def test_full_bhattacharyya_equals_determinants() -> None:
    x, y = two()
    s1, s2 = np.cov(x.numpy().T), np.cov(y.numpy().T)
    s, shift = (s1 + s2) / 2, (x.mean(0) - y.mean(0)).numpy()
    determinants = np.linalg.det(s) / math.sqrt(np.linalg.det(s1) * np.linalg.det(s2))
    expected = shift @ np.linalg.inv(s) @ shift / 8 + math.log(determinants) / 2
    assert bhattacharyya_full(x, y).item() == pytest.approx(expected, rel=1e-4)


def test_full_bhattacharyya_is_that_of_channels_where_they_are_independent() -> None:
    x, y = gauss(4_000, 3, 1), gauss(4_000, 3, 2) * torch.tensor([1.0, 2.0, 3.0]) + 1
    assert bhattacharyya_full(x, y).item() == pytest.approx(3 * bhattacharyya(x, y).item(), rel=0.02)


def test_histogram_by_numpy() -> None:
    x, y = two(d=2)
    expected = []
    for a, b in zip(x.T.numpy(), y.T.numpy()):
        edges = np.quantile(a, np.linspace(0, 1, 9))
        shares = []
        for v in (a, b):
            counts = [(v < edges[0]).sum(), *np.histogram(v, edges)[0], (v > edges[-1]).sum()]
            shares.append((np.array(counts) + 0.01) / (len(v) + 0.01 * 10))
        expected.append(-math.log(np.sqrt(shares[0] * shares[1]).sum()))
    assert bhattacharyya_histogram(x, y, bins=8).item() == pytest.approx(statistics.mean(expected))


def test_histogram_sees_a_shape_that_two_moments_do_not() -> None:
    x = gauss(2_000, 1)
    y = (gauss(2_000, 1, 1) > 0).double() * 2 - 1
    assert bhattacharyya(x, y) < 0.01
    assert bhattacharyya_histogram(x, y) > 1


def test_dead_channels_are_dropped_by_what_x_says() -> None:
    x, y = two()
    scale = torch.tensor([1.0, 0.0, 1.0, 1e-4, 1.0])
    dead = x * scale + torch.tensor([0, 0.1, 0, 0, 0])
    assert usable_channels(dead).tolist() == [True, False, True, False, True]
    for distance in (bhattacharyya, bhattacharyya_full, bhattacharyya_histogram):
        assert_close(distance(dead, y), distance(dead[:, ::2], y[:, ::2]), msg=distance.__name__)
    mostly = gauss(90, 7).float() * torch.tensor([1.0, 1, 1e-4, 0, 0, 0, 0]) + 0.1
    assert usable_channels(mostly).tolist() == [True, True] + [False] * 5
    with pytest.raises(UsageError, match="varies"):
        bhattacharyya(torch.ones(4, 2), y[:4, :2])


def test_a_channel_that_died_in_y_is_far_but_not_infinitely_far() -> None:
    x, y = two()
    y[:, 2] = 0
    for distance in (bhattacharyya, bhattacharyya_full, bhattacharyya_histogram):
        assert 0.5 < distance(x, y) < 10


# -- kernels and classifiers ------------------------------------------------------------------------------------------


def test_mmd_equals_scikit_learn_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = two()
    both = torch.cat([x, y])
    squared = torch.cdist(both, both)[torch.ones(160, 160).triu(1) > 0].square().sort().values
    scale = squared[(len(squared) - 1) // 2].item()

    def k(a: Tensor, b: Tensor) -> np.ndarray:
        return np.mean([rbf_kernel(a.numpy(), b.numpy(), 1 / (f * scale)) for f in (0.25, 0.5, 1, 2, 4)], 0)

    within = [(k(z, z).sum() - len(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
    expected = sum(within) - 2 * k(x, y).mean()
    assert mmd(x, y).item() == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(kernel_module, "CHUNK", 32)
    assert mmd(x, y).item() == pytest.approx(expected, rel=1e-6)


def test_mmd_takes_its_scale_from_a_part_of_many_rows() -> None:
    x, y = gauss(1_500, 3, 1), gauss(1_500, 3, 2) + 1
    assert mmd(x, y).item() == pytest.approx(mmd(x[:500], y[:500]).item(), rel=0.1)
    assert_close(mmd(x, y), mmd(y, x))
    assert mmd(torch.zeros(3, 2), torch.zeros(4, 2)) == 0


def test_classifier_area_of_shifted_gaussians() -> None:
    """The area of the best plane between N(0, I) and N(s, I) is Phi(|s| / sqrt 2)."""
    x, y = gauss(2_000, 4, 1), gauss(1_500, 4, 2)
    y[:, 0] += 1
    assert classifier_two_sample(x, y) == pytest.approx(stats.norm.cdf(2**-0.5), abs=0.02)
    assert classifier_two_sample(x, y * 1e-3) == pytest.approx(classifier_two_sample(x * 7, y * 7e-3), abs=1e-3)
    assert classifier_two_sample(x, x + 50) == 1


def test_classifier_is_at_chance_on_equal_distributions() -> None:
    areas = [classifier_two_sample(gauss(150, 10, 2 * i), gauss(150, 10, 2 * i + 1)) for i in range(8)]
    assert statistics.mean(areas) == pytest.approx(0.5, abs=3 * statistics.stdev(areas) / 8**0.5 + 0.005)


def test_classifier_without_groups_recognises_images() -> None:
    """Each image has its own level: nothing differs between the domains, yet rows of one image give it away."""
    images = torch.arange(12).repeat_interleave(40)

    def one(seed: int) -> Tensor:
        return gauss(12, 20, seed)[images] + 0.1 * gauss(480, 20, seed + 100)

    free = [classifier_two_sample(one(2 * i), one(2 * i + 1)) for i in range(4)]
    grouped = [classifier_two_sample(one(2 * i), one(2 * i + 1), images, images) for i in range(4)]
    assert min(free) > 0.8
    assert statistics.mean(grouped) < 0.75


def test_classifier_groups_keep_images_whole_in_any_order() -> None:
    x, y = two(60, 40)
    gx, gy = torch.arange(6).repeat(10), torch.arange(4).repeat(10)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    first = classifier_two_sample(x, y, gx, gy)
    assert classifier_two_sample(x[order], y, gx[order] + 5, gy) == pytest.approx(first, abs=1e-6)
    with pytest.raises(UsageError, match="groups_x"):
        classifier_two_sample(x, y, gx[:-1], gy)
    with pytest.raises(UsageError, match="one image"):
        classifier_two_sample(x, y, gx, gy * 0)


# -- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISTANCES)
def test_result_is_a_float64_scalar_of_any_precision(name: str) -> None:
    x, y = two()
    value = DISTANCES[name](x.float().requires_grad_(), y.half())
    assert value.dtype == torch.float64
    assert value.ndim == 0
    assert not value.requires_grad
    assert value.item() == pytest.approx(DISTANCES[name](x, y).item(), rel=0.02)


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("m", [90, 70])
def test_symmetric(name: str, m: int) -> None:
    x, y = two(90, m)
    assert DISTANCES[name](x, y).item() == pytest.approx(DISTANCES[name](y, x).item(), rel=1e-4)


@pytest.mark.parametrize("name", sorted(DISTANCES.keys() - {"classifier"}))
def test_the_order_of_rows_means_nothing(name: str) -> None:
    x, y = two()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    assert_close(DISTANCES[name](x.flip(0), y[order]), DISTANCES[name](x, y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ZERO_ON_ITSELF)
@pytest.mark.parametrize("n", [90, 3])
def test_zero_on_itself_and_positive_on_another(name: str, n: int) -> None:
    x, y = two(n, n)
    assert DISTANCES[name](x, x).item() == pytest.approx(0, abs=1e-6)
    assert DISTANCES[name](x, y) > 0.01


@pytest.mark.parametrize("name", DISTANCES)
def test_farther_is_more(name: str) -> None:
    x, y = gauss(200, 4, 1), gauss(200, 4, 2)
    assert DISTANCES[name](x, y) < DISTANCES[name](x, y + 0.5) < DISTANCES[name](x, y + 1.5)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(4), torch.zeros(4, 1), "matrix"),
        (torch.zeros(4, 2, 3), torch.zeros(4, 2), "flatten"),
        (torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 2), "floating"),
        (torch.zeros(4, 2), torch.zeros(4, 3), "same layer"),
        (torch.zeros(1, 2), torch.zeros(4, 2), "at least 2 rows"),
        (torch.zeros(4, 2), torch.zeros(1, 2), "y has shape"),
        (torch.zeros(4, 0), torch.zeros(4, 0), "1 channel"),
        (torch.full((4, 2), math.nan), torch.zeros(4, 2), "x holds"),
        (torch.zeros(4, 2), torch.full((4, 2), math.inf), "y holds"),
    ],
)
def test_unusable_matrices_are_refused(name: str, x: Tensor, y: Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DISTANCES[name](x, y)


def test_unusable_settings_are_refused() -> None:
    x, y = two()
    for call in (
        lambda: sliced_wasserstein(x, y, directions=0),
        lambda: sliced_energy(x, y, directions=0),
        lambda: max_sliced_wasserstein(x, y, steps=-1),
        lambda: bhattacharyya_histogram(x, y, bins=1),
    ):
        with pytest.raises(UsageError, match="or more, not"):
            call()


def test_scikit_learn_loads_only_for_the_classifier() -> None:
    code = "import acclimate.distances, sys; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_classifier_converges_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier_two_sample(*two(200, 300, 50))


# -- what they say where nothing changed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "d", "n", "per", "value", "tolerance"),
    [
        ("frechet", 64, 4_096, 64, 0.0084, 0.0004),
        ("frechet", 1_024, 256, 1_024, 1.18, 0.02),
        ("frechet-diagonal", 64, 512, 64, 3 / 512, 0.0008),
        ("frechet-shrunk", 64, 512, 64, 2 / 512, 0.0008),
        ("sliced-wasserstein", 64, 128, 1, 0.041, 0.006),
        ("sliced-wasserstein", 64, 512, 1, 0.012, 0.0015),
        ("sliced-wasserstein", 64, 2_048, 1, 0.0031, 0.0004),
        ("sliced-energy", 64, 2_048, 1, 0.0, 0.001),
        ("mmd", 64, 512, 1, 0.0, 0.0005),
    ],
)
def test_null_bias_is_what_was_measured(name: str, d: int, n: int, per: int, value: float, tolerance: float) -> None:
    """On two draws from N(0, I_d), mean of three."""
    values = [DISTANCES[name](gauss(n, d, 2 * i), gauss(n, d, 2 * i + 1)).item() / per for i in range(3)]
    assert statistics.mean(values) == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("distance", [sliced_energy, mmd])
def test_unbiased_distances_average_to_nothing(distance) -> None:
    values = [float(distance(gauss(40, 6, 2 * i), gauss(30, 6, 2 * i + 1))) for i in range(200)]
    assert abs(statistics.mean(values)) < 3 * statistics.stdev(values) / 200**0.5
    assert min(values) < 0 < max(values)


def test_source_null_reproduces_the_bias_of_its_size() -> None:
    x = gauss(2_000, 16)
    null = source_null(frechet, x, torch.arange(200).repeat_interleave(10), size=400)
    expected = [frechet(gauss(400, 16, 2 * i + 1), gauss(400, 16, 2 * i + 2)).item() for i in range(10)]
    assert null.mean == pytest.approx(statistics.mean(expected), rel=0.1)
    assert null.deviation == pytest.approx(statistics.stdev(expected), rel=0.9)
    assert null.mean < null.quantile < null.mean + 4 * null.deviation
    assert null == source_null(frechet, x, torch.arange(200).repeat_interleave(10), size=400)
    assert null != source_null(frechet, x, torch.arange(200).repeat_interleave(10), size=400, seed=1)


def test_source_null_never_shares_an_image() -> None:
    images = torch.tensor([5, 5, 9, 9, 9, 2, 2, 7])
    x = torch.stack([images, torch.arange(8)], 1).float()
    sizes = []

    def look(a: Tensor, b: Tensor) -> float:
        assert not set(a[:, 0].tolist()) & set(b[:, 0].tolist())
        assert {*a[:, 1].tolist(), *b[:, 1].tolist()} == set(range(8))
        sizes.append(len(a))
        return float(len(sizes))

    null = source_null(look, x, images, repeats=20, level=0.5)
    assert len(set(sizes)) > 1
    assert null == Null(10.5, pytest.approx(np.std(range(1, 21), ddof=1)), 10.5)


def test_source_null_gives_the_images_of_either_half() -> None:
    images = torch.tensor([5, 5, 9, 9, 9, 2, 2, 7])
    place = {2: 0, 5: 1, 7: 2, 9: 3}
    x = torch.tensor([[place[int(image)], 0.0] for image in images])
    seen = []

    def look(a: Tensor, b: Tensor, groups_a: Tensor, groups_b: Tensor) -> float:
        assert a[:, 0].tolist() == groups_a.tolist()
        assert b[:, 0].tolist() == groups_b.tolist()
        seen.append(len(a))
        return 0.0

    source_null(look, x, images, repeats=5, grouped=True)
    assert len(seen) == 5


def test_source_null_by_image_is_wider_than_by_row() -> None:
    images = torch.arange(16).repeat_interleave(20)
    x = gauss(16, 4)[images] + 0.1 * gauss(320, 4, 1)
    assert source_null(frechet_diagonal, x, images).mean > 5 * source_null(frechet_diagonal, x, torch.arange(320)).mean


def test_source_null_says_what_it_needs() -> None:
    x, images = gauss(20, 2), torch.arange(20) // 2
    for words, arguments in (
        ("ask for", {"size": 11}),
        ("size must", {"size": 1}),
        ("repeats", {"repeats": 1}),
        ("level", {"level": 1.5}),
    ):
        with pytest.raises(UsageError, match=words):
            source_null(frechet, x, images, **arguments)
    with pytest.raises(UsageError, match="one image"):
        source_null(frechet, x, images * 0)
    with pytest.raises(UsageError, match="images must"):
        source_null(frechet, x, images[1:])
