"""Fine-tuning: which weights move, what BatchNorm does, and the loss, against plain gradient descent by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import toys
from runs import few, network, plan, small
from torch import Tensor
from torch.nn import functional

from acclimate.engine.adapt import adapt
from acclimate.methods import Method
from acclimate.networks.contract import Network
from acclimate.networks.norm import batch_norms, restat
from acclimate.plan import Optimiser
from acclimate.tasks import build

PLAIN = Optimiser(lr=0.05, momentum=0.0, schedule="constant")
TARGET = small("classification")[1]


def inputs(domain: Any) -> Tensor:
    """The images as the network sees them."""
    return torch.from_numpy(np.stack([domain.images[i] for i in range(len(domain))])).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture
def net() -> Network:
    """A network whose running statistics are the source's, not zeros and ones."""
    made = network("classification")
    restat(made, [inputs(small("classification")[0])])
    return made


def tuned(net: Network, how: Any = None, **settings: Any) -> Method:
    task = build("classification", TARGET.classes)
    more = {"plan": how or plan(batch=4), "preprocess": toys.PREPROCESS["classification"], "device": "cpu"}
    return adapt(net, None, None, "fine-tune", labelled=few(TARGET), task=task, **more, **settings).model.method


def moved(before: Network, after: Network) -> set[str]:
    old = dict(before.named_parameters())
    return {name for name, p in after.named_parameters() if not torch.equal(p, old[name])}


@pytest.mark.parametrize("pull", [0.0, 3.0])
def test_is_gradient_descent_by_hand(net: Network, pull: float) -> None:
    """Three steps on the whole set under the source's statistics: min CE + pull / 2 * ||theta - theta_0||^2."""
    theirs, start = copy.deepcopy(net).eval(), copy.deepcopy(net)
    x, y = inputs(few(TARGET)), torch.tensor([int(label) for label in few(TARGET).labels or ()])
    for _ in range(3):
        distance = sum(((p - q.detach()) ** 2).sum() for p, q in zip(theirs.parameters(), start.parameters()))
        loss = functional.cross_entropy(theirs(x).logits, y) + pull / 2 * distance
        gradients = torch.autograd.grad(loss, list(theirs.parameters()))
        with torch.no_grad():
            for p, gradient in zip(theirs.parameters(), gradients):
                p -= 0.05 * gradient
    mine = tuned(net, plan(steps=3, batch=4, optimiser=PLAIN), pull=pull).net
    for (name, p), q in zip(mine.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6, msg=name)
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(mine.parameters(), start.parameters()))


def test_part_says_which_weights_move(net: Network) -> None:
    norms = {f"{name}.{what}" for name, _ in batch_norms(net) for what in ("weight", "bias")}
    head = {"module.fc.weight", "module.fc.bias"}
    assert moved(net, tuned(net, part="head").net) == head
    assert moved(net, tuned(net, part="norm+head").net) == head | norms
    assert moved(net, tuned(net).net) == {name for name, _ in net.named_parameters()}


def test_no_step_moves_running_statistics(net: Network) -> None:
    after = dict(batch_norms(tuned(net).net))
    for name, layer in batch_norms(net):
        assert torch.equal(layer.running_mean, after[name].running_mean)
        assert torch.equal(layer.running_var, after[name].running_var)
        assert torch.equal(layer.num_batches_tracked, after[name].num_batches_tracked)


@pytest.mark.parametrize("prior", [0.0, 12.0])
def test_statistics_of_the_labelled_images_are_mixed_in_once(net: Network, prior: float) -> None:
    with torch.no_grad():
        first = net.module.body[0](inputs(few(TARGET)))
    share = 4 / (prior + 4)
    old, new = net.module.body[1], tuned(net, norm="target", prior=prior).net.module.body[1]
    mean = (1 - share) * old.running_mean + share * first.mean((0, 2, 3))
    variance = (1 - share) * old.running_var + share * first.var((0, 2, 3), unbiased=True)
    torch.testing.assert_close(new.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new.running_var, variance, rtol=1e-4, atol=1e-5)


def test_a_network_without_batch_norm_has_nothing_to_re_estimate() -> None:
    bare = network("classification", norm=False)
    assert moved(bare, tuned(bare, norm="target").net)
