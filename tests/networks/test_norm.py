"""BatchNorm policies and re-estimated statistics against exact moments."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from runs import network
from torch import nn

from acclimate import networks
from acclimate.errors import UsageError
from acclimate.networks.contract import Network
from acclimate.networks.norm import (
    Moments,
    batch_norms,
    both,
    call_order,
    compare,
    measure,
    recommended_prior,
    restat,
    schneider_bound,
    set_statistics,
    statistics,
)


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


def in_processes(images: Sequence[torch.Tensor], make: Callable[[], Any] = OneLayer, **settings: Any) -> list[Any]:
    """One thread for each share of the images stands for a process; ``total`` adds what all of them bring."""
    nets, barrier = [make() for _ in images], threading.Barrier(len(images))
    brought: list[Any] = [None] * len(images)

    def work(rank: int) -> None:
        def total(value: torch.Tensor) -> torch.Tensor:
            brought[rank] = value
            barrier.wait(5)
            added = torch.stack(brought).sum(0)
            barrier.wait(5)
            return added

        restat(nets[rank], images[rank].split(4), total, **settings)

    with ThreadPoolExecutor(len(images)) as pool:
        list(pool.map(work, range(len(images))))
    return nets


def test_statistics_of_two_processes_pool() -> None:
    """Shares of unequal size and mean."""
    images = torch.cat([IMAGES[:20], IMAGES[20:] + 100])
    whole = OneLayer()
    restat(whole, [images])
    for net in in_processes([images[:20], images[20:]]):
        torch.testing.assert_close(net.norm.running_mean, whole.norm.running_mean)
        torch.testing.assert_close(net.norm.running_var, whole.norm.running_var)


def test_process_without_an_image_gets_the_others_statistics() -> None:
    whole = OneLayer()
    restat(whole, [IMAGES])
    for net in in_processes([IMAGES, IMAGES[:0]]):
        torch.testing.assert_close(net.norm.running_var, whole.norm.running_var)


def test_running_averages_of_two_processes_are_averaged() -> None:
    nets = in_processes([IMAGES[:20], IMAGES[20:36]], mode="ema")
    alone = [OneLayer(), OneLayer()]
    for net, images in zip(alone, (IMAGES[:20], IMAGES[20:36])):
        restat(net, images.split(4), mode="ema")
    for net in nets:
        torch.testing.assert_close(net.norm.running_mean, sum(a.norm.running_mean for a in alone) / 2)
        torch.testing.assert_close(net.norm.running_var, sum(a.norm.running_var for a in alone) / 2)


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


# -- variants ---------------------------------------------------------------------------------------------------------


def unet(**settings: Any) -> Network:
    """Random weights and random statistics: three BatchNorm layers would agree by chance where all are 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = networks.build("unet", classes=2, channels=1, size=16, width=4, depth=2, **settings)
        for _, layer in batch_norms(net):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_()
    return net.train()


PICTURES = torch.rand(13, 1, 16, 16, generator=torch.Generator().manual_seed(2))


def assert_equal(a: dict[str, Moments], b: dict[str, Moments]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(x.mean, b[name].mean) and torch.equal(x.variance, b[name].variance) for name, x in a.items())


def assert_close(a: dict[str, Moments], b: dict[str, Moments], rtol: float) -> None:
    for name, x in a.items():
        torch.testing.assert_close(tuple(x[:2]), tuple(b[name][:2]), rtol=rtol, atol=rtol, check_dtype=False)


def by_hand(net: Network, x: torch.Tensor) -> dict[str, Moments]:
    """Layer by layer over the whole set at once: the input of each layer, caught in eval mode, by NumPy."""
    net = copy.deepcopy(net).eval()
    layers = dict(batch_norms(net))
    for name in ORDER:
        caught: list[np.ndarray] = []
        handle = layers[name].register_forward_pre_hook(lambda _, args, into=caught: into.append(args[0].numpy()))
        with torch.no_grad():
            net(x)
        handle.remove()
        values = caught[0].astype(np.float64).swapaxes(0, 1).reshape(caught[0].shape[1], -1)
        layers[name].running_mean.copy_(torch.from_numpy(values.mean(1)))
        layers[name].running_var.copy_(torch.from_numpy(values.var(1, ddof=1)))
    return statistics(net)


ORDER = [
    f"module.{block}.{i}"
    for block, places in (
        ("down.0", (1, 4)),
        ("down.1", (1, 4)),
        ("bottleneck", (1, 4)),
        ("up.0", (1, 4)),
        ("up.1", (1, 4)),
    )
    for i in places
]


class Backwards(nn.Module):
    """Defined in another order than called; the first layer is called twice, the last never."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early, self.never = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.late(self.early(x) * 2 + 3) + self.late(x)).mean((2, 3)))


def test_call_order_is_that_of_the_forward_pass() -> None:
    assert call_order(unet()) == ORDER
    assert call_order(Network(Backwards(), input_shape=(3, 5, 4))) == ["module.early", "module.late"]
    with pytest.raises(UsageError, match="wrap it in"):
        call_order(OneLayer())
    with pytest.raises(UsageError, match=r"calls none of these layers: module\.never"):
        call_order(Network(Backwards(), input_shape=(3, 5, 4)), ["never"])


def test_exact_counts_every_call_of_a_layer() -> None:
    net = Network(Backwards(), input_shape=(3, 5, 4))
    changes = restat(net, IMAGES.split(10), mode="exact")
    assert [(change.layer, change.after.count) for change in changes] == [
        ("module.early", 37 * 20),
        ("module.late", 2 * 37 * 20),
    ]
    assert [change.images for change in changes] == [37, 37]
    assert not net._kept


@pytest.mark.parametrize("batch", [1, 4, 13])
def test_exact_is_the_definition_whatever_the_batch(batch: int) -> None:
    net = unet()
    wanted = by_hand(net, PICTURES)
    restat(net, PICTURES.split(batch), mode="exact")
    assert_close(statistics(net), wanted, 2e-5)
    assert net.training
    assert not net._kept
    simultaneous = unet()
    restat(simultaneous, PICTURES.split(batch))
    deviation = max((m.mean - wanted[name].mean).abs().max() for name, m in statistics(simultaneous).items())
    assert deviation > (1e-3 if batch < 13 else 1e-5)  # the other algorithm is another one


def test_exact_does_not_depend_on_the_batch() -> None:
    found = []
    for batch in (1, 5, 13):
        net = unet().double()
        restat(net, lambda size=batch: iter(PICTURES.double().split(size)), mode="exact")
        found.append(statistics(net))
    assert_close(found[1], found[0], 1e-12)
    assert_close(found[2], found[0], 1e-12)


def test_exact_does_not_depend_on_the_number_of_processes() -> None:
    whole = unet().double()
    restat(whole, [PICTURES.double()], mode="exact")
    shares = PICTURES.double()[:4], PICTURES.double()[4:]
    for net in in_processes(shares, lambda: unet().double(), mode="exact"):
        assert_close(statistics(net), statistics(whole), 1e-12)


def test_exact_is_idempotent() -> None:
    net = unet()
    restat(net, PICTURES.split(4), mode="exact")
    once = statistics(net)
    changes = restat(net, PICTURES.split(4), mode="exact")
    assert_equal(statistics(net), once)
    assert max(change.mean_shift for change in changes) < 1e-6


def test_exact_ends_each_pass_at_its_layer() -> None:
    net, calls = unet(), []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    restat(net, [PICTURES], mode="exact", layers=["down.0.1"])
    net.eval()
    calls.clear()
    restat(net, iter([PICTURES]), mode="exact", layers=["down.0.1"])
    assert calls.count("module.down.0.0") == 1 + calls.count("module.head")  # the head runs in the probes alone


def test_exact_refuses_an_iterator_for_several_layers() -> None:
    with pytest.raises(UsageError, match="once per layer"):
        restat(unet(), iter([PICTURES]), mode="exact")


@pytest.mark.parametrize(("gain", "offset"), [(0.3, -0.1), (2.0, 0.5)])
def test_exact_predictions_are_blind_to_gain_and_offset(gain: float, offset: float) -> None:
    """With replicated borders; BatchNorm's epsilon is made to count for nothing beside a small variance."""
    net = unet(padding_mode="replicate").double().eval()
    for _, layer in batch_norms(net):
        layer.eps = 1e-12
    x = PICTURES.double()
    restat(net, x.split(5), mode="exact")
    plain = net(x).logits
    changed = gain * x + offset
    assert not torch.allclose(net(changed).logits, plain, atol=0.05)
    restat(net, changed.split(5), mode="exact")
    torch.testing.assert_close(net(changed).logits, plain, atol=1e-6, rtol=0)


def test_affine_parameters_and_counters_keep_every_bit() -> None:
    for settings in ({"mode": "exact"}, {"mode": "cumulative"}, {"mode": "ema"}, {"alpha": 0.3}, {"prior": 4}):
        net = unet()
        before = copy.deepcopy(net.state_dict())
        restat(net, PICTURES.split(4), **settings)  # type: ignore[arg-type]
        moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == {f"{name}.{kind}" for name in ORDER for kind in ("running_mean", "running_var")}


def test_source_images_reproduce_the_source_statistics() -> None:
    """Another sample of the same Gaussian: within five standard errors of mean and variance."""
    net = OneLayer()
    draw = torch.Generator().manual_seed(5)
    sample = [torch.randn(400, 3, 5, 4, generator=draw) * 3 + 1 for _ in range(2)]
    restat(net, [sample[0]])
    (change,) = restat(net, [sample[1]])
    assert change.shift.max() < 5 * (2 / 8000) ** 0.5
    assert (change.after.variance / change.before.variance - 1).abs().max() < 5 * 2 / 8000**0.5


def test_small_variance_on_a_large_mean_survives() -> None:
    """Means of 1e4 with a deviation of 1e-2, whose squares differ in the twelfth digit."""
    net = OneLayer().double()
    x = IMAGES.double() * 1e-2 + 1e4 * torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64).view(3, 1, 1)
    (change,) = restat(net, x.split(3))
    values = x.transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(change.after.mean, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(change.after.variance, values.var(1), rtol=1e-6)


def test_ema_is_the_update_of_training() -> None:
    mine, theirs = unet(), unet()
    for _, layer in batch_norms(theirs):
        layer.momentum = 0.25
    with torch.no_grad():
        for x in PICTURES.split(4)[:3]:
            theirs(x)
    restat(mine, PICTURES.split(4)[:3], mode="ema", momentum=0.25)
    assert_close(statistics(mine), statistics(theirs), 1e-5)


def test_mixtures_weigh_source_and_target() -> None:
    """One layer, so every mixture is that of its ends."""
    source, target = OneLayer(), OneLayer()
    restat(source, [IMAGES[:5] * 2 - 4])
    restat(target, [IMAGES])
    ends = statistics(source)["norm"], statistics(target)["norm"]
    for settings, share in (
        ({"alpha": 0.3}, 0.3),
        ({"prior": 3 * 37}, 0.25),
        ({"prior": 1e9}, 0),
        ({"prior": 1e-9}, 1),
    ):
        net = copy.deepcopy(source)
        (change,) = restat(net, IMAGES.split(8), **settings)
        mean, variance, _ = statistics(net)["norm"]
        torch.testing.assert_close(mean, (1 - share) * ends[0].mean + share * ends[1].mean)
        torch.testing.assert_close(variance, (1 - share) * ends[0].variance + share * ends[1].variance)
        torch.testing.assert_close(change.after.mean.float(), mean)


@pytest.mark.parametrize("mode", ["cumulative", "exact"])
def test_share_of_nothing_leaves_everything(mode: Any) -> None:
    net = unet()
    before = copy.deepcopy(net.state_dict())
    changes = restat(net, PICTURES.split(4), mode=mode, alpha=0.0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert {change.mean_shift for change in changes} == {0.0}


def test_restored_statistics_are_those_of_before_bit_by_bit() -> None:
    net = unet()
    before, state = statistics(net), copy.deepcopy(net.state_dict())
    restat(net, PICTURES.split(4))
    assert before["module.down.0.1"].count == 0
    set_statistics(net, before)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with pytest.raises(UsageError, match=r"did you mean 'module\.down\.0\.1'"):
        set_statistics(net, {"module.down0.1": before["module.down.0.1"]})


def test_measure_leaves_the_network_as_it_is_even_after_a_failure() -> None:
    net = unet()
    before = copy.deepcopy(net.state_dict())
    found = measure(net, PICTURES.split(4), layers="decoder")
    assert list(found) == ORDER[6:]

    def broken() -> Iterator[torch.Tensor]:
        yield PICTURES
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        measure(net, broken())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    restat(net, PICTURES.split(4), layers="decoder")
    set_statistics(other := unet(), found)
    assert_equal(statistics(net), statistics(other))


@pytest.mark.parametrize(
    ("layers", "moved"),
    [
        (None, ORDER),
        ("encoder", ORDER[:6]),
        ("decoder", ORDER[6:]),
        (("down",), ORDER[:4]),
        (("module.down.0", "up.1.4"), [*ORDER[:2], ORDER[9]]),
        (("bottleneck",), ORDER[4:6]),
    ],
)
@pytest.mark.parametrize("mode", ["cumulative", "exact", "ema"])
def test_only_the_chosen_layers_move(mode: Any, layers: Any, moved: list[str]) -> None:
    net = unet()
    before = statistics(net)
    changes = restat(net, PICTURES.split(4), mode=mode, layers=layers)
    assert [change.layer for change in changes] == moved
    assert [name for name, m in statistics(net).items() if not torch.equal(m.mean, before[name].mean)] == moved


def test_layers_that_do_not_exist_name_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'botleneck'.*did you mean 'module.bottleneck'"):
        restat(unet(), [PICTURES], layers=("botleneck",))
    with pytest.raises(UsageError, match="begins with 'bottle'"):  # a prefix ends where a name of a part ends
        restat(unet(), [PICTURES], layers=("bottle",))
    for layers in ("encoder", "decoder"):
        with pytest.raises(UsageError, match="name layers or prefixes"):
            restat(network("segmentation"), [PICTURES], layers=layers)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alpha": 0.5, "prior": 4}, "give one of them"),
        ({"mode": "ema", "alpha": 0.5}, "lower momentum"),
        ({"mode": "ema", "prior": 1}, "lower momentum"),
        ({"alpha": 1.5}, "alpha in"),
        ({"momentum": 0.0}, "momentum lies in"),
        ({"mode": "exat"}, "did you mean 'exact'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        restat(OneLayer(), [IMAGES], **settings)


def test_no_image_is_refused() -> None:
    with pytest.raises(UsageError, match="used up"):
        restat(OneLayer(), iter([]))


def test_change_is_told_in_deviations_of_before() -> None:
    before = {"a": Moments(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([4.0, 1.0, 0.0]), 0)}
    after = {"a": Moments(torch.tensor([4.0, -3.0, 0.0]), torch.tensor([1.0, 1.0, 1.0]), 10)}
    (change,) = compare(before, after, 7)
    assert change.shift.tolist() == [1.5, 3.0, 0.0]
    assert (change.mean_shift, change.images) == (1.5, 7)


# -- how much of the source to keep -----------------------------------------------------------------------------------


def one_channel(mean: float, deviation: float) -> Moments:
    return Moments(torch.tensor([mean]), torch.tensor([deviation**2]), 0)


def test_bounds_are_the_published_ones_and_hold_the_expectation() -> None:
    source, target = one_channel(0, 1), one_channel(0.7, 1.6)
    lower, upper = schneider_bound(source, target, 8, 16)
    assert (round(lower.item(), 3), round(upper.item(), 3)) == (0.422, 0.516)
    rng = np.random.default_rng(0)
    for prior, n in ((16, 8), (8, 32), (64, 4)):
        draws = 0.7 + 1.6 * rng.standard_normal((100_000, n))
        w = prior / (prior + n)
        deviation = np.sqrt(w + (1 - w) * draws.var(1))
        distance = ((1 - w) * draws.mean(1) - 0.7) ** 2 + (deviation - 1.6) ** 2
        lower, upper = schneider_bound(source, target, n, prior)
        assert lower.item() < distance.mean() < upper.item()


def test_bound_without_prior_is_the_error_of_the_sample() -> None:
    lower, _ = schneider_bound(one_channel(0, 1), one_channel(5, 2), 4, 0)
    assert lower.item() == pytest.approx((2 - np.sqrt(3 / 4 * 4)) ** 2 + 4 / 4)
    with pytest.raises(UsageError, match="at least one"):
        schneider_bound(one_channel(0, 1), one_channel(5, 2), 0, 1)


def test_recommended_prior_falls_with_the_shift_and_the_number_of_images() -> None:
    def recommended(mean: float, images: int) -> float:
        return recommended_prior(compare({"a": one_channel(0, 1)}, {"a": one_channel(mean, 1)}, 0), images)

    assert recommended(0.0, 8) == 1024  # no shift: nothing beats the source
    assert [recommended(mean, 8) for mean in (0.3, 1.0, 5.0)] == sorted(
        (recommended(mean, 8) for mean in (0.3, 1.0, 5.0)), reverse=True
    )
    assert recommended(5.0, 100) == 0
    best = recommended(0.7, 8)
    below, at, above = (
        schneider_bound(one_channel(0, 1), one_channel(0.7, 1), 8, prior)[0].item()
        for prior in (best / 2, best, best * 2)
    )
    assert at <= min(below, above)
    with pytest.raises(UsageError, match="no channel varies"):
        recommended_prior(compare({"a": one_channel(0, 0)}, {"a": one_channel(1, 1)}, 0), 8)


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
