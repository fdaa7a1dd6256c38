"""Matching of channels against NumPy on the activations themselves, AdaBN, and networks of every kind."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from acclimate import networks
from acclimate.errors import UsageError
from acclimate.networks import norm
from acclimate.networks.channel_affine import match, matchable_layers, measure_activations
from acclimate.networks.contract import Network

SIDE = 12


class Plain(nn.Module):
    """Convolution, transposed convolution, a dense layer: no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(5, 4, 2, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * (2 * SIDE) ** 2, 6),
            nn.ReLU(),
        )
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


class Normed(nn.Module):
    """Grouped convolution with GroupNorm, tokens with LayerNorm and a dense layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.group = nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.GroupNorm(2, 6)
        self.layer, self.mix = nn.LayerNorm(6), nn.Linear(6, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group(self.conv(x)).relu().flatten(2).transpose(1, 2)
        tokens = self.mix(self.mix(self.layer(tokens)).relu())
        return self.fc(tokens.mean(1))


def network(module: nn.Module) -> Network:
    return Network(module, head="fc", input_shape=(3, SIDE, SIDE))


def lenet(kind: str = "batch") -> Network:
    net = networks.build("lenet", classes=4, channels=3, size=28, norm=kind)
    for _, layer in norm.batch_norms(net):
        nn.init.uniform_(layer.weight, 0.5, 2)
        nn.init.normal_(layer.bias)
    return net


def images(mean: float, spread: float, count: int = 40, side: int = SIDE, seed: int = 0) -> Tensor:
    return mean + spread * torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def outputs(net: nn.Module, x: Tensor, name: str) -> np.ndarray:
    """A layer's output in float64 with the channels first, ``(C, values)``, by a hook of its own."""
    seen: list[Tensor] = []
    layer = net.get_submodule(name)
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    with torch.no_grad():
        net.eval()(x)
    handle.remove()
    axis = -1 if isinstance(layer, (nn.Linear, nn.LayerNorm)) else 1
    return np.concatenate([a.double().movedim(axis, 0).flatten(1).numpy() for a in seen], axis=1)


def matched(net: Network, xs: Tensor, xt: Tensor, size: int = 16) -> dict[str, norm.Moments]:
    """GIM by its definition; returns the source's moments."""
    layers = matchable_layers(net)
    source = measure_activations(net, xs.split(size), layers)
    for name in layers:
        match(net, name, source[name], measure_activations(net, xt.split(size), [name])[name])
    return source


@pytest.mark.parametrize("module", [Plain, Normed])
def test_every_layer_gets_the_moments_that_the_source_had(module: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = network(module())
    xs, xt = images(0, 1), images(0.4, 2.5, seed=1)
    layers = matchable_layers(net)
    before = {name: outputs(net, xs, name) for name in layers}
    assert max(np.abs(outputs(net, xt, n).std(1) / a.std(1) - 1).max() for n, a in before.items()) > 0.05
    matched(net, xs, xt)
    for name in layers if module is Plain else ["module.group", "module.layer"]:
        after = outputs(net, xt, name)
        np.testing.assert_allclose(after.mean(1), before[name].mean(1), atol=1e-3)
        np.testing.assert_allclose(after.std(1), before[name].std(1), rtol=2e-3)


def test_measures_what_numpy_does() -> None:
    torch.manual_seed(1)
    net, x = network(Normed()), images(0.3, 1.2)
    found = measure_activations(net, [x[:7], x[7:7], x[7:]], matchable_layers(net))
    assert list(found) == ["module.group", "module.layer", "module.mix"]
    for name, moments in found.items():
        values = outputs(net, x, name)
        assert moments.count == values.shape[1]
        np.testing.assert_allclose(moments.mean, values.mean(1), atol=1e-6)
        np.testing.assert_allclose(moments.variance, values.var(1), rtol=1e-5)


def test_match_is_the_affine_map_on_every_value() -> None:
    """Also of a grouped or transposed convolution, whose weight has its channels elsewhere."""
    torch.manual_seed(2)
    moments = [norm.Moments(torch.randn(4).double(), torch.rand(4).double() + 0.5, 0) for _ in range(2)]
    source, target = moments
    for layer in (nn.ConvTranspose2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.GroupNorm(2, 4)):
        net, x = nn.Sequential(layer), torch.randn(2, 4, 6, 6)
        a = outputs(net, x, "0")
        match(net, "0", source, target)
        sigma_s, sigma_t = (np.sqrt(m.variance.numpy() + 1e-5)[:, None] for m in moments)
        wanted = sigma_s * (a - target.mean.numpy()[:, None]) / sigma_t + source.mean.numpy()[:, None]
        np.testing.assert_allclose(outputs(net, x, "0"), wanted, rtol=1e-4, atol=1e-5)


def test_match_of_batch_norm_is_the_same_map_of_its_input() -> None:
    torch.manual_seed(3)
    layer: Any = nn.BatchNorm2d(4)
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    nn.init.normal_(layer.weight)
    net, x = nn.Sequential(layer).eval(), torch.randn(2, 4, 6, 6)
    source, target = (norm.Moments(torch.randn(4).double(), torch.rand(4).double() + 0.5, 0) for _ in range(2))
    shape = (1, 4, 1, 1)
    scale = ((source.variance + 1e-5) / (target.variance + 1e-5)).sqrt().view(shape)
    wanted = net((scale * (x - target.mean.view(shape)) + source.mean.view(shape)).float())
    match(net, "0", source, target)
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-5)


def test_is_exact_adabn_where_the_network_has_batch_norm() -> None:
    """Once the running statistics are the source's own, to the last bit but rounding."""
    torch.manual_seed(4)
    net = lenet()
    xs, xt = images(0, 1, side=28), images(0.4, 2.0, side=28, seed=1)
    norm.restat(net, xs.split(16), mode="exact")
    adabn = copy.deepcopy(net)
    norm.restat(adabn, xt.split(16), mode="exact")
    matched(net, xs, xt)
    for name, wanted in norm.statistics(adabn).items():
        found = norm.statistics(net)[name]
        torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.variance, wanted.variance, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(xt).logits, adabn.eval()(xt).logits, rtol=1e-3, atol=1e-4)


def test_a_network_that_sees_the_source_again_stays_as_it_is() -> None:
    torch.manual_seed(5)
    net, xs = network(Plain()), images(0, 1)
    before = copy.deepcopy(net)
    matched(net, xs, xs)
    for mine, theirs in zip(net.state_dict().values(), before.state_dict().values()):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_one_pass_with_matched_batches_is_the_exact_result_where_one_batch_is_all() -> None:
    torch.manual_seed(6)
    exact, once = network(Plain()), network(Plain())
    once.load_state_dict(exact.state_dict())
    xs, xt = images(0, 1), images(0.4, 2.0, seed=1)
    layers = matchable_layers(exact)
    source = matched(exact, xs, xt, size=40)
    for name, moments in measure_activations(once, [xt], layers, like=source).items():
        match(once, name, source[name], moments)
    for name, value in once.state_dict().items():
        torch.testing.assert_close(value, exact.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_measuring_leaves_no_trace() -> None:
    torch.manual_seed(7)
    net = lenet().train()
    before = copy.deepcopy(net.state_dict())
    layers = matchable_layers(net)
    found = measure_activations(net, images(0, 1, side=28).split(16), layers[:2])
    measure_activations(net, images(0, 1, side=28).split(16), layers[:2], like=found)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values()))
    assert all(module.training for module in net.modules())
    assert not net._kept
    assert not any(layer._forward_pre_hooks for _, layer in norm.batch_norms(net))


def test_a_pass_ends_at_the_last_layer_of_interest() -> None:
    module = Plain()
    net = network(module)
    calls: list[int] = []
    module.body[5].register_forward_pre_hook(lambda *_: calls.append(1))
    layers = matchable_layers(net)
    assert len(calls) == 1  # of the trial
    calls.clear()
    measure_activations(net, [images(0, 1), images(0, 1)], layers[:2])
    assert len(calls) == 1  # of the trial; never of a batch
    net(images(0, 1))
    assert len(calls) == 2


@pytest.mark.parametrize(("count", "r"), [(1, 0.0), (2, 0.3)])
def test_processes_pool_their_shares(count: int, r: float) -> None:
    """Two processes, played one after the other: what one tells the other is put back in."""
    torch.manual_seed(8)
    net, x = network(Plain()), images(0.2, 1.5)
    layers = matchable_layers(net)[:1]
    whole = measure_activations(net, [x], layers)[layers[0]]
    cut = int(len(x) * r)
    shares = [x[:cut], x[cut:]][-count:]
    lone = [measure_activations(net, [share], layers)[layers[0]] for share in shares]
    told: list[Tensor] = []

    def other(which: int, mean: Tensor) -> list[Tensor]:
        m = lone[which]
        n = torch.tensor(m.count, dtype=torch.float64)
        return [n, n * m.mean, n * (m.variance + (m.mean - mean).square())]

    def total(value: Tensor) -> Tensor:
        told.append(value)
        return value + sum(other(i, whole.mean)[len(told) - 1] for i in range(1, len(lone)))

    found = measure_activations(net, [shares[0]], layers, total)[layers[0]]
    assert found.count == whole.count
    torch.testing.assert_close(found.mean, whole.mean)
    torch.testing.assert_close(found.variance, whole.variance)


# -- which layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda: lenet("none"), ["body.0.0", "body.0.3", "body.1"]),
        (lenet, ["body.0.1", "body.0.5", "body.2"]),  # BatchNorm alone: convolutions have no bias
        (lambda: networks.build("dann-mnist", classes=4), ["body.0", "body.3", "head.0", "head.2"]),
        (lambda: network(Normed()), ["group", "layer", "mix"]),
    ],
    ids=["lenet", "lenet with BatchNorm", "a head of three layers", "other norms"],
)
def test_chooses_all_layers_with_a_shift_but_that_of_the_logits(build: Any, wanted: list[str]) -> None:
    assert matchable_layers(build()) == [f"module.{name}" for name in wanted]


def test_a_convolution_that_batch_norm_follows_at_once_is_left_to_it() -> None:
    def layers(*between: nn.Module) -> list[str]:
        body = nn.Sequential(nn.Conv2d(3, 4, 3), *between, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        module = nn.Sequential()
        module.body, module.fc = body, nn.Linear(4 * (SIDE - 2) ** 2, 3)
        return matchable_layers(network(module))

    assert layers() == ["module.body.1"]
    assert layers(nn.Dropout2d()) == ["module.body.2"]
    assert layers(nn.ReLU(inplace=True)) == ["module.body.0", "module.body.2"]  # the same memory, other values


def test_leaves_out_what_has_no_weight_of_its_own() -> None:
    module = Plain()
    weight_norm(module.body[0])
    assert matchable_layers(network(module)) == ["module.body.2", "module.body.5"]


def test_takes_names_and_prefixes() -> None:
    net = lenet("none")
    assert matchable_layers(net, ["body.0"]) == ["module.body.0.0", "module.body.0.3"]
    assert matchable_layers(net, ["module.body.1", "body.0.0"]) == ["module.body.0.0", "module.body.1"]
    with pytest.raises(UsageError, match=r"body\.9.*layers: module"):
        matchable_layers(net, ["body.9"])


def test_says_when_there_is_nothing_to_match() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8, bias=False), nn.ReLU())
    module.fc = nn.Linear(8, 3)
    with pytest.raises(UsageError, match="choose a method that trains"):
        matchable_layers(network(module))
    with pytest.raises(UsageError, match="no image"):
        measure_activations(lenet(), iter(()), ["module.body.2"])
