"""The labelled twin looks like the target as far as values and noise go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import ks_2samp
from torch import Tensor

from acclimate.data.perlin import scenes
from acclimate.diagnosis.properties import noise
from acclimate.diagnosis.twin import match_histogram, twin
from acclimate.transforms.shifts import blurred


def images(seed: int, sigma: float = 0.05, count: int = 24) -> Tensor:
    x, _ = scenes(count, 48, inside=0.6, outside=0.35, sigma=sigma, generator=torch.Generator().manual_seed(seed))
    return x.permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("change", [lambda x: x * 0.5, lambda x: (x + 0.3).clamp(0, 1), lambda x: x**2.2])
def test_monotone_change_is_reproduced_pixel_by_pixel(change: object) -> None:
    """The twin of a target that is an increasing function of other images of the source is that function of its own."""
    mine, theirs = images(0), change(images(1))  # type: ignore[operator]
    assert (twin(mine, theirs) - change(mine)).abs().mean() < 0.01  # type: ignore[operator]


def test_histogram_becomes_the_targets() -> None:
    mine, theirs = images(0), images(1, sigma=0.2) * 0.7
    found = match_histogram(mine, theirs, torch.Generator().manual_seed(0))
    assert (
        ks_2samp(found.flatten().numpy()[::7], theirs.flatten().numpy()[::7]).statistic < 0.03
    )  # values are whole numbers out of 255
    order = mine[0].flatten().argsort()
    assert (found[0].flatten()[order].diff() >= -1e-6).all()


@pytest.mark.parametrize("sigma", [0.02, 0.15])
def test_noise_becomes_the_targets(sigma: float) -> None:
    mine, theirs = images(0), images(1, sigma)
    assert noise(twin(mine, theirs)).mean().item() == pytest.approx(noise(theirs).mean().item(), rel=0.2)


def test_blur_is_scipys() -> None:
    x = images(0, count=1)
    truth = gaussian_filter(x[0, 0].numpy(), 1.4, mode="nearest", truncate=3.6)
    assert np.abs(blurred(x, 1.4)[0, 0].numpy() - truth).max() < 1e-4
    assert torch.equal(blurred(x, 0), x)


def test_flat_images_stay_finite() -> None:
    flat = torch.full((2, 1, 16, 16), 0.4)
    assert twin(flat, images(1)).isfinite().all()
    assert torch.allclose(twin(images(1), flat), torch.full((24, 1, 48, 48), 0.4), atol=1e-4)


def test_each_channel_of_colour_images_gets_its_own_noise() -> None:
    grey = images(0).expand(-1, 3, -1, -1)
    draw = torch.Generator().manual_seed(1)
    noisy = images(1).expand(-1, 3, -1, -1) + torch.tensor([0.02, 0.06, 0.12]).view(1, 3, 1, 1) * torch.randn(
        24, 3, 48, 48, generator=draw
    )
    found = twin(grey, noisy.clamp(0, 1))
    for c in range(3):
        truth = noise(noisy[:, c : c + 1].clamp(0, 1)).mean().item()
        assert noise(found[:, c : c + 1]).mean().item() == pytest.approx(truth, rel=0.2)


def test_a_shared_value_becomes_the_mean_of_its_ranks() -> None:
    """Half of the pixels are 0; the target is uniform: they become its lower half's mean."""
    mine = torch.cat([torch.zeros(5000), torch.linspace(0.5, 1, 5000)]).view(1, 1, 100, 100)
    theirs = torch.linspace(0, 1, 10000).view(1, 1, 100, 100)
    found = match_histogram(mine, theirs, torch.Generator().manual_seed(0))
    assert found[mine == 0].mean().item() == pytest.approx(0.25, abs=0.01)
