"""Source images redrawn in the look of the target, by methods that translate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from acclimate import registry
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.engine.model import Model
from acclimate.engine.seeing import inputs
from acclimate.errors import NumericError, UsageError
from acclimate.methods import Method, find
from acclimate.random import key


def translate(model: Model, domain: Domain) -> Domain:
    """The images of a source as the model's method redraws them, with their names and labels; all in memory.

    Segmented images keep their size, classified ones have the size that the network sees. Grey images stay grey. A
    method that chooses at random chooses by the image's name, so an image looks the same each time.

    Raises :class:`UsageError` for a method that does not translate, :class:`NumericError` where it gives no finite value.
    """
    images = list(translations(model, domain))
    facts = {name: value for name, value in domain.facts.items() if name != "folder"}
    facts["translated by"] = model.method.name
    return dataclasses.replace(domain, name=f"{domain.name}-translated", images=images, facts=facts)


def translations(model: Model, domain: Domain) -> Iterator[np.ndarray]:
    """One image after another as uint8 ``(H, W, C)``: no more than one of them is in memory."""
    check_translates(model.method)
    model.method.eval()
    for i in range(len(domain)):
        image = np.asarray(domain.images[i])
        image = image[..., None] if image.ndim == 2 else image
        x = _input(model, dataclasses.replace(domain.unlabelled(), images=[image], names=[domain.names[i]]))
        v = _to_unit(_redrawn(model, x, domain.names[i]), model.preprocess)
        if not bool(v.isfinite().all()):
            raise NumericError(
                f"{model.method.name} gives values that are not finite for {domain.names[i]}; "
                "train it again with a lower --lr"
            )
        if image.shape[-1] == 1 and v.shape[1] == 3:
            v = (v * v.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)  # ITU-R BT.601 luma
        if model.method.task.name == "segmentation" and v.shape[2:] != image.shape[:2]:
            v = functional.interpolate(v, image.shape[:2], mode="bilinear", antialias=True, align_corners=False)
        yield (v.clamp(0, 1) * 255).round().to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy()


def check_translates(method: Method) -> None:
    """Raise :class:`UsageError`, which names methods that translate, if ``method`` does not."""
    if not translates(type(method)):
        known = ", ".join(name for name in registry.names("methods") if translates(find(name)))
        raise UsageError(
            f"{method.name} does not redraw images; train one that does with acclimate adapt --method (known: {known})"
        )


def translates(kind: type[Method]) -> bool:
    """Whether a method says how it redraws images."""
    return kind.translate is not Method.translate


def _input(model: Model, one: Domain) -> Tensor:
    """A domain's only image as the network gets a source image."""
    ((_, x),) = inputs(model, one, "source")
    return x


@torch.no_grad()
def _redrawn(model: Model, x: Tensor, name: str) -> Tensor:
    """``(1, C, H, W)`` of the size it got, as the network's input."""
    method = model.method
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(key("translate", name))
        found = method.translate(x)
    if found is None:
        raise UsageError(f"{method.name} does not redraw images as it is set here; acclimate methods {method.name}")
    if found.shape != x.shape:
        raise UsageError(
            f"{method.name} makes {tuple(found.shape[1:])} of an image of {tuple(x.shape[1:])}; "
            "its translate() must keep the size"
        )
    return found.float()


def _to_unit(x: Tensor, preprocess: Preprocess) -> Tensor:
    """The network's input in units of 0..1."""
    mean, std = (
        x.new_tensor(value).expand(x.shape[1]).view(-1, 1, 1) if isinstance(value, tuple) else value
        for value in (preprocess.mean, preprocess.std)
    )
    return x * std + mean
