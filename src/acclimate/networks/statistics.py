"""BatchNorm statistics: read, put back, re-estimated on another domain, mixed with the old ones, and compared."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.errors import UsageError, nearest, unknown
from acclimate.networks.contract import FEATURES, Network

Mode = Literal["cumulative", "exact", "ema"]
"""How :func:`restat` re-estimates.

``cumulative``: one pass; earlier layers are normalised by the statistics of their batch. ``exact``: one pass per layer;
earlier layers already carry their final statistics. ``ema``: one pass of PyTorch's own running average.
"""

Layers = Literal["encoder", "decoder"] | Sequence[str] | None
"""Which BatchNorm layers: all (None), those up to the aligned tap, those after it, or names and prefixes of names."""

Batches = Iterable[Tensor] | Callable[[], Iterable[Tensor]]


class Moments(NamedTuple):
    """Mean and variance per channel of the values that enter a BatchNorm layer."""

    mean: Tensor  # (C,)
    variance: Tensor  # (C,), of the population; where count is 0: as the layer keeps it
    count: float  # type: ignore[assignment]  # values per channel; 0 where none fits: running statistics, mixtures

    def running(self) -> Tensor:
        """The variance as a layer keeps it: without bias, n / (n - 1) times that of the population."""
        return self.variance * (self.count / (self.count - 1)) if self.count > 1 else self.variance


class LayerChange(NamedTuple):
    """What re-estimation did to one layer."""

    layer: str
    before: Moments
    after: Moments
    shift: Tensor  # (C,), |mu_after - mu_before| / sigma_before
    images: int  # of the target

    @property
    def mean_shift(self) -> float:
        """The mean of ``shift`` over channels."""
        return self.shift.mean().item()

    @property
    def spread(self) -> float:
        """sigma_after / sigma_before, the geometric mean over channels."""
        ratio = (self.after.variance.double() + 1e-5) / (self.before.variance.double() + 1e-5)
        return ratio.log().mean().div(2).exp().item()


def batch_norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """The BatchNorm layers (SyncBatchNorm included) that keep running statistics, with their names, in order."""
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]


def statistics(net: nn.Module) -> dict[str, Moments]:
    """Copies of the running statistics now in place, by layer name; ``set_statistics(net, these)`` restores every bit."""
    return {
        name: Moments(layer.running_mean.detach().clone(), layer.running_var.detach().clone(), 0)  # type: ignore[union-attr]
        for name, layer in batch_norms(net)
    }


@torch.no_grad()
def set_statistics(net: nn.Module, moments: Mapping[str, Moments]) -> None:
    """Make ``moments`` the running statistics of the layers they name; scales, shifts and other layers stay.

    Raises :class:`UsageError` for a name that is no BatchNorm layer of ``net``.
    """
    layers = dict(batch_norms(net))
    for name, found in moments.items():
        if name not in layers:
            raise unknown("BatchNorm layer", name, layers)
        layers[name].running_mean.copy_(found.mean)  # type: ignore[union-attr]
        layers[name].running_var.copy_(found.running())  # type: ignore[union-attr]


def compare(before: Mapping[str, Moments], after: Mapping[str, Moments], images: int) -> list[LayerChange]:
    """One :class:`LayerChange` for each layer of ``after``, in its order.

    A variance below 1e-5, BatchNorm's own epsilon, counts as 1e-5: a channel that was silent has no scale.
    """
    changes = []
    for name, new in after.items():
        old = before[name]
        shift = (new.mean.double() - old.mean.double()).abs() / old.variance.double().clamp_min(1e-5).sqrt()
        changes.append(LayerChange(name, old, new, shift, images))
    return changes


# -- which layers, in which order -------------------------------------------------------------------------------------


def call_order(net: nn.Module, layers: Layers = None) -> list[str]:
    """The chosen BatchNorm layers that the forward pass of a :class:`Network` calls, by first call; it tries with zeros.

    Raises :class:`UsageError` for a module that is no Network (only that knows what images it takes), if none is called,
    and as :func:`select` does.
    """
    chosen = set(select(net, layers))
    order = [name for name in dict.fromkeys(_calls(net)[0]) if name in chosen]
    if not order:
        raise UsageError(f"the forward pass calls none of these layers: {', '.join(sorted(chosen))}; name others")
    return order


def select(net: nn.Module, layers: Layers = None) -> list[str]:
    """The names of the BatchNorm layers that ``layers`` means.

    Names and prefixes are those of ``net.named_modules()``; a Network's own ``module.`` may be left out.
    Raises :class:`UsageError` if there is no BatchNorm, a name fits no layer, or the network has no tap that divides it
    into encoder and decoder.
    """
    names = [name for name, _ in batch_norms(net)]
    if not names:
        raise UsageError(
            "this network has no BatchNorm with running statistics, so there is nothing to re-estimate; choose a method "
            "that trains, such as dann or self-training (acclimate methods), or a network with BatchNorm"
        )
    if layers is None:
        return names
    if layers in ("encoder", "decoder"):
        calls, before = _calls(net)
        encoder = set(calls[:before])
        decoder = set(calls) - encoder
        if not encoder or not decoder:
            raise UsageError(
                f"layers={layers!r} needs a network whose aligned tap lies between BatchNorm layers, such as unet's "
                f"bottleneck; name layers or prefixes instead (first: {', '.join(names[:3])})"
            )
        return [name for name in names if name in (encoder if layers == "encoder" else decoder)]
    chosen: set[str] = set()
    for wanted in [layers] if isinstance(layers, str) else layers:
        found = _below(names, wanted) or _below(names, f"module.{wanted}")
        if not found:
            known = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
            raise UsageError(
                f"no BatchNorm layer is named or begins with {wanted!r}{nearest(wanted, known)} (layers: {', '.join(names)})"
            )
        chosen.update(found)
    return [name for name in names if name in chosen]


def _below(names: Iterable[str], prefix: str) -> list[str]:
    return [name for name in names if name == prefix or name.startswith(f"{prefix}.")]


@torch.no_grad()
def _calls(net: nn.Module) -> tuple[list[str], int]:
    """The layers in the order of all their calls, and how many calls lie before the output of the aligned tap."""
    if not isinstance(net, Network):
        raise UsageError(
            f"the order of the layers of a {type(net).__name__} is known by trying; wrap it in acclimate.networks.Network"
        )
    parameter = next(net.parameters())
    x = torch.zeros(1, *net.input_shape, device=parameter.device, dtype=parameter.dtype)
    calls: list[str] = []
    before = [0]
    tap = None if net.align == FEATURES else net.module.get_submodule(net.align)
    handle = tap.register_forward_hook(lambda *_: before.append(len(calls))) if tap is not None else None
    try:
        with _watched(net, [name for name, _ in batch_norms(net)], lambda name, *_: calls.append(name)):
            net.forward(x)
    finally:
        if handle is not None:
            handle.remove()
    return calls, before[-1]


# -- one pass ---------------------------------------------------------------------------------------------------------

Look = Callable[[str, _BatchNorm, Tensor], None]


class _Reached(Exception):
    """The layer of interest has been seen: the rest of the forward pass is of no use."""


@contextlib.contextmanager
def _watched(net: nn.Module, names: Sequence[str], look: Look) -> Iterator[None]:
    """In eval mode, call ``look(name, layer, input)`` before each named layer runs; afterwards there is no trace."""
    layers = dict(batch_norms(net))

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda layer, inputs: look(name, layer, inputs[0].detach())  # type: ignore[arg-type]

    hooks = [layers[name].register_forward_pre_hook(hook(name)) for name in names]
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        if isinstance(net, Network):
            net._kept.clear()  # a pass that was cut short leaves activations behind


def _pass(net: nn.Module, batches: Iterable[Tensor], names: Sequence[str], look: Look) -> int:
    images = 0
    with _watched(net, names, look):
        for x in batches:
            if not len(x):
                continue  # a process may have no share: nothing has no mean
            with contextlib.suppress(_Reached):
                net.forward(x)  # not net(x): compiled code need not run hooks registered after its first trace
            images += len(x)
    return images


def moments_of(x: Tensor) -> Moments:
    """The moments in float64 of ``(N, C, *)``, over all but the channels."""
    x = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
    return Moments(mean.double(), variance.double(), x.numel() // x.shape[1])


def _nothing(like: Tensor) -> Moments:
    zeros = torch.zeros_like(like, dtype=torch.float64)
    return Moments(zeros, zeros, 0)


def pooled(a: Moments, b: Moments) -> Moments:
    """The moments of both sets of values together (Chan, Golub, LeVeque 1979): no square of a mean is ever subtracted.

    With delta = mu_b - mu_a, n = n_a + n_b: mu = mu_a + delta n_b / n,
    sigma^2 = (n_a sigma_a^2 + n_b sigma_b^2) / n + delta^2 n_a n_b / n^2.
    """
    n = a.count + b.count
    p, q = a.count / n, b.count / n
    delta = b.mean - a.mean
    return Moments(a.mean + q * delta, p * a.variance + q * b.variance + p * q * delta.square(), n)


def _over_processes(
    found: dict[str, Moments], empty: Mapping[str, Moments], images: int, total: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Moments], int]:
    """The pooled moments of all processes: first the means, then the variances about them."""
    mine = [found.get(name, zero) for name, zero in empty.items()]
    first = [torch.cat([m.mean.new_tensor([m.count]), m.count * m.mean]) for m in mine]
    *sums, seen = total(torch.cat([*first, first[0].new_tensor([images])])).split([*(len(part) for part in first), 1])
    means = [part[1:] / part[0].clamp_min(1) for part in sums]
    second = [m.count * (m.variance + (m.mean - mean).square()) for m, mean in zip(mine, means)]
    squares = total(torch.cat(second)).split([len(part) for part in second])
    pool = {
        name: Moments(mean, square / part[0].clamp_min(1), part[0].item())
        for name, part, mean, square in zip(empty, sums, means, squares)
    }
    called = [*found, *(name for name in pool if name not in found)]
    return {name: pool[name] for name in called if pool[name].count}, int(seen.item())


# -- re-estimation ----------------------------------------------------------------------------------------------------


def _alone(value: Tensor) -> Tensor:
    return value


@torch.no_grad()
def measure(
    net: nn.Module, batches: Iterable[Tensor], layers: Layers = None, total: Callable[[Tensor], Tensor] = _alone
) -> dict[str, Moments]:
    """The moments of each chosen layer's input over all ``batches``, in the order of calls; ``net`` stays as it is.

    During the pass a chosen layer normalises by the statistics of the batch, every other by its running ones. Layers
    that the pass does not call are left out. Raises as :func:`restat` does.
    """
    return _measure(net, batches, select(net, layers), total)[0]


def _measure(
    net: nn.Module,
    batches: Iterable[Tensor],
    names: Sequence[str],
    total: Callable[[Tensor], Tensor],
    momentum: float | None = None,
) -> tuple[dict[str, Moments], int]:
    """One pass in which chosen layers normalise by their batch; with ``momentum`` a running average, else pooled."""
    before = statistics(net)
    empty = {name: _nothing(before[name].mean) for name in names}
    found: dict[str, Moments] = {}

    def look(name: str, layer: _BatchNorm, x: Tensor) -> None:
        batch = moments_of(x)
        if momentum is None:
            found[name] = pooled(found.get(name, empty[name]), batch)
        else:
            old = found.get(name, before[name])
            mean, variance = old.mean.double(), old.variance.double()
            found[name] = Moments(mean.lerp(batch.mean, momentum), variance.lerp(batch.running(), momentum), 0)
        # The layer stays in eval mode: nothing else of its state moves, and SyncBatchNorm waits for nobody.
        layer.running_mean.copy_(batch.mean)  # type: ignore[union-attr]
        layer.running_var.copy_(batch.variance)  # type: ignore[union-attr]

    try:
        images = _pass(net, batches, names, look)
    finally:
        set_statistics(net, before)
    if momentum is None:
        return _over_processes(found, empty, images, total)
    mine = [value for name in names for value in found.get(name, before[name])[:2]]
    facts = total(torch.cat([*(value.double() for value in mine), empty[names[0]].mean.new_tensor([1, images])]))
    means = (facts[:-2] / facts[-2]).split([len(value) for value in mine])
    averaged = {name: Moments(mean, variance, 0) for name, mean, variance in zip(names, means[::2], means[1::2])}
    called = [*found, *(name for name in names if name not in found)]
    return {name: averaged[name] for name in called}, int(facts[-1].item())


def _measure_one(
    net: nn.Module, batches: Iterable[Tensor], name: str, calls: int, total: Callable[[Tensor], Tensor]
) -> tuple[Moments, int]:
    """The moments of one layer's input in eval mode; each forward pass ends at the layer's last call."""
    empty = _nothing(dict(batch_norms(net))[name].running_mean)  # type: ignore[arg-type]
    found: dict[str, Moments] = {}
    seen = 0

    def look(name: str, layer: _BatchNorm, x: Tensor) -> None:
        nonlocal seen
        found[name] = pooled(found.get(name, empty), moments_of(x))
        seen += 1
        if seen % calls == 0:
            raise _Reached

    images = _pass(net, batches, [name], look)
    pool, images = _over_processes(found, {name: empty}, images, total)
    return pool.get(name, empty), images


@torch.no_grad()
def restat(
    net: nn.Module,
    batches: Batches,
    total: Callable[[Tensor], Tensor] = _alone,
    *,
    mode: Mode = "cumulative",
    momentum: float = 0.1,
    alpha: float = 1.0,
    prior: float = 0.0,
    layers: Layers = None,
) -> list[LayerChange]:
    """Replace the running statistics of BatchNorm layers by those of their inputs on ``batches``.

    ======================  =============================================================================================
    ``mode="cumulative"``   moments over all images and positions in one pass, each batch weighing as much as it has
                            values, so the variance between batches counts (``momentum=None`` of PyTorch loses it);
                            meanwhile earlier layers are normalised by their batch's own statistics
    ``mode="exact"``        layer by layer in the order of calls, each with the final statistics of the layers before it:
                            the fixed point of the definition (Li et al. 2017, algorithm 1), whatever the batch size; one
                            pass per layer, which ends at that layer
    ``mode="ema"``          mu <- (1 - m) mu + m mu_b for each batch in order, sigma^2 likewise, m = ``momentum``, from the
                            statistics in place, which keep the weight (1 - m)^B after B batches
    ``alpha``               (1 - alpha) source + alpha target, for mean and variance (You et al. 2021, alpha-BN)
    ``prior``               N / (N + n) source + n / (N + n) target, N = ``prior``, n = number of target images (Schneider
                            et al. 2020), for mean and variance; as there, variances are mixed without the term for the
                            distance between the means
    ======================  =============================================================================================

    "Source" means the statistics now in place. A layer that the pass never calls (an auxiliary head) keeps them. In mode
    ``exact`` the target moments of a layer are those under the mixed statistics of the layers before it.

    Args:
        net: any module; a :class:`Network` for ``exact``. Scales and shifts stay as they are.
        batches: images ``(N, C, H, W)``; for ``exact`` with more than one layer, a sequence or a function that gives an
            iterator at each call.
        total: sums a tensor over all processes. With ``ema`` each process averages over its own batches, and the mean
            over processes is taken: what the mean of the batches' moments at each step would give.
        layers: see :func:`select`.

    Returns one :class:`LayerChange` for each layer that was re-estimated, in the order of calls.
    Raises :class:`UsageError` if the network has no BatchNorm with running statistics, no image comes, or the settings
    exclude each other.
    """
    check(mode, momentum, alpha, prior)
    names = select(net, layers)
    before = statistics(net)

    def place(found: Mapping[str, Moments], images: int) -> dict[str, Moments]:
        if not images:
            raise UsageError("there is no image to take statistics from; give batches, not an iterator that is used up")
        share = images / (prior + images) if prior else alpha
        mixed = {name: mix(before[name], target, share) for name, target in found.items()}
        set_statistics(net, mixed)
        return mixed

    if mode != "exact":
        if callable(batches):
            batches = batches()
        found, images = _measure(net, batches, names, total, momentum if mode == "ema" else None)
        return compare(before, place(found, images), images)
    order, calls = call_order(net, names), _calls(net)[0]
    if len(order) > 1 and isinstance(batches, Iterator):
        raise UsageError("mode='exact' reads the images once per layer; give a list of batches or a function")
    after: dict[str, Moments] = {}
    for name in order:
        again = batches() if callable(batches) else batches
        one, images = _measure_one(net, again, name, calls.count(name), total)
        after |= place({name: one}, images)
    return compare(before, after, images)


def check(mode: Mode, momentum: float, alpha: float, prior: float) -> None:
    """Raises :class:`UsageError` for settings of :func:`restat` that are out of range or exclude each other."""
    if mode not in get_args(Mode):
        raise unknown("mode", mode, get_args(Mode))
    if not (0 < momentum <= 1 and 0 <= alpha <= 1 and prior >= 0):
        raise UsageError(
            f"momentum lies in (0, 1], alpha in [0, 1], prior is at least 0; not {momentum}, {alpha} and {prior}"
        )
    if alpha != 1 and prior:
        raise UsageError("alpha and prior both mix source and target; give one of them")
    if mode == "ema" and (alpha != 1 or prior):
        raise UsageError("mode='ema' starts from the source's statistics and so mixes already; lower momentum instead")


def mix(source: Moments, target: Moments, share: float) -> Moments:
    """(1 - share) source + share target, of the means and of the variances as layers keep them."""
    if share in (0, 1):
        return target if share else source
    mean, variance = source.mean.double(), source.running().double()
    return Moments(mean.lerp(target.mean.double(), share), variance.lerp(target.running().double(), share), 0)


# -- how much of the source to keep -----------------------------------------------------------------------------------


def schneider_bound(source: Moments, target: Moments, images: int, prior: float) -> tuple[Tensor, Tensor]:
    """Bounds ``(C,)`` of the expected squared Wasserstein distance between estimated and true target statistics.

    With N = ``prior`` pseudo-samples of the source and n = ``images`` of the target, per channel:
    L = (sigma_t - sqrt(N/(N+n) sigma_s^2 + (n-1)/(N+n) sigma_t^2))^2 + (N/(N+n))^2 (mu_t - mu_s)^2
    + n/(N+n)^2 sigma_t^2  <=  E[W_2^2]  <=
    U = L + sigma_t^5 (n-1) / (2 (N+n)^2) (N/(N+n) sigma_s^2 + 1/(N+n) sigma_t^2)^(-3/2).
    Values are taken as independent Gaussian draws, one per image. Schneider et al., NeurIPS 2020, proposition 1.
    Raises :class:`UsageError` without an image.
    """
    if images < 1:
        raise UsageError(f"the bound needs at least one target image, not {images}")
    n, both = images, prior + images
    mean_s, mean_t = source.mean.double(), target.mean.double()
    var_s, var_t = source.variance.double(), target.variance.double()
    spread = var_t.sqrt() - (prior / both * var_s + (n - 1) / both * var_t).sqrt()
    lower = spread.square() + (prior / both * (mean_t - mean_s)).square() + n / both**2 * var_t
    gap = (n - 1) / (2 * both**2) * var_t**2.5 * (prior / both * var_s + var_t / both).pow(-1.5)
    return lower, lower + torch.where(var_t > 0, gap, 0.0)


def recommended_prior(
    changes: Iterable[LayerChange],
    images: int,
    grid: Sequence[float] = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
) -> float:
    """The N of ``grid`` with the smallest mean over all channels of L / sigma_s^2 (see :func:`schneider_bound`).

    Args:
        changes: of a re-estimation without mixing: ``after`` must be the target's own moments.
        images: the number of target images that the statistics will be taken from.

    Channels whose source variance is below 1e-5 are left out. Raises :class:`UsageError` if none is left.
    """
    pairs = [(change, change.before.variance.double()) for change in changes]
    if not any((scale >= 1e-5).any() for _, scale in pairs):
        raise UsageError("no channel varies on the source, so there is nothing to weigh; give the changes of a restat")

    def distance(prior: float) -> float:
        bounds = [(schneider_bound(c.before, c.after, images, prior)[0] / scale)[scale >= 1e-5] for c, scale in pairs]
        return torch.cat(bounds).mean().item()

    return min(grid, key=distance)
