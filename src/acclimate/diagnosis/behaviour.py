"""How a model behaves on images without labels, before and after its BatchNorm statistics are re-estimated there."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis.estimates import (
    Calibration,
    calibrate,
    calibrated_score,
    difference_of_confidence,
    mean_entropy,
    thresholded_confidence,
)
from acclimate.diagnosis.properties import PROPERTIES, measured
from acclimate.diagnosis.twin import twin
from acclimate.diagnosis.windows import Windows, normalised
from acclimate.distances import Null, bhattacharyya, frechet, sliced_energy
from acclimate.errors import UsageError
from acclimate.networks.activations import Activations, activations
from acclimate.networks.contract import Network
from acclimate.networks.statistics import mix, restat, set_statistics
from acclimate.random import generator
from acclimate.tasks import Task

BATCH = 32  # windows that share batch statistics
PIXELS = 2**17  # of a batch that does not: activations that fit the cache are several times faster
BASIS = 64  # principal directions of the source at which layers are compared
POSITIONS = 16
DIRECTIONS = 32
SPLITS = 8  # of the source into halves
HALFWAY = 0.5  # of the way from the source's statistics to the target's
THIRDS = ("early", "middle", "late")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A BatchNorm layer's outputs on the source, in a basis in which domains are compared."""

    mean: Tensor  # (C,)
    basis: Tensor  # (C, d): principal directions of the source, each scaled to variance one
    rows: Tensor  # (n, d), of one half of the source's images
    frechet: Null  # of that half from the other: the finite-sample bias
    energy: Null

    def project(self, values: Tensor) -> Tensor:
        return (values.double() - self.mean) @ self.basis


@dataclasses.dataclass(frozen=True)
class State:
    """What a network gives for a set of windows."""

    logits: Tensor  # (N, K, *)
    predicted: Tensor  # (N, *), classes
    moved: Tensor  # the same for windows that were mirrored or shifted, brought back
    layers: dict[str, Activations]


@dataclasses.dataclass(frozen=True)
class Reference:
    """How the model behaves on held-out windows of its own source."""

    net: Network
    task: Task
    preprocess: Preprocess
    windows: Windows
    state: State
    calibration: Calibration
    layers: dict[str, Layer]
    shares: Tensor  # (K,) of the predictions
    borders: float
    properties: dict[str, Tensor]
    score: float  # on these windows
    own: dict[str, float]  # what the estimates say there


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """One unlabelled set of windows before and after adaptation."""

    before: State
    after: State
    facts: dict[str, float]  # what the advisor reads
    distances: dict[str, dict[str, float]]  # layer -> before, after, null


def reference(net: Network, task: Task, preprocess: Preprocess, windows: Windows, seed: int = 0) -> Reference:
    """From labelled held-out windows of the source."""
    if windows.y is None:
        raise UsageError("the diagnosis needs labels of the source; give a source with class folders or masks")
    x = normalised(windows.x, preprocess).to(next(net.parameters()).device)
    state = observe(net, x, task, seed)
    made = {name: source_layer(found, windows.images, seed) for name, found in state.layers.items()}
    layers = {name: layer for name, layer in made.items() if layer is not None}
    calibration = calibrate(task, state.logits, windows.y, seed)
    counted = state.logits.movedim(1, -1)[windows.y >= 0]  # (n, K), without the pixels that no score counts
    return Reference(
        net,
        task,
        preprocess,
        windows,
        state,
        calibration,
        layers,
        predicted_shares(task, state.predicted),
        borders(state.predicted),
        measured(windows.x),
        score(task, state.predicted, windows.y),
        estimates(task, counted, calibration),
    )


def source_layer(found: Activations, images: Tensor, seed: int) -> Layer | None:
    """The basis of a layer, and the distance between halves of the source; None for a layer that never varies.

    As for a target, basis and scales come from the images of one half and the other half is new to them: distances on the
    very rows that a basis was fitted to would be too small.

    Args:
        found: the layer's outputs. images: ``(N,)`` the image of each window, so that no image is in both halves.
    """
    owner = images[found.images]
    distances: list[tuple[float, float]] = []
    first: Layer | None = None
    nothing = Null(0.0, 0.0, 0.0)
    for repeat in range(SPLITS):
        chosen = halves(owner, seed + repeat)
        values = found.values[chosen].double()
        mean = values.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov((values - mean).T).reshape(values.shape[1], -1))
        kept = variance.argsort(descending=True)[:BASIS]
        kept = kept[variance[kept] > 1e-6 * variance.max().clamp_min(1e-12)]
        if not len(kept):
            return None
        basis = directions[:, kept] / variance[kept].sqrt()
        layer = Layer(mean, basis, (values - mean) @ basis, nothing, nothing)
        other = layer.project(found.values[~chosen])
        distances.append((frechet(layer.rows, other).item(), energy(layer.rows, other).item()))
        first = first or layer
    assert first is not None
    nulls = []
    for column in zip(*distances):
        listed = torch.tensor(column, dtype=torch.float64)
        nulls.append(Null(listed.mean().item(), listed.std().item(), listed.quantile(0.95).item()))
    return dataclasses.replace(first, frechet=nulls[0], energy=nulls[1])


def halves(owner: Tensor, seed: int) -> Tensor:
    """Rows of a random half of the images: ``(n,)`` true or false, with ``owner`` the image of each row."""
    found, which = owner.unique(return_inverse=True)
    order = torch.randperm(len(found), generator=generator("halves", seed))
    return (order < len(found) // 2)[which]


def energy(x: Tensor, y: Tensor) -> Tensor:
    """The sliced energy distance with few directions: it is asked for every layer of every trial."""
    return sliced_energy(x, y, directions=DIRECTIONS)


@torch.no_grad()
def observe(net: Network, x: Tensor, task: Task, seed: int) -> State:
    """Logits, logits of moved images, and the outputs of the BatchNorm layers, in evaluation mode."""
    logits: list[Tensor] = []
    layers = activations(
        net, parts(x), positions=POSITIONS, seed=seed, outputs=lambda output: logits.append(output.logits.cpu())
    )
    net.eval()
    given = torch.cat(logits).float().contiguous()
    moved = predict(net, move(x, task))
    return State(given, given.argmax(1), moved.flip(-1) if moved.ndim == 3 else moved, layers)


def parts(x: Tensor) -> Sequence[Tensor]:
    """Batches for evaluation mode, where their size changes nothing but the time."""
    return x.split(max(1, PIXELS // (x.shape[-1] * x.shape[-2])))


@torch.no_grad()
def predict(net: Network, x: Tensor) -> Tensor:
    """Classes ``(N, *)`` of images ``(N, C, H, W)``."""
    net.eval()
    return torch.cat([net(part).logits.contiguous().argmax(1).cpu() for part in parts(x)])


def move(x: Tensor, task: Task) -> Tensor:
    """A change that should change nothing: mirrored for segmentation, moved by a sixteenth of the side for classes."""
    if task.name == "segmentation":
        return x.flip(-1)
    by = max(1, x.shape[-1] // 16)
    return functional.pad(x, (by, 0, by, 0), mode="replicate")[..., : x.shape[-2], : x.shape[-1]]


def behaviour(source: Reference, windows: Windows, seed: int = 1) -> Behaviour:
    """Look at unlabelled windows with the model as it is, half adapted, and adapted. Labels are not read."""
    x = normalised(windows.x, source.preprocess).to(next(source.net.parameters()).device)
    positions = seed + 1  # other positions than the reference's
    before = observe(source.net, x, source.task, positions)
    adapted = copy.deepcopy(source.net)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    changes = restat(adapted, list(x[order].split(BATCH)))
    after = observe(adapted, x, source.task, positions)
    set_statistics(adapted, {c.layer: mix(c.before, c.after, HALFWAY) for c in changes})
    halfway = predict(adapted, x)

    facts: dict[str, float] = {}
    distances: dict[str, dict[str, float]] = {}
    for name, layer in source.layers.items():
        distances[name] = {"null": layer.frechet.mean, "null quantile": layer.frechet.quantile}
        for when, state in (("before", before), ("after", after)):
            rows = layer.project(state.layers[name].values)
            distances[name][when] = frechet(layer.rows, rows).item()
            distances[name][f"energy {when}"] = (energy(layer.rows, rows).item() - layer.energy.mean) / max(
                layer.energy.deviation, 1e-9
            )
            distances[name][f"bhattacharyya {when}"] = bhattacharyya(layer.rows, rows).item()
    middle = list(distances)[len(distances) // 2]
    for when in ("before", "after"):
        facts[f"bhattacharyya {when}"] = math.log1p(distances[middle][f"bhattacharyya {when}"])
    for third, names in zip(THIRDS, thirds(list(distances))):
        for when in ("before", "after"):
            facts[f"frechet {third} {when}"] = mean(
                math.log(max(distances[n][when], 1e-9) / max(distances[n]["null"], 1e-9)) for n in names
            )
            facts[f"energy {third} {when}"] = mean(math.log1p(max(0.0, distances[n][f"energy {when}"])) for n in names)
        facts[f"shift {third}"] = mean(math.log1p(c.shift.mean().item()) for c in changes if c.layer in names)
        facts[f"spread {third}"] = mean(
            0.5 * ((c.after.variance + 1e-8) / (c.before.variance + 1e-8)).log().mean().item()
            for c in changes
            if c.layer in names
        )
    for when, state in (("before", before), ("after", after)):
        facts |= {f"{name} {when}": value for name, value in quality(source, state).items()}
    facts["agreement"] = agreement(source.task, before.predicted, after.predicted)
    facts["agreement halfway before"] = agreement(source.task, halfway, before.predicted)
    facts["agreement halfway after"] = agreement(source.task, halfway, after.predicted)
    facts |= differing(before, after, halfway, source.calibration.temperatures)
    facts |= of_twin(source, windows, {"before": before.predicted, "after": after.predicted}, seed)
    here = measured(windows.x)
    for name in PROPERTIES:
        facts[f"image {name}"] = effect(source.properties[name], here[name])
    return Behaviour(before, after, facts, distances)


def of_twin(source: Reference, windows: Windows, target: dict[str, Tensor], seed: int) -> dict[str, float]:
    """What adaptation does to the labelled twin of the target (:mod:`acclimate.diagnosis.twin`): scores one can take,
    and how far the predictions ``target`` are from the twin's in shares and borders, which says how far to trust them."""
    mine = source.windows[: len(windows)]
    assert mine.y is not None
    x = normalised(twin(mine.x, windows.x, seed), source.preprocess).to(next(source.net.parameters()).device)
    adapted = copy.deepcopy(source.net)
    restat(adapted, list(x.split(BATCH)))
    found = {"before": predict(source.net, x), "after": predict(adapted, x)}
    facts = {}
    for when, predicted in found.items():
        facts[f"twin score {when}"] = score(source.task, predicted, mine.y)
        here, there = (predicted_shares(source.task, labels) for labels in (predicted, target[when]))
        facts[f"twin shares {when}"] = divergence(here, there)
        facts[f"twin borders {when}"] = math.log((borders(target[when]) + 1e-3) / (borders(predicted) + 1e-3))
    facts["twin differ"] = 1 - agreement(source.task, found["before"], found["after"])
    facts["twin ratio"] = (facts["twin score after"] - facts["twin score before"]) / (facts["twin differ"] + 0.01)
    return facts


def score(task: Task, predicted: Tensor, labels: Tensor) -> float:
    """The task's primary score; 1 where neither side has an object, so that 1 - IoU is a metric."""
    value = task.scores(task.confusion(predicted, labels))[task.primary]
    return value if math.isfinite(value) else 1.0


def differing(before: State, after: State, halfway: Tensor, temperatures: Tensor) -> dict[str, float]:
    """What speaks for either side where the predictions before and after adaptation differ; 0 where they agree."""
    where = before.predicted != after.predicted
    count = int(where.sum())
    found = {"differ": where.double().mean().item()}
    sides = {"before": (before, after), "after": (after, before)}
    for name, (side, other) in sides.items():
        rows = side.logits.movedim(1, -1)[where]
        mine, theirs = side.predicted[where], other.predicted[where]
        p = (rows / temperatures[mine][:, None]).softmax(1)
        at = torch.arange(count)
        votes = {
            "margin": p[at, mine] - p[at, theirs],
            "steady where": (side.moved[where] == mine).double(),
            "halfway where": (halfway[where] == mine).double(),
            "smooth where": like_neighbours(side.predicted)[where],
        }
        found |= {f"{vote} {name}": value.double().mean().item() if count else 0.0 for vote, value in votes.items()}
    return found


def like_neighbours(predicted: Tensor) -> Tensor:
    """The share of the eight neighbours with the same prediction, ``(N, H, W)``; zeros for classification."""
    if predicted.ndim != 3:
        return torch.zeros(predicted.shape)
    height, width = predicted.shape[1:]
    framed = functional.pad(predicted[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0]
    same = torch.zeros(predicted.shape)
    for down in range(3):
        for right in range(3):
            if (down, right) != (1, 1):
                same += framed[:, down : down + height, right : right + width] == predicted
    return same / 8


def quality(source: Reference, state: State) -> dict[str, float]:
    """Signs of how right a state is, none of which needs a label."""
    task, logits, calibration = source.task, state.logits, source.calibration
    shares = predicted_shares(task, state.predicted)
    confidence = logits.softmax(1).amax(1)
    return {
        **estimates(task, logits, calibration),
        "entropy": mean_entropy(logits),
        "confidence": confidence.mean().item(),
        "unsure": (confidence < 0.9).double().mean().item(),
        "steady": agreement(task, state.predicted, state.moved),
        "shares": divergence(source.shares, shares),
        "last share": math.log((shares[-1].item() + 1e-3) / (source.shares[-1].item() + 1e-3)),
        "borders": math.log((borders(state.predicted) + 1e-3) / (source.borders + 1e-3)),
        "largest share": shares.max().item(),
    }


def estimates(task: Task, logits: Tensor, calibration: Calibration) -> dict[str, float]:
    """The estimated scores; 0 where not even an expected one is defined."""
    found = {
        "calibrated score": calibrated_score(task, logits, calibration),
        "confidence difference": difference_of_confidence(task, logits, calibration),
        "thresholded confidence": thresholded_confidence(task, logits, calibration),
    }
    return {name: value if math.isfinite(value) else 0.0 for name, value in found.items()}


def predicted_shares(task: Task, predicted: Tensor) -> Tensor:
    """How often each class is predicted, ``(K,)``."""
    return torch.bincount(predicted.flatten(), minlength=len(task.classes)).double() / predicted.numel()


def borders(predicted: Tensor) -> float:
    """The share of neighbouring pixels with different predictions, divided by that of predictions without any shape,
    1 - sum_k q_k^2 with q the shares of the classes. 0 for classification."""
    if predicted.ndim != 3:
        return 0.0
    across = (predicted[:, :, 1:] != predicted[:, :, :-1]).double().mean()
    down = (predicted[:, 1:] != predicted[:, :-1]).double().mean()
    q = torch.bincount(predicted.flatten()).double() / predicted.numel()
    return ((across + down) / 2 / (1 - q.square().sum()).clamp_min(1e-3)).item()


def agreement(task: Task, one: Tensor, other: Tensor) -> float:
    """The task's primary score of one prediction with the other as the truth."""
    return score(task, one, other)


def divergence(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence of class shares, in bits."""
    p, q = p + 1e-6, q + 1e-6
    middle = (p + q) / 2
    return (((p * (p / middle).log2()).sum() + (q * (q / middle).log2()).sum()) / 2).item()


def effect(source: Tensor, target: Tensor) -> float:
    """The difference of means in units of the source's deviation, squashed by asinh: far is far."""
    scale = source.std().clamp_min(1e-4 + 1e-3 * source.abs().mean())
    return math.asinh(((target.mean() - source.mean()) / scale).item())


def thirds(names: Sequence[str]) -> list[list[str]]:
    """The layers of a network in three groups by depth; a group may be shared where there are fewer than three."""
    n = len(names)
    return [list(names[i * n // 3 : max((i + 1) * n // 3, i * n // 3 + 1)]) or [names[-1]] for i in range(3)]


def mean(values: object) -> float:
    listed = list(values)  # type: ignore[call-overload]
    return sum(listed) / len(listed) if listed else 0.0
