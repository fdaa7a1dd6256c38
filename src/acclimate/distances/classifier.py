"""How well a classifier tells two sets apart: the distance that needs no unit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from acclimate.distances.pair import pair
from acclimate.errors import UsageError
from acclimate.random import key

FOLDS = 5


def classifier_two_sample(
    x: Tensor, y: Tensor, groups_x: Tensor | None = None, groups_y: Tensor | None = None, *, seed: int = 0
) -> float:
    """Cross-validated area under the ROC curve of a logistic regression that tells x from y.

    Lopez-Paz and Oquab, ICLR 2017, with the area in place of the accuracy, so that n != m does not matter. 0.5 =
    indistinguishable, 1 = a plane separates them; it may fall slightly below 0.5 by chance.

    Args:
        x: ``(n, d)`` activations. y: ``(m, d)``.
        groups_x, groups_y: ``(n,)`` and ``(m,)`` integers, the image of each row. An image is never in both the
            training and the test part of a fold; without them each row is its own image, and rows of one image that
            resemble each other let the classifier recognise images in place of domains. Groups of x and y are
            distinct even where their numbers agree.
        seed: fixes the folds (5, or as many as the smaller set has images).

    Raises :class:`UsageError` for unusable matrices, groups of the wrong shape and fewer than 2 images in a set.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = pair(x, y)
    images = [_images(z, groups, name) for z, groups, name in ((x, groups_x, "x"), (y, groups_y, "y"))]
    folds = min(FOLDS, *(int(i.max()) + 1 for i in images))
    fold = np.concatenate([_fold_of_image(i, folds, seed)[i] for i in images])
    values = torch.cat([x, y]).cpu().numpy()
    is_y = np.repeat([0, 1], [len(x), len(y)])
    areas = []
    for k in range(folds):
        train, test = fold != k, fold == k
        # Strong shrinkage: with more channels than rows any two sets can be separated on the training part.
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", tol=1e-3))
        model.fit(values[train], is_y[train])
        areas.append(roc_auc_score(is_y[test], model.decision_function(values[test])))
    return float(np.mean(areas))


def _images(x: Tensor, groups: Tensor | None, name: str) -> np.ndarray:
    """The image of each row, renumbered 0, 1, ..."""
    if groups is None:
        return np.arange(len(x))
    if groups.shape != (len(x),) or groups.is_floating_point():
        raise UsageError(f"groups_{name} must be {len(x)} integers, the image of each row of {name}")
    found, images = np.unique(groups.cpu().numpy(), return_inverse=True)
    if len(found) < 2:
        raise UsageError(f"all rows of {name} come from one image; give at least 2 images, or no groups")
    return images


def _fold_of_image(images: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image: a keyed order dealt out in turn, so that every fold holds images of both sets."""
    number = int(images.max()) + 1
    return np.random.default_rng(key("folds", seed)).permutation(number) % folds
