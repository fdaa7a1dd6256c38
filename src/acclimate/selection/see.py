"""What the label-free scores look at: one pass of a model over images of both domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
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
PIXELS = 3072  # of segmented images, all together; each image gives as many, and so does each piece of a large one


@dataclasses.dataclass
class _Rows:
    """What was found so far."""

    logits: list[Tensor] = dataclasses.field(default_factory=list)
    features: list[Tensor] = dataclasses.field(default_factory=list)
    labels: list[Tensor] = dataclasses.field(default_factory=list)
    images: list[Tensor] = dataclasses.field(default_factory=list)
    masks: dict[int, Tensor] = dataclasses.field(default_factory=dict)  # by image: classes (h, w)
    truths: dict[int, Tensor] = dataclasses.field(default_factory=dict)  # by image: labels (h, w)


def see(
    model: Model, target: Domain, source: Domain | None = None, source_test: Domain | None = None, seed: int = 0
) -> Seen:
    """What the scores need of a model: up to 1,000 images of each domain, or some 3,000 pixels of up to 24 images.

    Images and pixels are the same for all models that see these domains, so that models can be compared row by row.
    An adapted network sees the source under BatchNorm statistics of the source, as in training.

    Args:
        target: labels are not read.
        source: labelled images that were trained on. source_test: labelled images that were not.
        seed: of the choice of images and pixels.
    """
    task = model.method.task
    most = IMAGES[task.name]
    at_target = _rows(model, target.unlabelled().some(most, "selection", seed), "target", seed)
    seen = Seen(
        zt=torch.cat(at_target.logits),
        ft=torch.cat(at_target.features),
        image_t=torch.cat(at_target.images),
        masks_t=_maps(at_target.masks) if task.name == "segmentation" else None,
        classes=len(task.classes),
    )
    if source is None:
        return seen
    trained = source.some(most, "selection", seed)
    if Need.TARGET in model.method.needs:
        model = on_own_statistics(model, trained, "source")
    at_source = _rows(model, trained, "source", seed)
    seen = dataclasses.replace(
        seen,
        fs_train=torch.cat(at_source.features),
        masks_s=_maps(at_source.truths) if task.name == "segmentation" else None,
    )
    if source_test is None:
        return seen
    held_out = _rows(model, source_test.some(most, "selection", seed), "source", seed)
    return dataclasses.replace(
        seen,
        zs=torch.cat(held_out.logits),
        fs=torch.cat(held_out.features),
        ys=torch.cat(held_out.labels),
        image_s=torch.cat(held_out.images),
    )


def with_consensus(seen: Sequence[Seen]) -> list[Seen]:
    """Each with the mean probabilities of all of them. Raises :class:`UsageError` where their rows differ."""
    if any(not torch.equal(each.image_t, seen[0].image_t) or each.zt.shape != seen[0].zt.shape for each in seen):
        raise UsageError(
            "these models see the target at different scales or with different classes, so there is no common prediction; "
            "compare models that were trained alike"
        )
    mean = torch.stack([each.zt.softmax(1) for each in seen]).mean(0)
    return [dataclasses.replace(each, consensus=mean) for each in seen]


@torch.no_grad()
def _rows(model: Model, domain: Domain, name: str, seed: int) -> _Rows:
    """Logits, features and labels of every image, or of some positions of it."""
    rows, net = _Rows(), model.method.net
    classify = model.method.task.name == "classification"
    count = max(1, PIXELS // len(domain))
    plain = type(model.method).predict is Method.predict  # then one pass gives both
    model.method.eval()
    for piece in pieces(model, domain, name):
        given = net(piece.x)
        z = (given.logits if plain else model.method.predict(piece.x)).float().cpu()
        f = given.features.float().cpu()
        if classify:
            rows.logits.append(z)
            rows.features.append(f.mean((2, 3)) if f.ndim == 4 else f.flatten(1))
            rows.images.append(torch.tensor(piece.index))
            if domain.labels is not None:
                rows.labels.append(torch.tensor([int(domain.labels[i]) for i in piece.index]))
            continue
        f = f if f.ndim == 4 else f.flatten(1)[:, :, None, None]
        for row, i in enumerate(piece.index):
            truth = None
            if domain.labels is not None:
                truth = torch.from_numpy(piece.label(domain.labels[i]).astype(np.int64))
                _place(rows.truths, i, piece, truth)
            _place(rows.masks, i, piece, z[row].argmax(0))
            at = torch.rand(2, count, generator=generator("selection", seed, domain.names[i], piece.corner))
            rows.logits.append(_at(z[row], at))
            rows.features.append(_at(f[row], at))
            rows.images.append(torch.full((count,), i))
            if truth is not None:
                rows.labels.append(_at(truth[None], at)[:, 0])
    order = torch.argsort(torch.cat(rows.images), stable=True)  # images of one size come together
    for part in (rows.logits, rows.features, rows.labels, rows.images):
        if part:
            part[:] = [torch.cat(part)[order]]
    return rows


def _at(map_: Tensor, at: Tensor) -> Tensor:
    """The values ``(n, C)`` of a map ``(C, h, w)`` at positions ``(2, n)`` in [0, 1)."""
    height, width = map_.shape[1:]
    return map_[:, (at[0] * height).long(), (at[1] * width).long()].T


def _place(maps: dict[int, Tensor], i: int, piece: Piece, part: Tensor) -> None:
    """Put a piece of an image's map to where it belongs."""
    top, left = piece.corner
    whole = maps.setdefault(i, torch.full(piece.size, -1, dtype=torch.int16))
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part.to(torch.int16)


def _maps(maps: dict[int, Tensor]) -> list[Tensor]:
    return [maps[i] for i in sorted(maps)]
