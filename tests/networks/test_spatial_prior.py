"""Where classes lie, by hand."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from acclimate.errors import UsageError
from acclimate.networks.spatial_prior import FLOOR, SpatialPrior, smoothed


def test_prior_is_the_smoothed_share_of_each_class_at_each_place() -> None:
    """Sky above, road below, in two images of different sizes; a third class is in the list only."""
    first, second = torch.zeros(1, 8, 4, dtype=torch.long), torch.zeros(1, 16, 8, dtype=torch.long)
    first[:, 4:], second[:, 8:] = 1, 1
    second[:, :, :2] = -1
    prior = SpatialPrior(3, (8, 4))
    prior.fit([first, second], lambda value: value)
    share = torch.zeros(2, 8, 4)
    share[0, :4], share[1, 4:] = 2, 2
    share[:, :, 0] /= 2  # ignored in one of the images
    expected = torch.tensor(gaussian_filter(share.numpy(), (0, 1, 1), mode="nearest", truncate=3))
    expected /= expected.mean((1, 2), keepdim=True)
    torch.testing.assert_close(prior.q[:2], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(prior.q[2], torch.ones(8, 4))
    assert prior.q.mean((1, 2)).tolist() == pytest.approx([1, 1, 1])


def test_prior_sums_over_processes() -> None:
    one, two = SpatialPrior(2, (4, 4)), SpatialPrior(2, (4, 4))
    torch.manual_seed(0)
    maps = torch.randint(0, 2, (4, 8, 8))
    one.fit([maps], lambda value: value)
    rest = SpatialPrior(2, (4, 4))
    shares = []
    rest.fit([maps[2:]], lambda value: shares.append(value) or value)  # type: ignore[func-returns-value]
    two.fit([maps[:2]], lambda value: value + shares[0])
    torch.testing.assert_close(one.q, two.q)


def test_prior_multiplies_probabilities() -> None:
    prior = SpatialPrior(2, (1, 2))
    prior.q.copy_(torch.tensor([[[1.8, 0.2]], [[0.0, 2.0]]]))
    p = torch.tensor([0.3, 0.7]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    found = prior(p.log()).softmax(1)
    assert found[0, 0, 0].tolist() == pytest.approx(
        [0.3 * 1.8 / (0.3 * 1.8 + 0.7 * FLOOR), 0.3 * 0.2 / (0.3 * 0.2 + 0.7 * 2)]
    )


def test_fresh_prior_says_nothing_and_an_image_with_one_label_has_none() -> None:
    prior, logits = SpatialPrior(3, (2, 2)), torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(prior(logits), logits)
    with pytest.raises(UsageError, match="spatial_prior=False"):
        prior.fit([torch.zeros(4, dtype=torch.long)], lambda value: value)


def test_smoothing_keeps_what_is_even() -> None:
    torch.testing.assert_close(smoothed(torch.full((2, 3, 5), 0.7)), torch.full((2, 3, 5), 0.7))
