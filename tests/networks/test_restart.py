"""A network begins afresh, or says which layer cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runs import differs, network
from torch import nn

from acclimate import networks
from acclimate.errors import UsageError
from acclimate.networks.contract import Network
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

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), Scaled(), nn.Linear(3, 2))
    net = Network(module, "3", input_shape=(3, 2, 2))
    with pytest.raises(UsageError, match=r"2 cannot begin afresh; give Scaled .*reset_parameters"):
        restarted(net)


@pytest.mark.parametrize(
    ("name", "settings"), [("fcn8s", {"width": 0.0625}), ("deeplab-v2", {"depth": 18, "head": "proda"})]
)
def test_a_registered_network_begins_at_the_scale_it_was_built_with(name: str, settings: dict[str, Any]) -> None:
    """Weights that a network's own constructor draws, and no ``reset_parameters`` would."""
    net = networks.build(name, classes=2, channels=3, size=33, **settings)
    fresh = restarted(net)
    for (key, was), now in zip(net.named_parameters(), fresh.parameters(), strict=True):
        if was.ndim == 4 and was.numel() > 2000:
            assert now.std().item() == pytest.approx(was.std().item(), rel=0.15), key
            assert not torch.equal(was, now)
