"""Gaussian and general activation matching where the paper has them for segmentation: at layers 4, 8, 12 and 17 of ERFNet."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from runs import assert_same, plan, small, start
from torch import Tensor, nn

from acclimate.engine.adapt import Adapted
from acclimate.engine.update import Updater
from acclimate.methods import find
from acclimate.methods.base import Progress
from acclimate.networks.contract import Network
from acclimate.networks.erfnet import erfnet
from acclimate.networks.norm import restat

LAYERS = {"4": 0.4, "8": 0.3, "12": 0.2, "17": 0.1}
WIDTHS = {"4": 16, "8": 32, "12": 32, "17": 4}


def pixels(domain: Any) -> Tensor:
    return torch.from_numpy(np.asarray(domain.images)).permute(0, 3, 1, 2) / 127.5 - 1


@functools.cache
def tuned() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = erfnet(2, 1, (16, 16), width=4)
    restat(net, [pixels(small("segmentation")[0])])
    return net


def network() -> Network:
    """A narrow ERFNet whose running statistics are the source's."""
    return copy.deepcopy(tuned())


def run(method: Any = "gam", **settings: Any) -> Adapted:
    settings = {"critics": LAYERS, "hidden": (8,), "gim": False, **settings} if method != "gim" else settings
    return start(method, "segmentation", net=network(), how=plan(steps=2), **settings)


def test_critics_read_the_four_layers_by_1x1_convolutions() -> None:
    """A deviation that the card names: strided 3x3 convolutions would see neighbours."""
    method = run().model.method
    for judge, width in zip(method.critics, WIDTHS.values(), strict=True):
        convolutions = [layer for layer in judge if isinstance(layer, nn.Conv2d)]
        assert [c.in_channels for c in convolutions] == [width, 8]
        assert {c.kernel_size for c in convolutions} == {(1, 1)}
        assert judge(torch.zeros(2, width, 5, 3)).shape == (2, 1, 5, 3)
    assert any("1x1 convolutions" in text and "4, 8, 12 and 17" in text for text in find("gam").card.deviations)


def test_terms_are_least_squares_at_the_four_layers() -> None:
    seen: dict[str, Any] = {}

    class Watched(find("gam")):  # type: ignore[misc]
        def step(self, source: Any, target: Any, at: Progress) -> Any:
            seen.update(method=copy.deepcopy(self), source=source.x, target=target.x)
            return super().step(source, target, at)

    def catch(self: Updater, terms: Any, players: Any) -> None:
        seen.update(terms)  # no weight moves, so both updates see the same critics
        if "drift" in terms:
            raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Updater, "update", catch)
        with pytest.raises(StopIteration):
            run(Watched)
    method = seen["method"]
    s, t = method.source_net(seen["source"]).taps, method.net(seen["target"]).taps
    domain = adversarial = torch.zeros(())
    for (layer, weight), judge in zip(LAYERS.items(), method.critics):
        real, fake = judge(s[layer]), judge(t[layer])
        domain = domain + weight * ((real - 1).square().mean() + fake.square().mean()) / 2
        adversarial = adversarial + weight * (fake - 1).square().mean()
    torch.testing.assert_close(seen["domain"], domain)
    torch.testing.assert_close(seen["adversarial"], adversarial)


def test_the_source_network_rests_and_all_else_moves() -> None:
    method = run().model.method
    assert_same(method.source_net.state_dict(), network().state_dict())
    # behind the last critic no gradient arrives
    before, after = (dict(net.named_parameters()) for net in (tuned(), method.net))
    still = {name.split(".")[1] for name, value in after.items() if torch.equal(value, before[name])}
    assert still == {"head"}


def test_gaussian_matching_repairs_most_of_the_shift_at_the_four_layers() -> None:
    """Channel means, in the source's deviations; sums of blocks are not matched themselves, so something is left."""
    source, target = (pixels(domain) for domain in small("segmentation")[:2])
    matched = run("gim", mode="cumulative").model.method.net.eval()
    with torch.no_grad():
        s, before, after = network().eval()(source).taps, network().eval()(target).taps, matched(target).taps
    for layer in LAYERS:
        deviation, mean = torch.std_mean(s[layer], (0, 2, 3))
        gaps = [((out[layer].mean((0, 2, 3)) - mean) / (deviation + 1e-3)).abs().mean() for out in (before, after)]
        assert gaps[1] < gaps[0] / 2, (layer, gaps)
