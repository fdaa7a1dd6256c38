import numpy as np
import pytest
import torch

from acclimate.errors import UsageError
from acclimate.selection.density_ratio import density_ratio
from acclimate.selection.dev import DEV, control_variate, dev
from acclimate.selection.iwv import iwv
from acclimate.selection.source_risk import source_risk


def by_definition(w: np.ndarray, losses: np.ndarray) -> float:
    """R_DEV with NumPy's unbiased covariance matrix."""
    (_, covariance), (_, variance) = np.cov(w * losses, w)
    eta = -covariance / variance
    return np.mean(w * losses) + eta * np.mean(w) - eta


def test_by_hand():
    """w l = (2, 0, 3), w = (1, 0, 3): Cov = 7/3, Var = 7/3, eta = -1; 5/3 - 4/3 + 1 = 4/3."""
    w, losses = torch.tensor([1.0, 0.0, 3.0]).double(), torch.tensor([2.0, 5.0, 1.0]).double()
    covariance, variance = 2 / 3 + (-5 / 3) * (-4 / 3) + (4 / 3) * (5 / 3), 1 / 9 + 16 / 9 + 25 / 9
    covariance += (1 / 3) * (-1 / 3) - 2 / 3
    expected = 5 / 3 - covariance / variance * (4 / 3 - 1)
    assert control_variate(w, losses) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    w, losses = rng.lognormal(size=200), rng.exponential(size=200)
    assert control_variate(*map(torch.from_numpy, (w, losses))) == pytest.approx(by_definition(w, losses), rel=1e-10)


def test_lowers_the_variance_by_the_squared_correlation():
    """Over many draws: the same mean as IWV, and Var(DEV) = (1 - rho^2) Var(IWV)."""
    rng = np.random.default_rng(0)
    w = rng.lognormal(-0.125, 0.5, (4000, 200))  # its mean is 1
    losses = 0.5 + 0.5 * rng.random((4000, 200))
    plain = (w * losses).mean(1)
    found = np.array([control_variate(*map(torch.from_numpy, row)) for row in zip(w, losses)])
    rho = np.corrcoef((w * losses).ravel(), w.ravel())[0, 1]
    assert found.mean() == pytest.approx(0.75, abs=2e-3)
    assert rho**2 > 0.8
    assert found.var() / plain.var() == pytest.approx(1 - rho**2, rel=0.15)


def test_is_exact_where_the_loss_is_constant():
    """w l = c w, so eta = -c, and c remains however wrong the weights are."""
    w = torch.rand(50, generator=torch.Generator().manual_seed(0)).double() * 7
    assert control_variate(w, torch.full_like(w, 0.3)) == pytest.approx(0.3, rel=1e-10)


@pytest.mark.parametrize("noise", [0.0, 1e-15])
def test_equal_weights_need_no_correction(noise):
    losses = torch.rand(30, generator=torch.Generator().manual_seed(0)).double()
    w = 0.5 + noise * torch.randn(30, generator=torch.Generator().manual_seed(1)).double()
    assert control_variate(w, losses) == pytest.approx(0.5 * losses.mean().item(), rel=1e-9)
    assert control_variate(w[:1], losses[:1]) == pytest.approx(0.5 * losses[0].item())


def test_whole_score():
    generator = torch.Generator().manual_seed(0)
    fs, fs_train, zs = (torch.randn(n, 3, generator=generator) for n in (60, 90, 60))
    ft, ys = torch.randn(70, 3, generator=generator) + 0.5, torch.arange(60) % 4 - 1
    counts = ys >= 0
    w = density_ratio(fs[counts], fs_train, ft).numpy()
    p = zs.double().softmax(1)[counts, ys[counts]].numpy()
    assert dev(zs, fs, ys, fs_train, ft) == pytest.approx(by_definition(w, -np.log(p)), rel=1e-9)


def test_features_that_say_nothing_leave_the_source_risk():
    ones, generator = torch.ones(60, 4), torch.Generator().manual_seed(0)
    zs, ys = torch.randn(60, 3, generator=generator), torch.arange(60) % 3
    assert dev(zs, ones, ys, ones, ones) == pytest.approx(source_risk(zs, ys), rel=1e-4)


def test_domains_apart_do_not_look_perfect_as_they_do_to_iwv():
    generator = torch.Generator().manual_seed(0)
    fs, fs_train = (torch.randn(300, 8, generator=generator) for _ in range(2))
    ft, zs, ys = (
        torch.randn(300, 8, generator=generator) + 4,
        torch.randn(300, 3, generator=generator),
        torch.arange(300) % 3,
    )
    assert iwv(zs, fs, ys, fs_train, ft) < 0.01
    assert dev(zs, fs, ys, fs_train, ft) > 0.1


def test_refuses_labels_that_are_all_ignored():
    f = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match="every label"):
        dev(f, f, torch.full((20,), -1), f, f)


def test_lower_is_better():
    assert DEV.gain(0.1) > DEV.gain(0.2)
    assert DEV.takes == ("zs", "fs", "ys", "fs_train", "ft")
