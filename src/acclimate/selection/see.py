"""What the label-free scores look at: one pass of a model over images of both domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from acclimate.data.domain import Domain
from acclimate.engine.model import Model
from acclimate.engine.seeing import Piece, on_own_statistics, pieces
from acclimate.errors import UsageError
from acclimate.methods import Method, Need
from acclimate.random import generator
from acclimate.selection.base import Seen

IMAGES = {"classification": 1000, "segmentation": 24}  # of each domain
PIXELS = 3072  # of segmented images, all together; each image gives as many


def see(
    model: Model, target: Domain, source: Domain | None = None, source_test: Domain | None = None, seed: int = 0
) -> Seen:
    """What the scores need of a model: up to 1,000 images of each domain, or some 3,000 pixels of up to 24 images.

    Images and pixels are the same for all models that see these domains, so that models can be compared row by row.
    Predictions are the network's own, in one pass, whatever windows or scales the model has for predicting. A network that
    normalised the domains apart in training sees the source under BatchNorm statistics of the source, as it did there.

    Args:
        target: labels are not read.
        source: labelled images that were trained on. source_test: labelled images that were not.
        seed: of the choice of images and pixels.
    """
    task = model.method.task
    most = IMAGES[task.name]

    def rows(model: Model, domain: Domain, name: str) -> _Rows:
        chosen = drawn(domain, most, seed)
        return (
            _of_images(model, chosen, name) if task.name == "classification" else _of_pixels(model, chosen, name, seed)
        )

    at_target = rows(model, target.unlabelled(), "target")
    seen = Seen(
        zt=at_target.logits,
        ft=at_target.features,
        image_t=at_target.images,
        masks_t=at_target.masks,
        classes=len(task.classes),
    )
    if source is None:
        return seen
    if apart(model.method):
        model = on_own_statistics(model, drawn(source, most, seed), "source")
    trained = rows(model, source, "source")
    seen = dataclasses.replace(seen, fs_train=trained.features, masks_s=trained.truths)
    if source_test is None:
        return seen
    held_out = rows(model, source_test, "source")
    return dataclasses.replace(
        seen, zs=held_out.logits, fs=held_out.features, ys=held_out.labels, image_s=held_out.images
    )


def drawn(domain: Domain, count: int, seed: int) -> Domain:
    """Up to ``count`` images in a drawn order: folders are sorted by class, volumes by slice."""
    some = domain.some(count, "selection", seed)
    order = torch.randperm(len(some), generator=generator("selection", "order", seed))
    return some.subset(order.tolist())


def apart(method: Method) -> bool:
    """Whether the method's network saw the source under other BatchNorm statistics than it keeps: those of its batches."""
    return Need.TARGET in method.needs and getattr(method.settings, "norm", "target") in ("target", "separate")


def with_consensus(seen: Sequence[Seen]) -> list[Seen]:
    """Each with the mean probabilities of all of them. Raises :class:`UsageError` where their rows differ."""
    if any(not torch.equal(each.image_t, seen[0].image_t) or each.zt.shape != seen[0].zt.shape for each in seen):
        raise UsageError(
            "these models see other images of the target, or have other classes, so there is no common prediction; "
            "compare models that were trained alike"
        )
    mean = torch.stack([each.zt.softmax(1) for each in seen]).mean(0)
    return [dataclasses.replace(each, consensus=mean) for each in seen]


class _Rows(NamedTuple):
    """What a model gives at the rows of a domain; labels and masks where there are any."""

    logits: Tensor
    features: Tensor
    images: Tensor
    labels: Tensor | None = None
    masks: list[Tensor] | None = None  # segmentation: the predicted classes of each image (h, w)
    truths: list[Tensor] | None = None  # segmentation: its labels (h, w)


def _passed(model: Model, piece: Piece) -> tuple[Tensor, Tensor]:
    """Logits and features of a piece; one pass gives both where the method predicts with its network alone."""
    net, method = model.method.net, model.method
    given = net(piece.x)
    plain = type(method).predict is Method.predict
    z = given.logits if plain else method.predict(piece.x)
    return z.float().cpu(), given.features.float().cpu()


@torch.no_grad()
def _of_images(model: Model, domain: Domain, name: str) -> _Rows:
    """A row for each image."""
    model.method.eval()
    logits: dict[int, Tensor] = {}
    features: dict[int, Tensor] = {}
    for piece in pieces(model, domain, name):
        z, f = _passed(model, piece)
        logits |= zip(piece.index, z)
        features |= zip(piece.index, f.mean((2, 3)) if f.ndim == 4 else f.flatten(1))
    order = range(len(domain))
    labels = None if domain.labels is None else torch.tensor([int(domain.labels[i]) for i in order])
    return _Rows(
        torch.stack([logits[i] for i in order]),
        torch.stack([features[i] for i in order]),
        torch.arange(len(domain)),
        labels,
    )


@torch.no_grad()
def _of_pixels(model: Model, domain: Domain, name: str, seed: int) -> _Rows:
    """Some pixels of each image, at the same places for every model, whatever the scale at which it sees the image."""
    count = max(1, PIXELS // len(domain))
    places = [torch.rand(2, count, generator=generator("selection", seed, each)) for each in domain.names]
    rows: dict[str, list[Tensor]] = {
        "logits": [torch.empty(0)] * len(domain),
        "features": [torch.empty(0)] * len(domain),
    }
    masks: dict[int, Tensor] = {}
    truths: dict[int, Tensor] = {}
    model.method.eval()
    for piece in pieces(model, domain, name):
        z, f = _passed(model, piece)
        f = f if f.ndim == 4 else f.flatten(1)[:, :, None, None]
        (height, width), (top, left) = piece.size, piece.corner
        for row, i in enumerate(piece.index):
            _put(masks, i, piece, z[row].argmax(0))
            if domain.labels is not None:
                _put(truths, i, piece, torch.from_numpy(piece.label(domain.labels[i])))
            # Places in units of the piece; what lies outside of it is another piece's.
            at = (places[i] * torch.tensor([[height], [width]])).floor() + 0.5 - torch.tensor([[top], [left]])
            at = at / torch.tensor([[z.shape[2]], [z.shape[3]]])
            inside = ((at >= 0) & (at < 1)).all(0)
            for name_, map_ in (("logits", z[row]), ("features", f[row])):
                if not len(rows[name_][i]):
                    rows[name_][i] = torch.empty(count, map_.shape[0])
                rows[name_][i][inside] = _at(map_, at[:, inside])
    labels = None
    if truths:
        labels = torch.cat([_at(truths[i][None], places[i])[:, 0] for i in range(len(domain))]).long()
    return _Rows(
        torch.cat(rows["logits"]),
        torch.cat(rows["features"]),
        torch.arange(len(domain)).repeat_interleave(count),
        labels,
        [masks[i] for i in range(len(domain))],
        [truths[i] for i in range(len(domain))] if truths else None,
    )


def _at(map_: Tensor, at: Tensor) -> Tensor:
    """The values ``(n, C)`` of a map ``(C, h, w)`` at places ``(2, n)`` in [0, 1)."""
    height, width = map_.shape[1:]
    return map_[:, (at[0] * height).long(), (at[1] * width).long()].T


def _put(maps: dict[int, Tensor], i: int, piece: Piece, part: Tensor) -> None:
    """Put a piece of an image's map to where it belongs."""
    top, left = piece.corner
    whole = maps.setdefault(i, torch.full(piece.size, -1, dtype=torch.int16))
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part.to(torch.int16)
