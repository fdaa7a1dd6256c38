"""Histogram matching against NumPy's interpolation of the cumulative shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.transforms.histogram import COUNT, LOWEST, histogram, matching, remap


def match_histograms(source: np.ndarray, template: np.ndarray) -> np.ndarray:
    """One channel, as scikit-image does it (``exposure.match_histograms``), written anew."""
    _, inverse, counts = np.unique(source.ravel(), return_inverse=True, return_counts=True)
    levels, template_counts = np.unique(template.ravel(), return_counts=True)
    quantiles = np.cumsum(counts) / source.size
    template_quantiles = np.cumsum(template_counts) / template.size
    return np.interp(quantiles, template_quantiles, levels)[inverse].reshape(source.shape)


def images(seed: int, *shape: int, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("low", "high"), [(0, 256), (40, 90), (200, 203), (7, 8)])
def test_pairs_equal_numpy(channels: int, low: int, high: int) -> None:
    source, target = (
        images(0, 4, channels, 17, 13, low=30, high=180),
        images(1, 4, channels, 11, 19, low=low, high=high),
    )
    found = remap(source, matching(histogram(source), histogram(target)))
    expected = np.stack(
        [[match_histograms(s, t) for s, t in zip(xs, xt)] for xs, xt in zip(source.numpy(), target.numpy())]
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_domains_equal_numpy_on_all_their_images_together() -> None:
    source, target = images(2, 5, 2, 16, 16, low=100, high=140).square() % 256, images(3, 7, 2, 16, 16, low=3, high=60)
    table = matching(histogram(source).sum(0), histogram(target).sum(0))
    found = remap(source, table[None])
    for channel in range(2):
        expected = match_histograms(source[:, channel].numpy(), target[:, channel].numpy())
        np.testing.assert_allclose(found[:, channel].numpy(), expected, atol=1e-4)


@given(st.integers(0, 10_000), st.integers(1, 255), st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_the_map_never_falls_and_stays_among_the_targets_levels(seed: int, spread: int, other: int) -> None:
    source, target = images(seed, 1, 1, 9, 9, high=spread + 1), images(seed + 1, 1, 1, 7, 7, high=other + 1)
    table = matching(histogram(source), histogram(target))
    assert table.shape == (1, 1, COUNT)
    assert (table.diff() >= 0).all()
    assert table.min() >= target.min()
    assert table.max() == target.max()


def test_a_domain_is_matched_to_itself_by_the_identity() -> None:
    x = images(4, 3, 1, 32, 32)
    counts = histogram(x).sum(0)
    torch.testing.assert_close(remap(x, matching(counts, counts)[None]), x)


def test_matched_to_a_brighter_copy_it_is_the_brighter_copy() -> None:
    x = images(5, 2, 1, 32, 32, low=20, high=100)
    bright = 2 * x + 30
    torch.testing.assert_close(remap(x, matching(histogram(x), histogram(bright))), bright)


def test_a_level_between_two_goes_between_their_images() -> None:
    x = torch.tensor([[[[10.0, 10.0, 11.0, 11.0]]]])
    table = matching(histogram(x), histogram(torch.tensor([[[[50.0, 50.0, 90.0, 90.0]]]])))
    assert remap(torch.tensor([[[[10.0, 10.25, 11.0]]]]), table).flatten().tolist() == [50, 60, 90]


def test_levels_are_counted_per_image_and_channel_and_none_is_lost() -> None:
    x = torch.tensor([[[[2.8, 3.2]], [[0.0, 255.0]]], [[[-1e9, 1e9]], [[7.0, 7.0]]]])  # (2, 2, 1, 2)
    counts = histogram(x)
    assert counts.shape == (2, 2, COUNT)
    assert counts.dtype == torch.int64
    where = {tuple(place): int(counts[tuple(place)]) for place in counts.nonzero().tolist()}
    assert where == {
        (0, 0, 3 - LOWEST): 2,
        (0, 1, -LOWEST): 1,
        (0, 1, 255 - LOWEST): 1,
        (1, 0, 0): 1,
        (1, 0, COUNT - 1): 1,
        (1, 1, 7 - LOWEST): 2,
    }


def test_nothing_counted_yet_gives_finite_levels() -> None:
    nothing = torch.zeros(1, COUNT, dtype=torch.int64)
    assert torch.isfinite(matching(nothing, nothing)).all()
