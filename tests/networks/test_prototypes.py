"""Prototypes and distances to them against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from acclimate.networks.prototypes import class_means, moved, nearness, resized


def features(n: int = 3, shift: float = 0.0) -> Tensor:
    return torch.randn(n, 5, 6, 7, generator=torch.Generator().manual_seed(1)) + shift


def test_class_means_are_of_each_image_and_need_ten_pixels() -> None:
    f = features()
    labels = torch.zeros(3, 6, 7, dtype=torch.long)
    labels[0, :2], labels[1, 0], labels[2, :3] = 1, 1, -1  # 14, 7 and no pixels of class 1
    found = class_means(f, labels, 3)
    assert found[:, 5].tolist() == [3, 1, 0]
    zero = [f[i].numpy()[:, labels[i].numpy() == 0].mean(1) for i in range(3)]
    np.testing.assert_allclose(found[0, :5], sum(zero), rtol=1e-5)
    np.testing.assert_allclose(found[1, :5], f[0].numpy()[:, labels[0].numpy() == 1].mean(1), rtol=1e-4, atol=1e-6)
    assert found[2].eq(0).all()
    assert class_means(f, labels, 3, minimum=7)[1, 5] == 2


def test_prototypes_move_by_the_decay_once_for_each_image() -> None:
    """Two images of class 0, none of class 1, a first one of class 2, one of class 3 that is known."""
    prototypes = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [5.0, 5.0]])
    known = torch.tensor([True, True, False, True])
    found = torch.tensor([[8.0, 6.0, 2.0], [0.0, 0.0, 0.0], [7.0, 9.0, 1.0], [1.0, 1.0, 1.0]])
    after, seen = moved(prototypes, known, found, 0.9)
    expected = [[0.81 * 1 + 0.19 * 4, 0.81 * 2 + 0.19 * 3], [3, 4], [7, 9], [0.9 * 5 + 0.1, 0.9 * 5 + 0.1]]
    torch.testing.assert_close(after, torch.tensor(expected))
    assert seen.all()
    start, there = moved(prototypes, torch.zeros(4, dtype=torch.bool), found, 0.0)
    torch.testing.assert_close(start, torch.tensor([[4.0, 3.0], [3.0, 4.0], [7.0, 9.0], [1.0, 1.0]]))
    assert there.tolist() == [True, False, True, True]


def test_n_images_move_a_prototype_as_n_equal_ones_in_a_row() -> None:
    prototype, known = torch.tensor([[1.0, 2.0]]), torch.tensor([True])
    one = torch.tensor([[4.0, 3.0, 1.0]])
    there = prototype
    for _ in range(5):
        there, _ = moved(there, known, one, 0.97)
    torch.testing.assert_close(moved(prototype, known, 5 * one, 0.97)[0], there)


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_nearness_is_the_distance_over_the_temperature(shift: float) -> None:
    """Also far from the origin, where ||f||^2 - 2 f eta + ||eta||^2 alone would lose its digits."""
    f = features(shift=shift)
    eta = torch.randn(4, 5, generator=torch.Generator().manual_seed(2)) + shift
    found = nearness(f, eta, torch.ones(4, dtype=torch.bool), 0.5)
    rows = f.double().permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    expected = -cdist(rows, eta.double().numpy()) / 0.5
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).reshape(-1, 4), expected, rtol=1e-3, atol=1e-3)


def test_identical_prototypes_weigh_all_classes_alike() -> None:
    omega = nearness(features(), torch.full((4, 5), 0.3), torch.ones(4, dtype=torch.bool)).softmax(1)
    assert torch.equal(omega, torch.full((3, 4, 6, 7), 0.25))


def test_a_class_without_prototype_has_no_weight_and_no_gradient() -> None:
    f = features().requires_grad_()
    known = torch.tensor([True, False, True])
    z = nearness(f, torch.randn(3, 5), known)
    omega = z.softmax(1)
    assert omega[:, 1].eq(0).all()
    torch.testing.assert_close(omega.sum(1), torch.ones(3, 6, 7))
    z[:, 1].sum().backward()
    assert f.grad.eq(0).all()  # type: ignore[union-attr]


def test_without_any_prototype_all_classes_weigh_alike() -> None:
    omega = nearness(features(), torch.zeros(3, 5), torch.zeros(3, dtype=torch.bool)).softmax(1)
    torch.testing.assert_close(omega, torch.full((3, 3, 6, 7), 1 / 3))


def test_gradient_of_a_distance_is_right_and_finite_at_the_prototype() -> None:
    known = torch.ones(2, dtype=torch.bool)
    eta = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    f = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: nearness(f, eta, known), f)
    there = eta[0].view(1, 2, 1, 1).clone().requires_grad_()
    nearness(there, eta, known).log_softmax(1).sum().backward()
    assert there.grad.isfinite().all()  # type: ignore[union-attr]


def test_resized_labels_keep_their_values() -> None:
    labels = torch.tensor([[-1, -1, 3, 3], [-1, -1, 3, 3], [7, 7, 0, 0], [7, 7, 0, 0]])[None]
    assert resized(labels, torch.zeros(1, 9, 2, 2)).tolist() == [[[-1, 3], [7, 0]]]
    assert torch.equal(resized(labels, torch.zeros(1, 9, 4, 4)), labels)
