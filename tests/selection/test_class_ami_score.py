"""Classes against clusters: adjusted mutual information from its definition, clusters that are known beforehand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from torch.nn import functional

from acclimate.selection.class_ami import class_ami


def logits(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return 5.0 * functional.one_hot(labels, classes)


def adjusted(labels: np.ndarray, clusters: np.ndarray) -> float:
    """(I - E) / (mean entropy - E); E over all tables with these margins, one hypergeometric cell at a time."""
    rows = len(labels)
    table = np.array(
        [[np.sum((labels == a) & (clusters == b)) for b in np.unique(clusters)] for a in np.unique(labels)]
    )
    a, b = table.sum(1), table.sum(0)

    def term(n: np.ndarray, i: int, j: int) -> np.ndarray:
        n = np.asarray(n, float)
        return np.where(n > 0, n / rows * np.log(np.maximum(n, 1) * rows / (a[i] * b[j])), 0)

    cells = [(i, j) for i in range(len(a)) for j in range(len(b))]
    information = sum(term(table[i, j], i, j) for i, j in cells)
    counts = np.arange(rows + 1)
    chance = sum((hypergeom.pmf(counts, rows, a[i], b[j]) * term(counts, i, j)).sum() for i, j in cells)
    entropies = [-(n / rows * np.log(n / rows)).sum() for n in (a, b)]
    return float((information - chance) / (np.mean(entropies) - chance))


@pytest.fixture
def groups() -> tuple[torch.Tensor, torch.Tensor]:
    """Three groups of 20, 25 and 15 rows that no clustering could mistake, and which group each row is of."""
    generator = torch.Generator().manual_seed(0)
    group = torch.tensor([0] * 20 + [1] * 25 + [2] * 15)
    return 20 * torch.eye(3, 8)[group] + torch.randn(60, 8, generator=generator), group


def test_it_is_the_definition(groups) -> None:
    ft, group = groups
    labels = group.clone()
    labels[::4] = (labels[::4] + 1) % 3
    value = class_ami(logits(labels, 3), ft)
    assert value == pytest.approx(adjusted(labels.numpy(), group.numpy()), rel=1e-9)
    assert 0.2 < value < 0.8


def test_names_of_classes_do_not_matter(groups) -> None:
    ft, group = groups
    assert class_ami(logits((group + 1) % 3, 3), ft) == pytest.approx(1, rel=1e-12)


def test_labels_at_random_get_about_nothing(groups) -> None:
    ft, _ = groups
    generator = torch.Generator().manual_seed(1)
    values = [class_ami(torch.randn(60, 3, generator=generator), ft) for _ in range(20)]
    assert abs(np.mean(values)) < 0.03


def test_features_are_taken_as_they_are(groups) -> None:
    """Two groups along a long axis, two along a short one: the clusters are those of the long axis.

    Standardised features would not prefer one; divided by their norm, rows at 100 and 200 would be one.
    """
    generator = torch.Generator().manual_seed(2)
    far, near = torch.arange(80) % 2, torch.arange(80) // 2 % 2
    ft = torch.stack([100.0 + 100 * far, 10.0 * near], 1) + 0.1 * torch.randn(80, 2, generator=generator)
    assert class_ami(logits(far, 2), ft) == pytest.approx(1, rel=1e-12)
    assert class_ami(logits(near, 2), ft) < 0.05


def test_equal_rows_count_each() -> None:
    """A hundred rows at 0, a hundred at 3, one at 10: joining 3 with 10 costs 7^2 * 100 / 101, with 0 3^2 * 50.

    If each place counted once it would be 7^2 / 2 and 3^2 / 2, and 3 would go with 0.
    """
    ft = torch.tensor([0.0] * 100 + [3.0] * 100 + [10.0])[:, None]
    labels = torch.tensor([0] * 100 + [1] * 101)
    assert class_ami(logits(labels, 2), ft) == pytest.approx(1, rel=1e-12)


def test_nothing_to_agree_upon(groups) -> None:
    ft, group = groups
    assert class_ami(logits(torch.zeros_like(group), 3), ft) == 0
    assert class_ami(logits(group, 3), torch.ones(60, 8)) == 0
    assert class_ami(logits(torch.zeros_like(group), 3), torch.ones(60, 8)) == 0
    assert class_ami(logits(group[:1], 3), ft[:1]) == 0


def test_fewer_different_rows_than_classes_say_nothing_loudly() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 0, 0])
    near = torch.tensor([[0.0], [0.0], [1e-30], [0.0], [5.0], [5.0], [0.0], [0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ft in (torch.tensor([[0.0]] * 2 + [[1.0]] * 2 + [[2.0]] * 2 + [[0.0]] * 2), near):
            value = class_ami(logits(labels, 7), ft)
            assert 0 < value <= 1 + 1e-12
