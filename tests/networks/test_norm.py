"""BatchNorm policies and re-estimated statistics against exact moments."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from runs import network
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks.contract import Network
from acclimate.networks.norm import batch_norms, both, restat


class OneLayer(nn.Module):
    """BatchNorm on the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(x).mean((2, 3)))


IMAGES = torch.randn(37, 3, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1


@pytest.mark.parametrize("batch", [1, 5, 37])
def test_statistics_are_the_exact_moments_whatever_the_batch(batch: int) -> None:
    net = OneLayer()
    restat(net, IMAGES.split(batch))
    values = IMAGES.numpy().astype(np.float64).swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_allclose(net.norm.running_mean, values.mean(1), rtol=1e-6)
    np.testing.assert_allclose(net.norm.running_var, values.var(1, ddof=1), rtol=1e-6)


def test_variance_between_batches_counts() -> None:
    """Constant images: every batch alone has no variance."""
    levels = torch.tensor([0.0, 1.0, 2.0, 3.0])
    net = OneLayer()
    restat(net, [torch.full((1, 3, 2, 2), float(v)) for v in levels])
    np.testing.assert_allclose(net.norm.running_var, np.var(levels.repeat_interleave(4).numpy(), ddof=1), rtol=1e-6)


def test_large_mean_does_not_swallow_the_variance() -> None:
    net = OneLayer()
    restat(net, (IMAGES + 1000).split(4))
    np.testing.assert_allclose(net.norm.running_var, IMAGES.transpose(0, 1).flatten(1).var(1), rtol=1e-3)


def test_only_running_statistics_move_and_modes_stay() -> None:
    net = network("classification")
    net.train()
    net.head.eval()
    before = copy.deepcopy(net.state_dict())
    restat(net, torch.randn(20, 3, 16, 16).split(5))
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[2] for name in moved} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert sum("running_mean" in name for name in moved) == 2
    assert net.training
    assert not net.head.training
    assert not any(layer._forward_pre_hooks for _, layer in batch_norms(net))
    assert {layer.momentum for _, layer in batch_norms(net)} == {0.1}


def test_predictions_are_blind_to_gain_and_offset() -> None:
    """Re-estimated on a x + b, a network with replicate padding sees what it saw on x."""
    net = network("segmentation").eval()
    x = torch.rand(6, 1, 32, 32)
    restat(net, [x])
    plain = net(x).logits
    changed = 0.3 * x - 0.1
    assert not torch.allclose(net(changed).logits, plain, atol=0.05)
    restat(net, [changed])
    torch.testing.assert_close(net(changed).logits, plain, atol=2e-3, rtol=1e-3)


def test_layer_that_is_never_called_keeps_its_statistics() -> None:
    net = OneLayer()
    net.auxiliary = nn.BatchNorm1d(2)
    restat(net, [IMAGES])
    assert torch.equal(net.auxiliary.running_mean, torch.zeros(2))
    assert torch.equal(net.auxiliary.running_var, torch.ones(2))


def test_statistics_of_two_processes_pool() -> None:
    """Each half adds the other's sums: ``total`` stands for the collective."""
    caught: list[torch.Tensor] = []
    restat(OneLayer(), [IMAGES[20:]], lambda value: caught.append(value) or value)
    net, whole = OneLayer(), OneLayer()
    restat(net, [IMAGES[:20]], lambda value: value + caught[0])
    restat(whole, [IMAGES])
    torch.testing.assert_close(net.norm.running_var, whole.norm.running_var)


def test_compiled_network_is_re_estimated_each_time() -> None:
    """Compiled code need not run hooks that are registered after its first trace."""
    net = Network(OneLayer(), input_shape=(3, 5, 4)).train()
    net.compile(backend="eager")
    layer = net.module.norm
    for images in (IMAGES, IMAGES * 2 + 1):
        net(images)
        restat(net, images.split(10))
        torch.testing.assert_close(layer.running_mean, images.mean((0, 2, 3)))


def test_network_without_batch_norm_is_refused() -> None:
    with pytest.raises(UsageError, match="no BatchNorm"):
        restat(network("classification", norm=False), [])


# -- policies ---------------------------------------------------------------------------------------------------------


def layer_of(net: Network) -> Any:
    return batch_norms(net)[0][1]


def expected_mean(old: torch.Tensor, *batches: torch.Tensor) -> torch.Tensor:
    for x in batches:
        old = 0.9 * old + 0.1 * x.mean((0, 2, 3))
    return old


XS, XT = IMAGES[:8], IMAGES[8:14] * 2 + 5


@pytest.mark.parametrize(
    ("policy", "moved_by"),
    [("joint", [torch.cat([XS, XT])]), ("separate", [XS, XT]), ("target", [XT]), ("source", [XS]), ("frozen", [])],
)
def test_policy_says_who_moves_the_running_statistics(policy: Any, moved_by: list[torch.Tensor]) -> None:
    net = Network(OneLayer(), input_shape=(3, 5, 4)).train()
    both(net, XS, XT, policy)
    torch.testing.assert_close(layer_of(net).running_mean, expected_mean(torch.zeros(3), *moved_by))
    assert layer_of(net).momentum == 0.1
    assert layer_of(net).training


@pytest.mark.parametrize("policy", ["separate", "target", "source"])
def test_two_passes_normalise_each_domain_by_its_own_batch(policy: Any) -> None:
    net = Network(OneLayer(), input_shape=(3, 5, 4)).train()
    for out in both(net, XS, XT, policy):
        torch.testing.assert_close(out.features, torch.zeros_like(out.features), atol=5.0, rtol=0)
        torch.testing.assert_close(out.features.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_joint_pass_normalises_by_the_mixture_and_frozen_by_the_running_ones() -> None:
    net = Network(OneLayer(), input_shape=(3, 5, 4)).train()
    s, t = both(net, XS, XT, "joint")
    assert s.features.mean() < -0.3 < 0.3 < t.features.mean()
    s, t = both(Network(OneLayer(), input_shape=(3, 5, 4)).train(), XS, XT, "frozen")
    torch.testing.assert_close(s.features, XS.mean((2, 3)), atol=1e-3, rtol=1e-3)


def test_without_batch_norm_all_policies_agree() -> None:
    net = network("classification", norm=False)
    xs, xt = torch.randn(4, 3, 16, 16), torch.randn(3, 3, 16, 16)
    for policy in ("joint", "separate", "target", "source", "frozen"):
        s, t = both(net, xs, xt, policy)  # type: ignore[arg-type]
        torch.testing.assert_close(s.logits, net(xs).logits)
        torch.testing.assert_close(t.logits, net(xt).logits)
