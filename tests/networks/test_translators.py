"""Networks that draw an image anew or draw one of a label map, and the critic of patches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.networks.norm import batch_norms
from acclimate.networks.translators import LabelGenerator, SpatialNorm, Translator, image_patch_critic


def translator(channels: int = 1, **more) -> Translator:
    torch.manual_seed(0)
    return Translator(channels, **{"width": 4, "blocks": 1, **more})


def labels(*shape: int, classes: int = 3) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


def stirred(net: nn.Module, scale: float = 0.3) -> nn.Module:
    """The same with no weight at its first value."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(scale * torch.randn_like(p))
    return net


# -- the translator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalisation", [None, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (7, 30), (33, 18)])
def test_an_untrained_translator_is_the_identity_at_any_size(size: tuple[int, int], normalisation) -> None:
    net = translator(3, normalisation=normalisation)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in normalisation or ([0.5] * 3, [0.5] * 3))
    x = (torch.rand(2, 3, *size) - mean) / std
    torch.testing.assert_close(net(x), x)


def test_a_trained_one_stays_within_what_an_image_can_hold() -> None:
    net, x = stirred(translator(3, normalisation=([0.4] * 3, [0.2] * 3))), torch.zeros(2, 3, 16, 16)
    v = net(x) * 0.2 + 0.4
    assert v.min() >= -1e-6
    assert v.max() <= 1 + 1e-6
    assert (v - 0.4).abs().max() > 0.05


def test_its_change_is_that_of_the_layers_added_to_the_image() -> None:
    """v + tanh(r) in units of 0..1, cut at 0 and 1: r is set to -0.3 for every pixel."""
    net, x = translator(), torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    with torch.no_grad():
        net.body[-1].bias.fill_(-0.3)
    expected = ((x / 2 + 0.5) - torch.tensor(0.3).tanh()).clamp_min(0) * 2 - 1
    torch.testing.assert_close(net(x), expected)


def test_every_weight_of_a_translator_learns_once_the_last_layer_has_left_zero() -> None:
    net, x = translator(blocks=2), torch.rand(2, 1, 18, 20)
    first = torch.optim.SGD(net.parameters(), 1e-4)
    net(x).square().sum().backward()
    first.step()
    net.zero_grad()
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_what_stands_over_is_the_continued_border() -> None:
    net, x = stirred(translator()), torch.rand(1, 1, 9, 14)
    wide = functional.pad(x, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(net(x), net(wide)[:, :, :9, :14])


def test_widths_and_blocks_are_those_of_cyclegan() -> None:
    """Its generator for 256 pixels has 11.4 M weights; a bias before a normalisation (3,840 - 3 here) does nothing."""
    count = sum(p.numel() for p in Translator(3).parameters())
    convolutions = 2 * 3 * 64 * 49 + 3 + 64 * 128 * 9 + 128 * 256 * 9 + 18 * 256 * 256 * 9
    assert count == convolutions + (256 * 128 + 128 * 64) * 16


def test_a_translator_has_no_statistics_of_its_own() -> None:
    assert not batch_norms(translator())
    assert not batch_norms(LabelGenerator(1, 2, 2, 3))
    assert {name for name in translator().state_dict() if "weight" not in name and "bias" not in name} == set()


# -- images of label maps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (5, 9), (32, 24), (33, 40)])
def test_draws_an_image_of_the_size_of_the_label_map(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = stirred(LabelGenerator(3, 4, 2, 5, ([0.4] * 3, [0.2] * 3)), 1.0)
    v = net(labels(2, *size)) * 0.2 + 0.4
    assert v.shape == (2, 3, *size)
    assert v.min() >= -1e-6
    assert v.max() <= 1 + 1e-6


def test_noise_is_drawn_by_the_global_generator_for_each_cell() -> None:
    net, y = LabelGenerator(1, 3, 2, 5), labels(2, 20, 32)
    torch.manual_seed(5)
    one = net(y)
    torch.manual_seed(5)
    assert torch.equal(net(y, torch.randn(2, 5, 3, 4)), one)
    assert not torch.equal(net(y), one)


def test_a_label_changes_the_image_where_it_is() -> None:
    """A label two cells away from a pixel reaches it only through the statistics of the whole map, so it matters less."""
    torch.manual_seed(0)
    net, z = stirred(LabelGenerator(1, 2, 4, 5), 0.1), torch.randn(1, 5, 8, 8)
    y = torch.zeros(1, 64, 64, dtype=torch.long)
    other = y.clone()
    other[:, :12, :12] = 1
    change = (net(y, z) - net(other, z)).abs()
    assert change[..., :12, :12].mean() > 5 * change[..., 32:, 32:].mean() > 0


def test_ignored_pixels_are_of_no_class() -> None:
    net, z = stirred(LabelGenerator(1, 2, 2, 5)), torch.randn(1, 5, 2, 2)
    images = [net(torch.full((1, 16, 16), label), z) for label in (-1, 0, 1)]
    assert len({image.sum().item() for image in images}) == 3
    with torch.no_grad():  # with no class every scale is 1 and every shift 0 but for the biases, here 0 as well
        for norm in net.norms:
            norm.style.bias.zero_()
    x = functional.relu(functional.instance_norm(net.first(z)))
    for rise in net.rise:
        x = functional.relu(functional.instance_norm(rise(x)))
    torch.testing.assert_close(net(torch.full((1, 16, 16), -1), z), net.last(x).tanh())


def test_spatial_norm_scales_and_shifts_each_position_by_its_label() -> None:
    torch.manual_seed(0)
    norm, x = SpatialNorm(2, 2), 3 + torch.randn(1, 2, 6, 6)
    y = torch.zeros(1, 6, 6, dtype=torch.long)
    y[:, :, 3:] = 1
    with torch.no_grad():
        norm.style.weight.zero_()
        norm.style.bias.zero_()
        norm.style.weight[0, 1, 1, 1], norm.style.weight[3, 0, 1, 1] = 0.5, 4.0  # of class 1: scale of channel 0
    found = norm(x, functional.one_hot(y, 2).permute(0, 3, 1, 2).float())
    z = (x - x.mean((2, 3), keepdim=True)) / x.var((2, 3), unbiased=False, keepdim=True).add(1e-5).sqrt()
    expected = z.clone()
    expected[:, 0, :, 3:] *= 1.5
    expected[:, 1, :, :3] += 4
    torch.testing.assert_close(found, expected)


def test_every_weight_of_a_label_generator_learns() -> None:
    net = LabelGenerator(1, 3, 2, 5)
    net(labels(2, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


# -- the critic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "found"), [((192, 192), (22, 22)), ((24, 40), (1, 3)), ((16, 16), (1, 1)), ((5, 64), (1, 6))]
)
def test_one_logit_per_patch(size: tuple[int, int], found: tuple[int, int]) -> None:
    assert image_patch_critic(2, 2)(torch.randn(2, 2, *size)).shape == (2, 1, *found)


def test_a_patch_is_70_pixels_wide() -> None:
    critic, x = image_patch_critic(1, 2), torch.randn(1, 1, 160, 160, requires_grad=True)
    critic(x)[0, 0, 9, 9].backward()
    rows, columns = (x.grad[0, 0].abs().sum(d).nonzero().flatten() for d in (1, 0))
    assert [int(found[-1] - found[0]) + 1 for found in (rows, columns)] == [70, 70]


def test_the_critic_sees_how_bright_an_image_is() -> None:
    """Under instance normalisation, the original's, two constant images differ at the borders alone."""
    torch.manual_seed(0)
    critic = image_patch_critic(1, 4).eval()
    dark, bright = (critic(torch.full((1, 1, 128, 128), value))[0, 0, 6, 6] for value in (-0.8, 0.8))
    assert (dark - bright).abs() > 1e-4


def test_weights_of_the_critic_have_spectral_norm_one() -> None:
    torch.manual_seed(0)
    critic, x = image_patch_critic(1, 2), torch.randn(1, 1, 24, 24)
    for _ in range(200):
        critic(x)
    weights = [layer.weight for layer in critic.eval() if isinstance(layer, nn.Conv2d)]
    assert [torch.linalg.svdvals(w.detach().flatten(1)).max().item() for w in weights] == pytest.approx(
        [1] * 5, abs=1e-3
    )
