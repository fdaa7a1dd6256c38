"""Do the shapes that are predicted on the target look like those that are labelled in the source?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.selection.base import Score
from acclimate.selection.components import IGNORE, Objects, objects


def morphology(masks_t: Sequence[Tensor], masks_s: Sequence[Tensor], classes: int) -> float:
    """The mean over classes, and over seven statistics of their objects, of a distance in [0, 1]; lower is better.

    An object is a connected part of one class (eight neighbours). Of each class are compared

    1. the share of pixels, 2. the objects and 3. the holes in them per pixel: |a - b| / (a + b), 0 where both are 0;
    4. the areas of objects, each object counting once, so that salt and pepper is seen: max_x |F_t(x) - F_s(x)|
       (Kolmogorov and Smirnov), and, each object counting as often as it has pixels, so that large ones are,
    5. their areas, 6. 16 area / perimeter^2, 7. minor over major axis: the same distance of the weighted distributions.

    A class that only one domain has gets 1, one that neither has is left out (0 if that leaves none). With two classes
    only the second counts, as in the IoU that tables show; with more, all.

    Args:
        masks_t: predicted classes ``(h, w)`` of each target image, at the scale at which the network works.
        masks_s: labels ``(h, w)`` of each source image, at that scale too. Pixels of -1 belong to no class and no
            object, and are not counted.
        classes: K.

    This score is our own. It rests on an assumption: objects have the same shapes, sizes and numbers in both domains,
    which differ in how they look. Raises :class:`UsageError` if every pixel of a domain is ignored.
    """
    of_t, of_s = _Shapes(masks_t, "target"), _Shapes(masks_s, "source")
    distances = [_distance(of_t, of_s, k) for k in ([1] if classes == 2 else range(classes))]
    found = [distance for distance in distances if distance is not None]
    return float(np.mean(found)) if found else 0.0


class _Shapes:
    """The objects of all images of a domain."""

    def __init__(self, masks: Sequence[Tensor], name: str) -> None:
        maps = [mask.cpu().numpy() for mask in masks]
        self.pixels = sum(int((labels != IGNORE).sum()) for labels in maps)
        if not self.pixels:
            raise UsageError(f"every pixel of the {name}'s masks is 'ignore'; give masks with labels that count")
        self.objects = Objects(*map(np.concatenate, zip(*map(objects, maps))))

    def of(self, k: int) -> Objects:
        """Those of one class."""
        return Objects(*(values[self.objects.label == k] for values in self.objects))


def _distance(of_t: _Shapes, of_s: _Shapes, k: int) -> float | None:
    t, s = of_t.of(k), of_s.of(k)
    if not len(t.label) and not len(s.label):
        return None
    if not len(t.label) or not len(s.label):
        return 1.0
    amounts = [
        _relative(np.sum(a) / of_t.pixels, np.sum(b) / of_s.pixels)
        for a, b in ((t.area, s.area), (np.ones(len(t.area)), np.ones(len(s.area))), (t.holes, s.holes))
    ]
    shapes = [
        _kolmogorov_smirnov(a, b, t.area, s.area)
        for a, b in ((t.area, s.area), (t.compactness, s.compactness), (t.roundness, s.roundness))
    ]
    once = _kolmogorov_smirnov(t.area, s.area, np.ones(len(t.area)), np.ones(len(s.area)))
    return float(np.mean([*amounts, once, *shapes]))


def _relative(a: float, b: float) -> float:
    return abs(a - b) / (a + b) if a + b else 0.0


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray, weights_a: np.ndarray, weights_b: np.ndarray) -> float:
    """max_x |F_a(x) - F_b(x)| of two samples whose values have weights."""
    values, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    step_a = np.bincount(place[: len(a)], weights_a / weights_a.sum(), minlength=len(values))
    step_b = np.bincount(place[len(a) :], weights_b / weights_b.sum(), minlength=len(values))
    return float(min(np.abs(np.cumsum(step_a - step_b)).max(), 1.0))


MORPHOLOGY = Score(
    name="morphology",
    title="Morphology",
    function=morphology,
    better="low",
    paper="none: our own",
    when="Segmentation of things that have a shape of their own (cells, mitochondria, vessels) at the same "
    "magnification in both domains: wrong predictions are frayed, speckled, merged or missing, and that shows "
    "without a label.",
    fails="Things that truly differ in size, number or shape between the domains, or images at another "
    "magnification; and a model that draws plausible shapes in wrong places.",
    tasks=("segmentation",),
)
