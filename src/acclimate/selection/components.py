"""The connected objects of a label map, of all classes at once, and what shape each has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from acclimate.data.domain import IGNORE


class Objects(NamedTuple):
    """The objects of one map, each ``(n,)``; eight neighbours connect, so a thin diagonal line is one object."""

    label: np.ndarray  # class
    area: np.ndarray  # pixels
    compactness: np.ndarray  # 16 area / perimeter^2, in (0, 1]: 1 for a square
    roundness: np.ndarray  # minor over major axis of the ellipse with the same second moments, in (0, 1]
    holes: np.ndarray  # parts of the rest that it encloses, connected by four neighbours


def objects(labels: np.ndarray) -> Objects:
    """All objects of ``labels (h, w)``; pixels of -1 belong to none.

    Works on runs, the stretches of one class within a row, which are far fewer than pixels: SciPy's ``ndimage.label``
    would take one pass for each class. The perimeter counts edges between pixels, those at the image's border too. An
    object is a planar graph of runs that touch, so it encloses 1 - runs + touching pairs holes (Euler).
    """
    height, width = labels.shape
    begins = np.ones((height, width), bool)
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(begins).reshape(height, width) - 1
    start = np.flatnonzero(begins)
    length = np.diff(start, append=labels.size).astype(np.float64)
    label = labels.ravel()[start]

    below = labels[1:] == labels[:-1]  # the same class one row further down
    first = below & (begins[1:] | begins[:-1])  # where two runs begin to overlap
    right = labels[1:, 1:] == labels[:-1, :-1]
    left = labels[1:, :-1] == labels[:-1, 1:]
    corner_right = right & ~below[:, :-1] & ~below[:, 1:]
    corner_left = left & ~below[:, :-1] & ~below[:, 1:]
    upper = np.concatenate([run[:-1][first], run[:-1, :-1][corner_right], run[:-1, 1:][corner_left]])
    lower = np.concatenate([run[1:][first], run[1:, 1:][corner_right], run[1:, :-1][corner_left]])
    touching = coo_matrix((np.ones(len(upper), bool), (upper, lower)), (len(start), len(start)))
    count, part = connected_components(touching, directed=False)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(part, values, minlength=count)

    area = total(length)
    shared = np.bincount(part[run[1:][below]], minlength=count)  # edges inside, between rows
    perimeter = 2 * total(np.ones(len(start))) + 2 * (area - shared)
    holes = 1 - total(np.ones(len(start))) + np.bincount(part[upper], minlength=count)

    y, x = start // width, start % width + (length - 1) / 2  # of each run's middle
    mean_y, mean_x = total(length * y) / area, total(length * x) / area
    off_y, off_x = y - mean_y[part], x - mean_x[part]
    # A pixel has an extent: the variance of a uniform distribution over a length of one is 1 / 12.
    yy = total(length * off_y**2) / area + 1 / 12
    xx = total(length * (off_x**2 + (length**2 - 1) / 12)) / area + 1 / 12
    xy = total(length * off_y * off_x) / area
    spread = np.hypot((yy - xx) / 2, xy)
    roundness = np.sqrt(np.clip((yy + xx) / 2 - spread, 0, None) / ((yy + xx) / 2 + spread))
    # The same shape at another place is to have the same value, not one that differs by rounding.
    roundness = roundness.round(6)

    kind = np.empty(count, np.int64)
    kind[part] = label
    seen = kind != IGNORE
    return Objects(kind[seen], area[seen], (16 * area / perimeter**2)[seen], roundness[seen], holes[seen])
