"""What a report shows beyond the scores, taken from the live players: images, predictions, features, class shares."""

from __future__ import annotations

import dataclasses
import platform
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from acclimate.data.domain import Domain
from acclimate.engine.checkpoint import write_tensors
from acclimate.engine.generated import class_fidelity, generated_grid
from acclimate.engine.inference import PLAIN
from acclimate.engine.model import Model
from acclimate.engine.seeing import on_own_statistics, pieces, resampled
from acclimate.engine.translate import translate, translates
from acclimate.errors import NumericError, UsageError
from acclimate.experiment import BASELINE, Domains, Player, reads, source_shares
from acclimate.files import write_json
from acclimate.methods import Need
from acclimate.random import key
from acclimate.report.pictures import CHANGES, changes

SCHEMA = 1
FACTS, TENSORS = "evidence.json", "evidence.safetensors"
SHOWN = 24  # target images
CANDIDATES = {"classification": 500, "segmentation": 96}  # images among which disagreements are looked for
EMBEDDED = 250  # images per domain
PROBED = 20  # images per domain from which on a linear probe says something
PIXEL_IMAGES, PIXELS, PIXELS_AT_ONCE = 48, 300, 8  # images and pixels per domain; pixels per image and class
TRANSLATED = 6  # source images
SIDE = 256  # pixels of an image's longer side
DRAWN_SIDE = 64  # the same for images that a method draws: there are a hundred of them
NOTICEABLE = 0.01  # share of an image's pixels from which on it counts as changed


@dataclasses.dataclass(frozen=True)
class Seen:
    """One prediction: a class, or a map of classes ``(h, w)`` at the size that is shown; and how sure it is."""

    label: NDArray[np.int16]
    confidence: float

    def differs(self, other: NDArray[np.int16]) -> float:
        """The share that differs: 0 or 1 for a class."""
        return float((self.label != other).mean())


def gather(
    domains: Domains, players: Sequence[Player], folder: Path, *, progress: Callable[[str], None] | None = None
) -> None:
    """Write ``evidence.json`` and ``evidence.safetensors`` from the first seed's players; source-only comes first.

    Args:
        progress: called with what begins.
    """
    facts, tensors = gathered(domains, players, progress=progress)
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / FACTS, facts)


def gathered(
    domains: Domains, players: Sequence[Player], *, progress: Callable[[str], None] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same, not written. The first player is what the others are held against.

    Target labels are read only where the experiment scores (``domains.target_test``); they choose nothing.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "players": [describe(player) for player in players],
        "versions": versions(),
        "source shares": source_shares(domains.source, len(players[0].model.method.task.classes)),
    }
    begin = progress or (lambda text: None)
    begin("gathering evidence: predictions")
    facts["examples"] = examples(domains, players, tensors)
    begin("gathering evidence: features")
    facts["embeddings"] = embeddings(domains, players, tensors)
    facts["pixels"] = pixels(domains, players, tensors)
    begin("gathering evidence: images that methods make")
    facts["generated"] = generated(players, tensors)
    facts["translated"] = translated(domains, players, tensors)
    return facts, tensors


def compared(players: Sequence[Player]) -> Player:
    """The player that is held against source-only: the last one that read no target label.

    Where all methods read a few, the last of them; no oracle ever.
    """
    methods = [player for player in players if not (oracle(player) or baseline(player, players))]
    without = [player for player in methods if reads(player.model.method.name) is None]
    return [players[0], *methods, *without][-1]


def baseline(player: Player, players: Sequence[Player]) -> bool:
    """Whether it was not adapted: source-only, or the model that was given in its place, which comes first."""
    return player is players[0] or player.model.method.name == BASELINE


def oracle(player: Player) -> bool:
    """Whether it learnt from target labels."""
    return Need.TARGET_LABELS in player.model.method.needs


def describe(player: Player) -> dict[str, Any]:
    """Who it is, and all its settings, defaults included."""
    method, name = player.model.method, player.method
    spelt = type(method).__name__
    if name.endswith(method.name) and spelt.lower() == method.name:
        label = name.removesuffix(method.name) + spelt  # of several runs, "office/dann" is "office/DANN"
    else:
        label = name
    return {
        "name": name,
        "label": label,
        "title": method.card.title,
        "paper": method.card.paper,
        "deviations": list(method.card.deviations),
        "settings": {
            "method": method.settings.model_dump(mode="json"),
            "plan": {
                **method.plan.model_dump(mode="json"),
                "optimiser": (method.plan.optimiser or method.optimiser).model_dump(mode="json"),
            },
            "preprocess": player.model.preprocess.model_dump(mode="json"),
            **(
                {} if player.model.inference == PLAIN else {"inference": player.model.inference.model_dump(mode="json")}
            ),
            "network": method.net.recipe,
        },
    }


def versions() -> dict[str, str]:
    """Of what the numbers may depend on."""
    packages = {name: version(name) for name in ("acclimate", "torch", "numpy", "scikit-learn")}
    return {**packages, "python": platform.python_version(), "platform": platform.platform(terse=True)}


# -- images and predictions -------------------------------------------------------------------------------------------


def examples(domains: Domains, players: Sequence[Player], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Up to 24 target images with every player's prediction, the largest disagreement with source-only first."""
    task = players[0].model.method.task.name
    chosen = (domains.target_test or domains.target.unlabelled()).some(CANDIDATES[task], "report", "examples")
    seen = {player.method: predictions(player.model, chosen) for player in players}
    before, after = seen[players[0].method], seen[compared(players).method]
    changed = [b.differs(a.label) for b, a in zip(before, after)]
    truths = [None if chosen.labels is None else shrink(np.asarray(chosen.labels[i])) for i in range(len(chosen))]
    became = None
    if task == "segmentation" and compared(players) is not players[0]:
        became = [became_of(b.label, a.label, truth) for b, a, truth in zip(before, after, truths)]

    def surprise(i: int) -> tuple[float, float, int]:
        return -changed[i], -after[i].confidence if changed[i] else 0.0, i

    items = []
    for place, i in enumerate(sorted(range(len(chosen)), key=surprise)[:SHOWN]):
        tensors[f"image/{place}"] = torch.from_numpy(smaller(np.asarray(chosen.images[i])))
        truth = truths[i]
        if task == "segmentation":
            for player in players:
                tensors[f"prediction/{player.method}/{place}"] = torch.from_numpy(seen[player.method][i].label)
            if truth is not None:
                tensors[f"truth/{place}"] = torch.from_numpy(truth)
        items.append(
            {
                "name": str(chosen.names[i]),
                "truth": int(truth) if truth is not None and truth.ndim == 0 and truth >= 0 else None,
                "predictions": {
                    name: {
                        "label": int(all_[i].label) if all_[i].label.ndim == 0 else None,
                        "confidence": all_[i].confidence,
                        "changed": None if name == players[0].method else all_[i].differs(before[i].label),
                        "right": None if truth is None else right(all_[i].label, truth),
                    }
                    for name, all_ in seen.items()
                },
                "became": became[i] if became else None,
            }
        )
    return {
        "became": {name: float(np.mean([found[name] for found in became])) for name in CHANGES} if became else None,
        "compared": compared(players).method,
        "reference": players[0].method,
        "looked at": len(chosen),
        "changed": sum(share > NOTICEABLE for share in changed),
        "items": items,
    }


def predictions(model: Model, domain: Domain) -> list[Seen]:
    """What a model says of every image."""
    found: dict[int, Seen] = {}
    for index, logits in model.logits(domain):
        best, label = (part.cpu() for part in logits.softmax(1).max(1))
        for i, confidence, prediction in zip(index, best.flatten(1).mean(1) if best.ndim > 1 else best, label):
            found[i] = Seen(shrink(prediction.numpy()), float(confidence))
    return [found[i] for i in range(len(domain))]


def shrink(label: NDArray[Any]) -> NDArray[np.int16]:
    """A label map of at most 256 pixels a side, by the nearest pixel; a single label as it is."""
    if label.ndim == 0:
        return label.astype(np.int16)
    return resampled(label, *small_size(label.shape[0], label.shape[1]))


def smaller(image: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """An image ``(H, W)`` or ``(H, W, C)`` of at most ``side`` pixels a side, as ``(h, w, C)``."""
    flat = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    height, width = small_size(image.shape[0], image.shape[1], side)
    resized = np.array(Image.fromarray(flat).resize((width, height), Image.Resampling.BOX))
    return resized if resized.ndim == 3 else resized[..., None]


def small_size(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Height and width, shrunk to at most ``side``."""
    factor = min(1.0, side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def became_of(before: NDArray[np.int16], after: NDArray[np.int16], truth: NDArray[np.int16] | None) -> dict[str, float]:
    """The shares of an image's pixels that changed, by what became of them."""
    what = changes(before, after, truth)
    return {name: float((what == k).mean()) for k, name in enumerate(CHANGES)}


def right(predicted: NDArray[np.int16], truth: NDArray[np.int16]) -> float | None:
    """The share of labels that are right, of those that count."""
    counts = truth >= 0
    return float((predicted == truth)[counts].mean()) if counts.any() else None


# -- images that a method draws ---------------------------------------------------------------------------------------


def generated(players: Sequence[Player], tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
    """What each player with a generator draws, and whether an oracle, where there is one, sees the class asked for."""
    judge = next((player for player in players if oracle(player)), None)
    found = []
    for player in players:
        grid = generated_grid(player.model)
        if grid is None:
            continue
        images = [[smaller(image.numpy(), DRAWN_SIDE) for image in row] for row in grid.images]
        tensors[f"generated/{player.method}"] = torch.from_numpy(np.array(images))
        fidelity = class_fidelity(player.model, judge.model) if judge else None
        found.append(
            {
                "player": player.method,
                "classes": grid.classes,
                "oracle": judge.method if judge else None,
                "fidelity": dataclasses.asdict(fidelity) if fidelity else None,
            }
        )
    return found


def translated(domains: Domains, players: Sequence[Player], tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Some source images as each player that translates redraws them, and by how many grey levels they changed."""
    translating = [player for player in players if translates(type(player.model.method))]
    if domains.source is None or not translating:
        return []
    chosen = domains.source.unlabelled().some(TRANSLATED, "report", "translated")
    before = [smaller(np.asarray(chosen.images[i])) for i in range(len(chosen))]
    for i, image in enumerate(before):
        tensors[f"source/{i}"] = torch.from_numpy(image)
    found = []
    for player in translating:
        try:
            after = [smaller(image) for image in translate(player.model, chosen).images]
        except (UsageError, NumericError):
            continue  # it does not as it is set here, or what it makes is no image: the report has more to show
        for i, image in enumerate(after):
            tensors[f"translated/{player.method}/{i}"] = torch.from_numpy(image)
        change = [
            float(np.abs(a.astype(float) - b).mean()) if a.shape == b.shape else None for a, b in zip(after, before)
        ]
        found.append({"player": player.method, "names": [str(name) for name in chosen.names], "change": change})
    return found


# -- features ---------------------------------------------------------------------------------------------------------


def embeddings(domains: Domains, players: Sequence[Player], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Features of up to 250 images per domain in two dimensions, for every player but an oracle.

    The source passes through an adapted network under BatchNorm statistics of its own, as in training: under the
    target's it would look apart although it is not.
    """
    named = {"source": domains.source, "target": domains.target.unlabelled()}
    chosen = {
        name: domain.some(EMBEDDED, "report", "embedding") for name, domain in named.items() if domain is not None
    }
    facts: dict[str, Any] = {"counts": {name: len(domain) for name, domain in chosen.items()}, "separability": {}}
    classification = players[0].model.method.task.name == "classification"
    for player in players:
        if oracle(player):
            continue
        rows, classes = [], []
        for name, domain in chosen.items():
            rows.append(features(seeing(player, players, domain, name), domain, name))
            if classification:
                classes.append(labels(player.model, domain))
        every = np.concatenate(rows)
        x = reduce(every)
        tensors[f"points/{player.method}"] = torch.from_numpy(in_two_dimensions(x))
        if classification:
            tensors[f"classes/{player.method}"] = torch.from_numpy(np.concatenate(classes))
        counts = [len(domain) for domain in chosen.values()]
        facts["separability"][player.method] = separability(every, np.repeat(np.arange(len(counts)), counts))
    return facts


def labels(model: Model, domain: Domain) -> NDArray[np.int16]:
    """The classes of a domain's images: its labels, or the model's predictions where it has none."""
    if domain.labels is None:
        return np.array([int(seen.label) for seen in predictions(model, domain)], np.int16)
    return np.array([int(domain.labels[i]) for i in range(len(domain))], np.int16)


def seeing(player: Player, players: Sequence[Player], domain: Domain, name: str) -> Model:
    """The model as it sees a domain: an adapted one sees the source under BatchNorm statistics of its own."""
    if name == "target" or baseline(player, players):
        return player.model
    return on_own_statistics(player.model, domain, name)


@torch.no_grad()
def features(model: Model, domain: Domain, name: str) -> NDArray[np.float64]:
    """What the network aligns ``(N, D)``, averaged over positions if it is a map. ``name``: "source" or "target"."""
    net = model.method.net
    model.method.eval()
    sums: dict[int, Tensor] = {}
    areas: dict[int, int] = {}
    for piece in pieces(model, domain, name):
        aligned = net.aligned(net(piece.x))
        aligned = aligned.mean((2, 3), dtype=torch.float64) if aligned.ndim == 4 else aligned.flatten(1).double()
        area = piece.x.shape[2] * piece.x.shape[3]
        for i, row in zip(piece.index, aligned.cpu()):
            sums[i] = sums.get(i, 0) + area * row
            areas[i] = areas.get(i, 0) + area
    return torch.stack([sums[i] / areas[i] for i in range(len(domain))]).numpy()


def pixels(domains: Domains, players: Sequence[Player], tensors: dict[str, Tensor]) -> dict[str, dict[str, int]]:
    """Segmentation: features at single positions in two dimensions, as many of each class and domain as there are.

    Source by label, target by the player's own prediction. Returns how many per player and domain.
    """
    if players[0].model.method.task.name != "segmentation":
        return {}
    named = {"source": domains.source, "target": domains.target.unlabelled()}
    chosen = {
        name: domain.some(PIXEL_IMAGES, "report", "pixels") for name, domain in named.items() if domain is not None
    }
    counts: dict[str, dict[str, int]] = {}
    for player in players:
        if oracle(player):
            continue
        found = {
            name: at_pixels(seeing(player, players, domain, name), domain, name) for name, domain in chosen.items()
        }
        counts[player.method] = {name: len(classes) for name, (_, classes) in found.items()}
        points = in_two_dimensions(reduce(np.concatenate([x for x, _ in found.values()]).astype(np.float64)))
        tensors[f"pixels/{player.method}"] = torch.from_numpy(points)
        classes = np.concatenate([classes for _, classes in found.values()])
        tensors[f"pixel-classes/{player.method}"] = torch.from_numpy(classes)
    return counts


@torch.no_grad()
def at_pixels(model: Model, domain: Domain, name: str) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Features ``(M, D)`` at some 300 positions of a domain, all classes alike as far as they occur, and their classes.

    Of each map only the chosen positions are kept.
    """
    net, count = model.method.net, len(model.method.task.classes)
    model.method.eval()
    kept: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
    width = 1
    for piece in pieces(model, domain, name):
        aligned = net.aligned(net(piece.x))
        aligned = aligned if aligned.ndim == 4 else aligned.flatten(1)[:, :, None, None]
        width = aligned.shape[1]
        predicted = model.method.predict(piece.x).argmax(1).cpu().numpy() if domain.labels is None else None
        for row, i in enumerate(piece.index):
            map_ = piece.label(domain.labels[i]) if predicted is None else predicted[row]  # type: ignore[index]
            flat = resampled(map_, *aligned.shape[2:]).ravel()
            rng = np.random.default_rng(key("report", "pixels", domain.names[i], piece.corner))
            for k in range(count):
                places = rng.permutation(np.flatnonzero(flat == k))[:PIXELS_AT_ONCE]
                if len(places):
                    rows = aligned[row].flatten(1)[:, torch.from_numpy(places).to(aligned.device)]
                    kept[k].append(rows.T.float().cpu().numpy())
    rng = np.random.default_rng(key("report", "pixels", "of all"))
    share = -(-PIXELS // count)
    of_class = [np.concatenate([np.empty((0, width), np.float32), *rows]) for rows in kept]
    of_class = [rows[np.sort(rng.permutation(len(rows))[:share])] for rows in of_class]
    return np.concatenate(of_class), np.repeat(np.arange(count, dtype=np.int16), [len(rows) for rows in of_class])


def reduce(x: NDArray[np.float64], dimensions: int = 50) -> NDArray[np.float64]:
    """The first principal components ``(N, min(N, D, 50))``, from products of points: they are fewer than features."""
    centred = x - x.mean(0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    last = np.argsort(-values)[: min(dimensions, *x.shape)]
    return vectors[:, last] * np.sqrt(values[last].clip(0))


def in_two_dimensions(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """t-SNE from the first two components, in [0, 1] x [0, 1]; those components themselves for fewer than 10 points."""
    from sklearn.manifold import TSNE

    start = np.zeros((len(x), 2))
    start[:, : x.shape[1]] = x[:, :2]
    if len(x) >= 10 and x.std() > 0:
        start *= 1e-4 / start[:, 0].std()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            perplexity = min(30.0, (len(x) - 1) / 3)
            start = TSNE(init=start, perplexity=perplexity, max_iter=500, random_state=0).fit_transform(x)
    span = np.ptp(start, axis=0).max()
    low = (start.max(0) + start.min(0)) / 2 - span / 2
    return ((start - low) / (span or 1)).astype(np.float32)


def separability(x: NDArray[np.float64], domain: NDArray[np.int64]) -> float | None:
    """How often a linear classifier names the domain of points that it was not fitted to, both domains counting alike.

    Each feature is scaled by its spread over the points that are fitted. Components of *all* points, scaled alike, would
    not do: where they are as many as the points, every point is as far from each other one, and one that was left out
    lies opposite to its own domain.

    None where there is one domain, or one has fewer than 20 images: five folds of them say nothing.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if domain.max() == 0 or np.bincount(domain).min() < PROBED:
        return None
    turned = PCA(svd_solver="full")  # a rotation, unscaled: fewer numbers to fit, the same classifier
    classifier = make_pipeline(StandardScaler(), turned, LogisticRegression(class_weight="balanced", max_iter=500))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(classifier, x, domain, cv=folds, scoring="balanced_accuracy").mean())
