"""Critics for vectors and for maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks.critics import critic, patch_critic


def test_a_vector_gets_one_logit_without_final_activation():
    net = critic((6,), hidden=(5, 4))
    assert [type(layer) for layer in net] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert net(torch.randn(3, 6)).shape == (3, 1)
    assert sum(p.numel() for p in critic((768,)).parameters()) == 769 * 100 + 101


def test_a_map_gets_one_logit_per_position_that_depends_on_it_alone():
    net = critic((6, 4, 5))
    x = torch.randn(2, 6, 4, 5)
    moved = x.clone()
    moved[0, :, 1, 2] += 1
    changed = (net(x) - net(moved)).abs() > 0
    assert net(x).shape == (2, 1, 4, 5)
    assert changed.nonzero().tolist() == [[0, 0, 1, 2]]


def test_no_hidden_layer_is_a_linear_critic():
    assert len(critic((6,), hidden=())) == 1


def test_other_shapes_are_refused():
    with pytest.raises(UsageError, match=r"not \(4, 5\)"):
        critic((4, 5))


@pytest.mark.parametrize(("size", "patches"), [((256, 128), (8, 4)), ((192, 192), (6, 6)), ((33, 70), (1, 2))])
def test_a_patch_critic_halves_five_times(size, patches):
    net = patch_critic(3, width=8)
    assert net(torch.randn(2, 3, *size)).shape == (2, 1, *patches)
    plain = nn.Sequential(*net)  # without the padding of small maps
    x = torch.randn(1, 3, *size)
    torch.testing.assert_close(net(x), plain(x))


def test_a_patch_critic_has_the_layers_of_the_paper():
    net = patch_critic(19)
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [
        (19, 64), (64, 128), (128, 256), (256, 512), (512, 1)
    ]  # fmt: skip
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in layers} == {((4, 4), (2, 2), (1, 1))}
    assert {layer.negative_slope for layer in net if isinstance(layer, nn.LeakyReLU)} == {0.2}
    assert isinstance(net[-1], nn.Conv2d)


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (5, 40)])
def test_a_patch_critic_judges_small_maps_whole(size):
    net = patch_critic(1, width=4)
    x = torch.randn(2, 1, *size, requires_grad=True)
    found = net(x)
    assert found.shape == (2, 1, max(1, size[0] // 32), max(1, size[1] // 32))
    found.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())
    assert (x.grad != 0).any(0).all()
