"""Images for a page: label maps drawn over them, and everything as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

CLASS_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a", "#762a83", "#a39200", "#5ab4ac",
    "#b2182b", "#999933",
)  # fmt: skip
"""Okabe and Ito's colours, then others that differ in lightness; numbers and outlines carry the meaning too."""

CHANGES = {"corrected": "#0072b2", "newly_wrong": "#d55e00", "still_wrong": "#111111", "not_labelled": "#767676"}
"""What became of a pixel whose class changed, and its colour; what is newly wrong is also hatched."""

_PANEL = 224  # pixels up to which a small image is enlarged
_SMALL = 64  # pixels up to which an image is kept without loss


def colour(index: int) -> str:
    """The colour of a class; with more classes than colours they repeat."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def data_uri(picture: Picture, quality: int = 82) -> str:
    """An image ``(H, W, 1)`` or ``(H, W, 3)`` as PNG where it is small, else as WebP."""
    stream = io.BytesIO()
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    kind = "png" if max(image.size) <= _SMALL else "webp"
    image.save(stream, kind, **({"optimize": True} if kind == "png" else {"quality": quality, "method": 4}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def enlarged(values: NDArray[Any]) -> NDArray[Any]:
    """Rows and columns repeated as often as the result stays within the size of a panel."""
    factor = max(1, _PANEL // max(values.shape[:2]))
    return values.repeat(factor, 0).repeat(factor, 1)


def overlay(image: Picture, labels: NDArray[np.int16], classes: int) -> Picture:
    """An image with its label map ``(h, w)``: regions tinted and outlined, of more than two classes also numbered.

    Of two classes only the second is drawn. What is ignored (-1) is striped.
    """
    base, map_ = enlarged(image).astype(np.float32), enlarged(labels)
    base = base.repeat(3 // base.shape[-1], -1)
    tint, line = (0.25, 2) if classes == 2 else (0.45, 1)
    for index in range(1 if classes == 2 else 0, classes):
        region = map_ == index
        rgb = _rgb(colour(index))
        base[region] = (1 - tint) * base[region] + tint * rgb
        base[region & _edge(region, line)] = rgb
    y, x = np.indices(map_.shape)
    base[(map_ < 0) & ((x + y) // 4 % 2 == 0)] = 128
    drawn = Image.fromarray(base.round().astype(np.uint8))
    if classes > 2:
        _number(drawn, map_, classes)
    return np.asarray(drawn)


def changes(before: NDArray[np.int16], after: NDArray[np.int16], truth: NDArray[np.int16] | None) -> NDArray[np.int16]:
    """What became of each pixel of two label maps ``(h, w)``: -1 where they agree, else a place in ``CHANGES``."""
    known = np.full(before.shape, False) if truth is None else truth >= 0
    found = np.select([known & (after == truth), known & (before == truth), known], [0, 1, 2], 3)
    return np.where(before == after, -1, found).astype(np.int16)


def disagreement(
    image: Picture, before: NDArray[np.int16], after: NDArray[np.int16], truth: NDArray[np.int16] | None
) -> Picture:
    """The image pale and grey, and on it the pixels whose class changed.

    With a true label map they have the colour of what became of them (``CHANGES``), without one that of their new class.
    """
    grey = enlarged(image).astype(np.float32).mean(-1, keepdims=True)
    base = (160 + 0.3 * grey).repeat(3, -1)
    what = enlarged(changes(before, after, truth))
    now = enlarged(after)
    colours = [colour(k) for k in range(int(after.max()) + 1)] if truth is None else list(CHANGES.values())
    region = what >= 0
    base[region] = np.array([_rgb(name) for name in colours], np.float32)[(now if truth is None else what)[region]]
    if truth is not None:
        y, x = np.indices(what.shape)
        base[(what == 1) & ((x + y) % 6 < 2)] = 255
    return base.round().astype(np.uint8)


def strip(images: Sequence[Picture], gap: int = 4) -> Picture:
    """Small images ``(h, w, C)`` beside each other, enlarged alike by repeating pixels, as ``(H, W, 3)``."""
    factor = max(1, _SMALL // max(images[0].shape[:2]))
    cells = [image.repeat(factor, 0).repeat(factor, 1).repeat(3 // image.shape[-1], -1) for image in images]
    space = np.full((len(cells[0]), gap, 3), 128, np.uint8)
    return np.concatenate([part for cell in cells for part in (cell, space)][:-1], axis=1)


def _rgb(colour: str) -> NDArray[np.float32]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def _edge(region: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The outermost ``width`` pixels of a region; the image's border is no edge."""
    from scipy.ndimage import binary_erosion

    return ~binary_erosion(region, iterations=width, border_value=1)


def _number(drawn: Image.Image, labels: NDArray[np.int16], classes: int) -> None:
    """Write each large region's class number at its innermost pixel."""
    from scipy.ndimage import distance_transform_edt, label

    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=13)
    for index in range(classes):
        parts, count = label(labels == index)
        for part in range(1, count + 1):
            region = parts == part
            if region.mean() < 0.02:
                continue
            depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
            y, x = np.unravel_index(depth.argmax(), depth.shape)
            at = (float(x), float(y))
            pen.text(at, str(index), fill="white", font=font, anchor="mm", stroke_width=2, stroke_fill="black")


def within(budget: int, rows: Sequence[Sequence[Picture]]) -> list[list[str]]:
    """Rows of images as data URIs of at most ``budget`` bytes together: first the quality falls, then rows go."""
    for quality in (82, 60, 40):
        encoded = [[data_uri(picture, quality) for picture in row] for row in rows]
        sizes = np.cumsum([sum(map(len, row)) for row in encoded])
        if sizes[-1] <= budget:
            return encoded
    return encoded[: int((sizes <= budget).sum())]
