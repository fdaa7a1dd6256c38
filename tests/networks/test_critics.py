"""Critics for vectors and for maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks.critics import critic


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
