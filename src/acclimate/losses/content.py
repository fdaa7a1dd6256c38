"""What an image shows, apart from how it looks."""

from __future__ import annotations

from torch import Tensor

from acclimate.losses.precision import full

_EPSILON = 1e-5


def content_distance(fa: Tensor, fb: Tensor) -> Tensor:
    """mean (n(fa) - n(fb))^2, n taking from each channel of each image its mean and dividing by its deviation over positions.

    Brightness and contrast of a channel are the look of an image and cost nothing; where its values are high and where
    they are low is what the image shows.

    Args:
        fa, fb: feature maps ``(N, D, h, w)`` of the same images, drawn in two ways; no gradient reaches ``fb``. The variance
            is that of the positions, plus 1e-5, so that a constant channel is 0.
    """
    return (_normalised(full(fa)) - _normalised(full(fb).detach())).square().mean()


def _normalised(f: Tensor) -> Tensor:
    f = f - f.mean((2, 3), keepdim=True)
    return f / (f.square().mean((2, 3), keepdim=True) + _EPSILON).sqrt()
