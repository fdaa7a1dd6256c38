"""The distance of contents against one computed apart, with float64 gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from acclimate.losses import content_distance


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_is_the_mean_squared_difference_of_instance_normalised_maps() -> None:
    fa, fb = maps(3, 4, 5, 6), 3 * maps(3, 4, 5, 6, seed=1)
    expected = functional.mse_loss(functional.instance_norm(fa), functional.instance_norm(fb))
    torch.testing.assert_close(content_distance(fa, fb), expected)


def test_by_hand() -> None:
    """(1, 3) is (-1, 1) about its mean, in units of its deviation; (2, 0) is (1, -1): each differs by 2."""
    fa, fb = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
    assert content_distance(fa, fb).item() == pytest.approx(4, rel=1e-4)


def test_brightness_and_contrast_of_a_channel_cost_nothing() -> None:
    fa = maps(2, 3, 6, 6)
    scale, shift = torch.tensor([0.5, 2.0, 9.0]).view(3, 1, 1), torch.tensor([4.0, -1.0, 0.0]).view(3, 1, 1)
    assert content_distance(fa, scale * fa + shift).item() < 1e-6
    assert content_distance(fa, fa.flip(3)).item() > 0.5


def test_constant_channels_and_single_positions_are_finite() -> None:
    for f in (torch.ones(2, 3, 4, 4), torch.randn(2, 3, 1, 1)):
        f.requires_grad_()
        content_distance(f, torch.zeros_like(f)).backward()
        assert torch.isfinite(f.grad).all()


def test_gradient_reaches_the_first_only_and_is_right() -> None:
    fa, fb = maps(2, 2, 3, 3).requires_grad_(), maps(2, 2, 3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: content_distance(f, fb.detach()), (fa,))
    content_distance(fa, fb).backward()
    assert fb.grad is None


def test_half_precision_is_computed_in_float32() -> None:
    fa, fb = maps(2, 3, 6, 6).bfloat16(), maps(2, 3, 6, 6, seed=1).bfloat16()
    found = content_distance(fa, fb)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(content_distance(fa.double(), fb.double()).item(), rel=np.float32(1e-5).item())
