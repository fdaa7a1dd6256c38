"""Domains: what they hold, and how they are split."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from acclimate.data.domain import Domain, Lazy
from acclimate.errors import DataError


def domain(count: int = 10) -> Domain:
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Domain("d", "classification", ("a", "b"), images, list(range(count)), [f"{i}" for i in range(count)])


def test_parts_must_be_of_one_length() -> None:
    with pytest.raises(DataError, match="no image"):
        domain(0)
    with pytest.raises(DataError, match="differ in number"):
        Domain("d", None, (), [1], None, [])
    with pytest.raises(DataError, match="differ in number"):
        Domain("d", None, (), [1], [], ["a"])


def test_subset_keeps_images_labels_and_names_together() -> None:
    part = domain().subset([7, 2, 2])
    assert [int(i) for i in np.array(list(part.images)).ravel()] == list(part.labels) == [7, 2, 2]  # type: ignore[arg-type]
    assert list(part.names) == ["7", "2", "2"]


def test_holdout_splits_the_same_way_each_time() -> None:
    kept, held = domain().holdout(0.3, seed=4)
    assert (len(kept), len(held)) == (7, 3)
    assert sorted([*kept.names, *held.names]) == sorted(domain().names)
    assert list(domain().holdout(0.3, seed=4)[1].names) == list(held.names)
    assert any(list(domain().holdout(0.3, seed=s)[1].names) != list(held.names) for s in range(3))


@pytest.mark.parametrize("fraction", [0.0, 0.01, 1.0])
def test_empty_part_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="too few"):
        domain().holdout(fraction)


def test_lazy_makes_elements_when_asked() -> None:
    made: list[int] = []
    lazy = Lazy([1, 2, 3], lambda i: made.append(i) or i * 10)
    part = Domain("d", None, (), lazy, None, ["a", "b", "c"]).subset([2])
    assert not made
    assert list(part.images) == [30]
    assert made == [3]


def test_unlabelled_forgets_the_labels_only() -> None:
    bare = domain().unlabelled()
    assert bare.labels is None
    assert len(bare) == 10


def test_joined_domains_follow_each_other_without_being_read() -> None:
    made: list[int] = []
    lazy = Lazy([7, 8], lambda i: made.append(i) or np.full((1, 1, 1), i, np.uint8))
    one = Domain("one", "classification", ("a", "b"), lazy, [1, 0], ["x", "y"], {"scale": 2, "of": 3})
    both = one.joined(dataclasses.replace(domain(3), facts={"scale": 2, "of": 4}))
    assert not made
    assert (both.name, len(both), both.classes, both.facts) == ("one + d", 5, ("a", "b"), {"scale": 2})
    assert [int(both.images[i].ravel()[0]) for i in range(5)] == [7, 8, 0, 1, 2]
    assert list(both.labels) == [1, 0, 0, 1, 2]  # type: ignore[arg-type]
    assert list(both.names) == ["x", "y", "0", "1", "2"]
    assert int(both.images[-1].ravel()[0]) == 2
    with pytest.raises(IndexError):
        both.images[5]


def test_joined_with_unlabelled_images_has_no_labels() -> None:
    assert domain().joined(domain().unlabelled()).labels is None
    assert domain().unlabelled().joined(domain()).labels is None


@pytest.mark.parametrize(("field", "value"), [("classes", ("b", "a")), ("task", "segmentation")])
def test_only_domains_of_one_task_and_the_same_classes_are_joined(field: str, value: object) -> None:
    with pytest.raises(DataError, match=f"d and d cannot be joined: their {field} differ"):
        domain().joined(dataclasses.replace(domain(), **{field: value}))


def test_some_images_are_the_same_ones_each_time_and_in_their_order() -> None:
    whole = domain(30)
    a, b, other = whole.some(10, "x"), whole.some(10, "x"), whole.some(10, "y")
    assert a.names == b.names != other.names
    numbers = [int(name) for name in a.names]
    assert numbers == sorted(set(numbers))
    assert len(a) == 10
    assert [int(a.images[i].ravel()[0]) for i in range(10)] == numbers
    assert whole.some(30, "x") is whole
