"""BatchNorm at rest: by what it does in training, and that statistics can still be read and re-estimated."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks.contract import Network
from acclimate.networks.norm import batch_norms, both, frozen, held, restat, statistics
from acclimate.networks.resting import RestingBatchNorm2d, set_batch_norm


def network(mode):
    torch.manual_seed(0)
    module = nn.Sequential()
    module.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)))
    module.head = nn.Conv2d(4, 2, 1)
    set_batch_norm(module, mode)
    for _, layer in batch_norms(module):
        nn.init.normal_(layer.running_mean)
        nn.init.uniform_(layer.running_var, 0.5, 2)
        nn.init.uniform_(layer.weight, 0.5, 2)
    return Network(module, "head", input_shape=(3, 12, 12))


def images(seed=1):
    return 0.5 + 2 * torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("mode", "own_statistics", "statistics_move", "affine_learns"),
    [("trained", True, True, True), ("frozen-affine", True, True, False), ("frozen", False, False, False)],
)
def test_the_three_meanings(mode, own_statistics, statistics_move, affine_learns):
    net, x = network(mode), images()
    before = statistics(net)
    resting = net.eval()(x).logits
    trained = net.train()(x).logits
    assert torch.allclose(resting, trained) == (not own_statistics)
    for name, moments in statistics(net).items():
        assert torch.equal(moments.mean, before[name].mean) == (not statistics_move)
        assert torch.equal(moments.variance, before[name].variance) == (not statistics_move)
    trained.square().sum().backward()
    for _, layer in batch_norms(net):
        assert (layer.weight.grad is not None) == (layer.bias.grad is not None) == affine_learns
    assert net.module.body[0].weight.grad.any()


def test_names_stay():
    assert network("frozen").state_dict().keys() == network("trained").state_dict().keys()


@pytest.mark.parametrize("mode", ["cumulative", "exact", "ema"])
def test_statistics_are_found_and_re_estimated_as_in_a_trained_network(mode):
    resting, trained = network("frozen").train(), network("trained").train()
    trained.load_state_dict(resting.state_dict())
    assert [name for name, _ in batch_norms(resting)] == [name for name, _ in batch_norms(trained)] != []
    before = statistics(resting)
    for net in (resting, trained):
        restat(net, images().split(3), mode=mode)
    for name, moments in statistics(resting).items():
        assert not torch.equal(moments.mean, before[name].mean)
        torch.testing.assert_close(moments, statistics(trained)[name], rtol=0, atol=0)
    torch.testing.assert_close(resting(images(2)).logits, trained.eval()(images(2)).logits)


def test_rests_through_every_policy_and_copy():
    net, xs, xt = network("frozen").train(), images(1), images(2)
    before, expected = statistics(net), net(xs).logits
    for one in (net, copy.deepcopy(net)):
        for policy in ("joint", "separate", "target", "source", "frozen"):
            torch.testing.assert_close(both(one, xs, xt, policy)[0].logits, expected)
        for context in (held, frozen):
            with context(one):
                torch.testing.assert_close(one(xs).logits, expected)
        assert not any(layer.training for _, layer in batch_norms(one.train()))
        for name, moments in statistics(one).items():
            torch.testing.assert_close(moments, before[name], rtol=0, atol=0)
    assert net.training


def test_is_made_at_rest():
    layer = RestingBatchNorm2d(3)
    assert not layer.training
    assert not any(p.requires_grad for p in layer.parameters())


def test_another_mode_is_refused():
    with pytest.raises(UsageError, match=r"batch_norm 'frozen_affine'; did you mean 'frozen-affine'"):
        set_batch_norm(nn.Sequential(), "frozen_affine")
