"""Images that a method draws itself: shown by class, and shown to an oracle."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.random import key

_TOGETHER = 100  # images drawn at a time


@dataclasses.dataclass(frozen=True)
class Grid:
    """Drawn images, one row per class."""

    classes: list[int]
    images: Tensor  # (len(classes), columns, H, W, C) uint8


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """How often an oracle sees in a drawn image the class that was asked for."""

    share: float  # over all classes alike
    by_class: list[float]
    images: int  # of each class


def generated_grid(model: Model, columns: int = 10, rows: int = 10) -> Grid | None:
    """Images of up to ``rows`` classes, as uint8; None where the method draws none.

    Of more classes a choice is shown, the same one each time. Every class is drawn from the same seed, so a column
    shows one z. The weights and torch's generators are left as they were.
    """
    k = len(model.method.task.classes)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(key("generated", "classes")))
    classes = sorted(order[:rows].tolist())
    found = [_drawn(model, label, columns, key("generated", "grid")) for label in classes]
    drawn = [images for images in found if images is not None]
    if not drawn:
        return None
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in model.method.net.normalisation)
    values = torch.stack(drawn).float().cpu() * std + mean  # (R, columns, C, H, W) in 0..1
    whole = (values.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    return Grid(classes, whole.permute(0, 1, 3, 4, 2).contiguous())


@torch.no_grad()
def class_fidelity(generator: Model, oracle: Model, count: int = 100) -> Fidelity | None:
    """Draw ``count`` images of each class and ask ``oracle`` for theirs; None where the method draws none.

    Raises :class:`UsageError` if the oracle was trained for other classes, sizes or normalisations.
    """
    ours, theirs = (model.method for model in (generator, oracle))
    for what, mine, other in (
        ("classes", ours.task.classes, theirs.task.classes),
        ("image shape", ours.net.input_shape, theirs.net.input_shape),
        ("normalisation", ours.net.normalisation, theirs.net.normalisation),
    ):
        if mine != other:
            raise UsageError(f"the oracle has the {what} {other}, the generator {mine}; train both in one experiment")
    theirs.eval()
    shares = []
    for label in range(len(ours.task.classes)):
        right = 0
        for start in range(0, count, _TOGETHER):
            images = _drawn(generator, label, min(_TOGETHER, count - start), key("generated", "fidelity", label, start))
            if images is None:
                return None
            right += int((theirs.predict(images.to(oracle.device)).argmax(1) == label).sum())
        shares.append(right / count)
    return Fidelity(sum(shares) / len(shares), shares, count)


@torch.no_grad()
def _drawn(model: Model, label: int, count: int, seed: int) -> Tensor | None:
    """``count`` images of a class as the network's input ``(count, C, H, W)``."""
    model.method.eval()
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        return model.method.generate(torch.full((count,), label, device=model.device))
