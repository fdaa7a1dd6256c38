"""Properties of images against numbers one can compute."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import skew

from acclimate.diagnosis.properties import PROPERTIES, measured


def white(deviation: float, count: int = 4, size: int = 128) -> torch.Tensor:
    return 0.5 + deviation * torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def test_noise_is_the_deviation_of_white_noise() -> None:
    assert measured(white(0.05))["noise"].mean().item() == pytest.approx(0.05, rel=0.02)
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    assert measured(ramp)["noise"].item() == pytest.approx(0, abs=1e-6)


def test_brightness_contrast_and_skew_are_moments() -> None:
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1)) ** 3
    found = measured(x)
    assert torch.allclose(found["brightness"], x.mean((1, 2, 3)))
    assert torch.allclose(found["contrast"], x.flatten(1).std(1))
    assert found["skew"].numpy() == pytest.approx(skew(x.flatten(1).numpy(), axis=1), abs=1e-4)


def test_inversion_turns_the_skew_and_nothing_else() -> None:
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1)) ** 3
    one, two = measured(x), measured(2 * x.mean((1, 2, 3), keepdim=True) - x)
    for name in ("brightness", "contrast", "noise", "sharpness", "grain"):
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    assert torch.allclose(one["skew"], -two["skew"], atol=1e-4)


def test_sharpness_of_white_noise_is_zero_decibels_and_falls_with_blur() -> None:
    x = white(0.1)
    assert measured(x)["sharpness"].mean().item() == pytest.approx(0, abs=0.1)
    assert (measured(torch.nn.functional.avg_pool2d(x, 3, 1, 1))["sharpness"] < -3).all()


def test_grain_is_one_for_blocks_and_small_for_white_noise() -> None:
    blocks = (
        torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        .repeat_interleave(8, 2)
        .repeat_interleave(8, 3)
    )
    assert measured(blocks)["grain"].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert measured(white(0.1))["grain"].mean().item() == pytest.approx(1 / 64, rel=0.3)


def test_vignette_is_middle_minus_rest() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[..., 2:6, 2:6] = 0.3
    assert measured(x)["vignette"].item() == pytest.approx(0.3)


def test_colour() -> None:
    x = torch.tensor([0.7, 0.4, 0.1]).view(1, 3, 1, 1).expand(1, 3, 9, 9)
    found = measured(x)
    assert found["saturation"].item() == pytest.approx(0.6)
    assert found["warmth"].item() == pytest.approx(0.6)
    grey = measured(white(0.1))
    assert not grey["saturation"].any()
    assert not grey["warmth"].any()


def test_constant_images_have_finite_properties() -> None:
    for name, values in measured(torch.full((2, 1, 16, 16), 0.5)).items():
        assert values.isfinite().all(), name
    assert list(measured(white(0.1))) == list(PROPERTIES)
