"""How an image becomes the network's input; saved with the model, so that prediction repeats it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from acclimate.settings import Settings
from acclimate.transforms.augment import Geometry, Photometry


class Preprocess(Settings):
    """Size, channels, normalisation and augmentation.

    The network sees (v / 255 - mean) / std. Classification brings each image to ``size``: ``resize`` stretches it,
    ``centre`` cuts out its middle (and resizes only an image that is smaller). Segmentation keeps the image, scaled by
    ``scale``, and trains on random crops of ``crop`` pixels.
    """

    size: tuple[int, int] | None = None  # height, width; classification
    fit: Literal["resize", "centre"] = "resize"  # classification
    scale: float = Field(1.0, gt=0)  # segmentation
    crop: tuple[int, int] | None = None  # height, width; segmentation; None: whole images of one size
    channels: Literal[1, 3] = 3
    mean: float | tuple[float, float, float] = 0.5
    std: float | tuple[float, float, float] = 0.5
    geometry: Geometry = Geometry()
    views: dict[str, Photometry] = {
        "weak": Photometry(),
        "strong": Photometry(brightness=0.2, contrast=0.4, gamma=0.3, saturation=0.4, hue=0.1, noise=0.05),
    }
