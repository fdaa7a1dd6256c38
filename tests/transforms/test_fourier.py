"""The swap of amplitudes against NumPy's transforms and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.transforms.fourier import amplitude_swap, half_size


def swap(source: np.ndarray, target: np.ndarray, b: int) -> np.ndarray:
    """The paper's formula on ``(C, H, W)`` images of 0..255 with the whole transform and a window around its middle."""
    fs, ft = (np.fft.fftshift(np.fft.fft2(x.astype(np.float64)), axes=(-2, -1)) for x in (source, target))
    amplitude, phase = np.abs(fs), np.angle(fs)
    y, x = (side // 2 for side in source.shape[1:])
    window = (..., slice(max(0, y - b), y + b + 1), slice(max(0, x - b), x + b + 1))
    amplitude[window] = np.abs(ft)[window]
    mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(-2, -1)))
    assert np.abs(mixed.imag).max() < 1e-8
    return mixed.real


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32))


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (12, 21), (33, 10)])
@pytest.mark.parametrize("beta", [0.01, 0.09, 0.2, 0.34])
def test_equals_the_whole_transform_of_numpy(size: tuple[int, int], beta: float) -> None:
    source, target = images(0, 2, 3, *size), images(1, 2, 3, *size)
    expected = [swap(s, t, half_size(*size, beta)) for s, t in zip(source.numpy(), target.numpy())]
    np.testing.assert_allclose(amplitude_swap(source, target, beta).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("size", [(16, 16), (15, 15)])
def test_a_window_of_everything_gives_the_targets_amplitude_and_the_sources_phase(size: tuple[int, int]) -> None:
    source, target = images(2, 1, 1, *size), images(3, 1, 1, *size)
    found = np.fft.fft2(amplitude_swap(source, target, 0.5).double().numpy())
    fs, ft = (np.fft.fft2(x.double().numpy()) for x in (source, target))
    np.testing.assert_allclose(np.abs(found), np.abs(ft), atol=0.02)
    np.testing.assert_allclose(found, np.abs(ft) * fs / np.abs(fs), atol=0.02)


def test_beta_of_nothing_is_the_source_itself() -> None:
    source = images(4, 2, 1, 8, 9)
    assert torch.equal(amplitude_swap(source, images(5, 2, 1, 8, 9), 0.0), source)


def test_the_window_has_at_least_one_frequency_beside_the_mean() -> None:
    assert [half_size(192, 192, beta) for beta in (0.0, 1e-6, 0.005, 0.01, 0.05, 0.09)] == [0, 1, 1, 1, 9, 17]
    assert half_size(512, 1024, 0.01) == 5
    source, target = images(6, 1, 1, 64, 64), images(7, 1, 1, 64, 64)
    changed = np.abs(np.fft.fft2((amplitude_swap(source, target, 0.01) - source).double().numpy())) > 0.1
    assert sorted(map(tuple, np.argwhere(changed[0, 0]).tolist())) == sorted(
        (y % 64, x % 64) for y in (-1, 0, 1) for x in (-1, 0, 1)
    )


def test_constant_images_take_the_targets_value() -> None:
    source, target = torch.full((1, 2, 8, 8), 40.0), torch.full((1, 2, 8, 8), 200.0)
    for beta in (0.01, 0.5):
        torch.testing.assert_close(amplitude_swap(source, target, beta), target)


def test_an_image_swapped_with_itself_stays() -> None:
    source = images(8, 2, 3, 14, 11)
    torch.testing.assert_close(amplitude_swap(source, source, 0.2), source, atol=1e-3, rtol=0)


def test_normalised_images_give_the_normalised_result() -> None:
    """Also where the mean of a normalised image is negative: an amplitude alone would lose its sign."""
    source, target = 128 + images(9, 2, 3, 16, 16) / 2, images(10, 2, 3, 16, 16) / 4
    mean, std = torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1), torch.tensor([58.0, 57.0, 1.0]).view(3, 1, 1)
    found = amplitude_swap((source - mean) / std, (target - mean) / std, 0.1)
    torch.testing.assert_close(found * std + mean, amplitude_swap(source, target, 0.1), atol=1e-2, rtol=1e-4)
    assert found.mean() < 0 < ((source - mean) / std).mean()


def test_one_target_serves_all_and_half_precision_comes_back_as_float32() -> None:
    source, target = images(11, 3, 1, 12, 12) / 255, images(12, 1, 1, 12, 12) / 255
    whole = amplitude_swap(source, target, 0.1)
    torch.testing.assert_close(whole, amplitude_swap(source, target.expand(3, -1, -1, -1), 0.1))
    half = amplitude_swap(source.bfloat16(), target.bfloat16(), 0.1)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, atol=0.02, rtol=0)
