"""The decoder: sizes, what it sees, where it puts a pixel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks import build
from acclimate.networks.decoders import Decoder


@pytest.mark.parametrize("size", [(32, 32), (33, 38), (29, 31), (16, 17)])
def test_gives_the_size_of_the_image_whatever_the_u_net_padded(size: tuple[int, int]) -> None:
    net = build("unet", classes=2, channels=1, size=size, width=4, depth=3)
    decoder = Decoder(net.shapes[net.align], net.input_shape)
    for height, width in (size, (40, 24), (23, 41)):
        x = torch.randn(2, 1, height, width)
        assert decoder(net.aligned(net(x)), (height, width)).shape == x.shape


@pytest.mark.parametrize(
    ("shape", "image", "blocks"),
    [((12, 32, 32), (1, 32, 32), 0), ((64, 2, 2), (3, 32, 32), 4), ((10, 11, 11), (1, 33, 33), 2), ((8, 9, 5), (2, 8, 8), 1)],
)  # fmt: skip
def test_any_ratio_is_met(shape: tuple[int, ...], image: tuple[int, ...], blocks: int) -> None:
    decoder = Decoder(shape, image)
    assert sum(isinstance(layer, nn.Upsample) for layer in decoder.body) == blocks
    drawn = decoder(torch.randn(3, *shape), image[1:])
    assert drawn.shape == (3, *image)
    drawn.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_widths_halve_and_the_last_layer_is_linear() -> None:
    decoder = Decoder((256, 4, 4), (1, 64, 64))
    norms = [layer.num_features for layer in decoder.body if isinstance(layer, nn.BatchNorm2d)]
    assert norms == [128, 128, 64, 64, 32, 32, 16, 16]
    assert isinstance(decoder.head, nn.Conv2d)
    assert decoder(torch.randn(8, 256, 4, 4), (64, 64)).min() < 0


def test_padding_is_cropped_at_the_right_and_bottom() -> None:
    """A code cell stays where its pixels are: the crop is the top left of the full image."""
    decoder = Decoder((16, 4, 4), (1, 32, 32)).eval()
    code = torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(decoder(code, (29, 27)), decoder(code, (32, 32))[:, :, :29, :27])


def test_vectors_are_refused() -> None:
    with pytest.raises(UsageError, match="align at another layer"):
        Decoder((64,), (1, 32, 32))


def test_a_ratio_that_is_no_power_of_two_is_resized_and_not_cropped() -> None:
    decoder = Decoder((10, 11, 11), (1, 33, 33)).eval()
    code = torch.randn(1, 10, 11, 11)
    moved = code.clone()
    moved[..., -1, -1] += 1
    changed = (decoder(code, (33, 33)) != decoder(moved, (33, 33))).nonzero()
    assert changed[:, 2:].min() > 20
    assert changed[:, 2:].max() == 32
