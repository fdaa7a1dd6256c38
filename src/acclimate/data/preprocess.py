"""How an image becomes the network's input; saved with the model, so that prediction repeats it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from acclimate.settings import Settings
from acclimate.transforms.augment import Geometry, Photometry

Scale = Annotated[float, Field(gt=0)]


class Preprocess(Settings):
    """Size, channels, normalisation and augmentation.

    The network sees (v / 255 - mean) / std. Classification brings each image to ``size``: ``resize`` stretches it,
    ``centre`` cuts out its middle (and resizes only an image that is smaller). Segmentation keeps the image, scaled by
    ``scale``, and trains on random crops of ``crop`` pixels.
    """

    size: tuple[int, int] | None = None  # height, width; classification
    fit: Literal["resize", "centre"] = "resize"  # classification
    scale: Scale | tuple[Scale, Scale] = 1.0  # segmentation; of both domains, or of the source and of the target
    crop: tuple[int, int] | None = None  # height, width; segmentation; None: whole images of one size
    channels: Literal[1, 3] = 3
    mean: float | tuple[float, float, float] = 0.5
    std: float | tuple[float, float, float] = 0.5
    geometry: Geometry = Geometry()
    views: dict[str, Photometry] = {
        "weak": Photometry(),
        "strong": Photometry(brightness=0.2, contrast=0.4, gamma=0.3, saturation=0.4, hue=0.1, noise=0.05),
    }

    def scale_of(self, domain: str) -> float:
        """The scale of the source, or of the target: every stream but "source" holds images of the target."""
        if not isinstance(self.scale, tuple):
            return self.scale
        return self.scale[0 if domain == "source" else 1]

    def of(self, domain: str) -> Preprocess:
        """The preprocessing of one domain alone."""
        return self.replace(scale=self.scale_of(domain)) if isinstance(self.scale, tuple) else self
