"""A network begins afresh, or says which layer cannot."""

from __future__ import annotations

import pytest
import torch
from runs import differs, network
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks.restart import restarted


def test_all_weights_and_statistics_are_new_and_the_original_rests() -> None:
    net = network("segmentation")
    net.train()(torch.randn(2, 1, 32, 32))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(7)
    fresh = restarted(net)
    assert not differs(before, net.state_dict())
    assert all(not torch.equal(a, b) for a, b in zip(fresh.parameters(), net.parameters(), strict=True))
    assert all(p.abs().max() <= 1 for p in fresh.parameters())
    assert all(m.running_mean.eq(0).all() for m in fresh.modules() if isinstance(m, nn.BatchNorm2d))  # type: ignore[union-attr]
    torch.manual_seed(7)
    assert not differs(restarted(net).state_dict(), fresh.state_dict())


def test_names_a_layer_that_cannot_begin_afresh() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(UsageError, match=r"1 cannot begin afresh; give Scaled .*reset_parameters"):
        restarted(nn.Sequential(nn.Linear(3, 3), Scaled()))
