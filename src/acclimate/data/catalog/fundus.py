"""What the sets of retinal vessels share: vessels inside of a round field of view, nothing that counts outside of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import ImageFilter

from acclimate.data.decode import UnusableFile, opened
from acclimate.data.domain import IGNORE

VESSEL_CLASSES = ("background", "vessel")


@dataclasses.dataclass(frozen=True)
class VesselReader:
    """Decodes a (labels path, page, image path) triple to labels ``(H, W)``, ``int16``: 1 vessel, 0 none, -1 outside.

    Labels are white on black, whatever the file's format makes of it.
    """

    field: Callable[[str], np.ndarray]  # path of the image -> the field of view, (H, W), bool

    def __call__(self, item: tuple[str, int, str]) -> np.ndarray:
        path, _, image = item
        vessels, field = white(path), self.field(image)
        if vessels.shape != field.shape:
            raise UnusableFile(path, "mask", "the labels and their image differ in size", "remove the pair")
        return np.where(field, vessels, IGNORE).astype(np.int16)


@dataclasses.dataclass(frozen=True)
class LitField:
    """The field of view of a photograph for which none is published: where the red channel is above ``threshold``.

    The retina reflects red, the mask of a fundus camera does not. The channel is averaged over 7 x 7 pixels, so that
    noise outside does not count; a pixel lies inside if lit ones lie on both sides of it in its row and in its column,
    so that dark vessels and lesions do.
    """

    threshold: int

    def __call__(self, path: str) -> np.ndarray:
        with opened(path) as image:
            red = image.convert("RGB").getchannel("R").filter(ImageFilter.BoxBlur(3))
        lit = np.asarray(red) > self.threshold
        return _between(lit, 0) & _between(lit, 1)


def white(path: str) -> np.ndarray:
    """Where an image is nearer to white than to black, ``(H, W)``, bool."""
    with opened(path) as image:
        return np.asarray(image.convert("L")) > 127


def _between(lit: np.ndarray, axis: int) -> np.ndarray:
    """Where something is lit before and behind along an axis (or right there)."""
    before = np.maximum.accumulate(lit, axis)
    behind = np.flip(np.maximum.accumulate(np.flip(lit, axis), axis), axis)
    return before & behind
