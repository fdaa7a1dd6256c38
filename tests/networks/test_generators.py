"""Networks that draw images of a class, and the critic of images that they play against."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from acclimate.errors import UsageError
from acclimate.networks.critics import image_critic
from acclimate.networks.generators import ConditionalNorm, Generator
from acclimate.networks.norm import batch_norms


def made(shape: tuple[int, int, int] = (3, 16, 16), **more) -> Generator:
    torch.manual_seed(0)
    return Generator(shape, 4, **{"width": 4, "latent": 5, **more})


# -- the generator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 40, 40), (3, 16, 16), (1, 4, 9), (2, 30, 45)])
def test_draws_images_of_the_shape_that_is_asked_for(shape: tuple[int, int, int]) -> None:
    net = made(shape)
    assert net(torch.tensor([0, 3, 1])).shape == (3, *shape)


def test_default_widths_are_those_of_its_docstring() -> None:
    net = Generator((3, 32, 32), 10)
    assert net.begin == (512, 4, 4)
    assert [(rise.in_channels, rise.out_channels) for rise in net.rise] == [(512, 256), (256, 128), (128, 64)]
    assert Generator((1, 28, 28), 10, width=32).begin == (128, 7, 7)
    assert Generator((3, 224, 224), 10, width=8).begin == (64, 7, 7)  # 8 times the width at most


def test_images_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match="4 x 4 pixels or more, not 3 x 9"):
        made((1, 3, 9))


def test_values_are_images_in_0_to_1_normalised_as_the_network_wants_them() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain, other = made(), made(normalisation=(mean, std))
    y, z = torch.tensor([0, 1, 2, 3]), 100 * torch.randn(4, 5)  # tanh saturates
    v = plain(y, z) / 2 + 0.5
    assert v.min() >= 0
    assert v.max() <= 1
    assert v.min() < 0.1
    assert v.max() > 0.9
    expected = (v - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(other(y, z), expected)


def test_what_stands_over_is_cut_off_evenly() -> None:
    """30 = 4 * 8 - 2: one pixel is cut on each side of what the same weights would draw at 32."""
    small, large = made((1, 30, 30)), made((1, 30, 30))
    large.size = (32, 32)
    y, z = torch.tensor([0, 1]), torch.randn(2, 5)
    torch.testing.assert_close(small(y, z), large(y, z)[:, :, 1:-1, 1:-1])


def test_noise_comes_from_the_global_generator() -> None:
    net, y = made().eval(), torch.tensor([0, 1, 2])
    torch.manual_seed(5)
    one = net(y)
    torch.manual_seed(5)
    assert torch.equal(net(y, torch.randn(3, 5)), one)
    assert not torch.equal(net(y), one)


def test_every_parameter_learns_and_the_class_changes_the_image() -> None:
    net, z = made(), torch.randn(1, 5).expand(4, 5)
    net(torch.arange(4), z).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    images = net.eval()(torch.arange(4), z)
    assert len({image.sum().item() for image in images}) == 4


def test_class_norm_is_batch_norm_with_a_scale_and_a_shift_of_the_class() -> None:
    torch.manual_seed(0)
    norm, x, y = ConditionalNorm(3, 2), 5 + 2 * torch.randn(6, 3, 4, 4), torch.tensor([0, 1, 1, 0, 0, 1])
    assert torch.allclose(norm(x, y), functional.batch_norm(x, None, None, training=True))
    with torch.no_grad():
        norm.scale.weight.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
        norm.shift.weight.copy_(torch.tensor([[0.0, 0, 0], [7, 8, 9]]))
    found = norm(x, y)
    for k in (0, 1):
        own = functional.batch_norm(x, None, None, norm.scale.weight[k], norm.shift.weight[k], training=True)
        torch.testing.assert_close(found[y == k], own[y == k])


def test_statistics_of_the_generator_are_found_as_batch_norm() -> None:
    """So that they are averaged over processes, and can be held."""
    assert len(batch_norms(made())) == 3


# -- the critic of images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 16, 16), (2, 8, 15), (3, 41, 40)])
def test_one_logit_per_image(shape: tuple[int, int, int]) -> None:
    assert image_critic(shape, 4)(torch.randn(3, *shape)).shape == (3, 1)


def test_a_critic_refuses_images_that_it_cannot_halve_three_times() -> None:
    with pytest.raises(UsageError, match="8 x 8 pixels or more, not 8 x 7"):
        image_critic((1, 8, 7))


def norms(critic: nn.Sequential) -> list[float]:
    """The largest singular value of every weight matrix in use, by decomposition."""
    layers = [layer for layer in critic if isinstance(layer, nn.Conv2d | nn.Linear)]
    return [torch.linalg.svdvals(layer.weight.detach().flatten(1)).max().item() for layer in layers]


def test_weights_have_spectral_norm_one_after_some_forward_passes() -> None:
    torch.manual_seed(0)
    critic, x = image_critic((1, 16, 16), 4), torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(3).add_(0.01)
        for _ in range(200):
            critic(x)
    assert norms(critic.eval()) == pytest.approx([1, 1, 1, 1], abs=1e-3)


def test_only_training_mode_refines_the_estimate() -> None:
    critic, x = image_critic((1, 16, 16), 4), torch.randn(2, 1, 16, 16)
    before = copy.deepcopy(critic.state_dict())
    critic.eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), critic.state_dict().values()))
    critic.train()(x)
    moved = {
        name.rsplit(".", 1)[1] for name, value in critic.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"_u", "_v"}


def one_step(critic: nn.Module, x: Tensor) -> Tensor:
    optimiser = torch.optim.SGD(critic.parameters(), 0.1)
    optimiser.zero_grad()
    critic(x).sum().backward()
    optimiser.step()
    return critic(x).detach()


def test_a_critic_can_be_copied_and_kept_in_a_file_with_its_estimates(tmp_path) -> None:
    torch.manual_seed(0)
    critic, x = image_critic((1, 16, 16), 4), torch.randn(2, 1, 16, 16)
    one_step(critic, x)
    twin, other = copy.deepcopy(critic), image_critic((1, 16, 16), 4)
    save_file(
        {name: value.contiguous() for name, value in critic.state_dict().items()}, tmp_path / "critic.safetensors"
    )
    other.load_state_dict(load_file(tmp_path / "critic.safetensors"))
    assert {id(p) for p in twin.parameters()}.isdisjoint({id(p) for p in critic.parameters()})
    expected = one_step(critic, x)
    assert torch.equal(one_step(twin, x), expected)
    assert torch.equal(one_step(other, x), expected)


def test_all_that_learns_is_among_its_parameters() -> None:
    critic = image_critic((1, 16, 16), 4)
    critic(torch.randn(3, 1, 16, 16)).sum().backward()
    assert len(list(critic.parameters())) == 8  # four weights, four biases
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())
