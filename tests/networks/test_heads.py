"""Further heads: the same function of features, with other weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acclimate.errors import UsageError
from acclimate.networks import Network, build
from acclimate.networks.heads import fresh_head


@pytest.mark.parametrize("name", ["lenet", "dann-mnist", "vada-small", "unet"])
def test_a_fresh_head_takes_the_features_and_has_weights_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, classes=5, channels=1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    head = fresh_head(net)
    out = net.eval()(torch.randn(2, *net.input_shape))
    assert head.eval()(out.features).shape == out.logits.shape
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    for mine, theirs in zip(head.parameters(), net.head.parameters(), strict=True):
        assert mine is not theirs
        assert mine.shape == theirs.shape
        assert mine.ndim == 1 or not torch.allclose(mine, theirs)


def test_a_fresh_head_reads_for_no_network() -> None:
    """The hooks of the original neither fire in the copy nor are lost."""
    net = Network(nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))), "1",
                  input_shape=(1, 2, 2), taps=("1.0",))  # fmt: skip
    head = fresh_head(net)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in head.modules())
    x = torch.randn(2, 1, 2, 2)
    out = net(x)
    head(torch.full_like(out.features, 7.0))
    again = net(x)
    assert torch.equal(again.features, x.flatten(1))
    assert torch.equal(again.taps["1.0"], out.taps["1.0"])


def test_a_fresh_head_follows_the_global_generator() -> None:
    net = build("lenet", classes=3)
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(fresh_head(net).weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_head_that_cannot_be_drawn_anew_is_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    net = Network(nn.Sequential(nn.Flatten(), Own()), "1", input_shape=(1, 2, 2))
    with pytest.raises(UsageError, match=r"drawn anew.*'w'.*reset_parameters"):
        fresh_head(net)
