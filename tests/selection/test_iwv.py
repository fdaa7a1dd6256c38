import numpy as np
import pytest
import torch

from acclimate.errors import UsageError
from acclimate.selection.density_ratio import density_ratio
from acclimate.selection.iwv import IWV, iwv
from acclimate.selection.source_risk import source_risk


def normal(count: int, dimensions: int, seed: int, mean: float = 0.0) -> torch.Tensor:
    return mean + torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def test_weights_of_a_gaussian_shift_are_the_analytic_ratio():
    """N(m, 1) over N(0, 1) is exp(m f - m^2 / 2) in each dimension."""
    fs, m = normal(500, 2, 0), 0.5
    found = density_ratio(fs, normal(8000, 2, 1), normal(8000, 2, 2, m))
    expected = (m * fs.double() - m**2 / 2).sum(1).exp()
    assert torch.allclose(found, expected, rtol=0.2)
    assert np.corrcoef(found, expected)[0, 1] > 0.999


@pytest.mark.parametrize(("n_s", "n_t"), [(6000, 1000), (1000, 6000)])
def test_numbers_of_rows_cancel(n_s, n_t):
    fs = normal(500, 2, 0)
    found = density_ratio(fs, normal(n_s, 2, 1), normal(n_t, 2, 2, 0.5))
    expected = (0.5 * fs.double() - 0.125).sum(1).exp()
    assert torch.allclose(found, expected, rtol=0.35)


def test_estimates_the_risk_under_the_shift():
    """Right where f > 0 only: the target, shifted upwards, has the lower risk, which its own labels would give."""

    def predictions(f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p = torch.where(f[:, :1] > 0, 0.9, 0.2)
        return torch.cat([p, 1 - p], 1).log(), torch.zeros(len(f), dtype=torch.long)

    fs, ft = normal(4000, 2, 3), normal(4000, 2, 4, 0.5)
    zs, ys = predictions(fs)
    truth = source_risk(*predictions(ft))
    assert abs(source_risk(zs, ys) - truth) > 0.25
    assert iwv(zs, fs, ys, normal(4000, 2, 5), ft) == pytest.approx(truth, abs=0.05)


def test_equal_domains_weigh_all_rows_alike():
    f = normal(600, 16, 0)
    assert torch.allclose(density_ratio(f, f, f), torch.ones(600).double(), atol=1e-6)
    zs, ys = normal(600, 3, 1), torch.arange(600) % 3
    assert iwv(zs, f, ys, f, f) == pytest.approx(source_risk(zs, ys), rel=1e-5)
    other = density_ratio(f, normal(600, 16, 2), normal(600, 16, 3))
    assert other.mean() == pytest.approx(1, abs=0.05)
    assert other.std() < 0.3


def test_constant_features_say_nothing():
    ones = torch.ones(50, 4)
    assert torch.allclose(density_ratio(ones, ones, ones[:25]), torch.ones(50).double(), atol=1e-2)


def test_is_the_plain_mean_over_rows_that_count():
    fs, fs_train, ft = normal(40, 3, 0), normal(60, 3, 1), normal(50, 3, 2, 0.3)
    zs, ys = normal(40, 3, 3), torch.arange(40) % 4 - 1
    w, p = density_ratio(fs, fs_train, ft), zs.double().softmax(1)
    terms = [float(-w[i] * p[i, ys[i]].log()) for i in range(40) if ys[i] >= 0]
    assert iwv(zs, fs, ys, fs_train, ft) == pytest.approx(sum(terms) / len(terms), rel=1e-9)


def test_rows_far_off_stay_finite():
    fs = torch.tensor([[1e6, 0.0], [-1e6, 0.0]])
    found = density_ratio(fs, normal(100, 2, 0), normal(100, 2, 1, 3))
    assert found[0] == pytest.approx(np.exp(50))
    assert found[1] == pytest.approx(np.exp(-50))


def test_does_not_depend_on_global_random_state():
    fs, ft = normal(40, 3, 0), normal(40, 3, 1, 0.4)
    torch.manual_seed(1), np.random.seed(1)  # noqa: NPY002
    first = density_ratio(fs, fs, ft)
    torch.manual_seed(2), np.random.seed(2)  # noqa: NPY002
    assert torch.equal(first, density_ratio(fs, fs, ft))


def test_says_what_is_wrong():
    f, z, ignored = normal(20, 3, 0), normal(20, 2, 1), torch.full((20,), -1)
    with pytest.raises(UsageError, match="every label"):
        iwv(z, f, ignored, f, f)
    with pytest.raises(UsageError, match="at least 5 rows"):
        density_ratio(f, f[:4], f)
    with pytest.raises(UsageError, match="finite"):
        density_ratio(f * torch.inf, f, f)
    with pytest.raises(UsageError, match="channels"):
        density_ratio(f, f[:, :2], f)


def test_lower_is_better():
    assert IWV.gain(0.1) > IWV.gain(0.2)
    assert IWV.takes == ("zs", "fs", "ys", "fs_train", "ft")
