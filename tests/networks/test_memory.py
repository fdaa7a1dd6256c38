"""The class-wise memory against lists."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.networks.contract import Output
from acclimate.networks.memory import ClassAttention, ClassBank, ClassMemory, best, pick, rows
from acclimate.networks.teacher import Taught


@given(
    size=st.integers(1, 5),
    turns=st.lists(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=2), max_size=8),
)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_memory_is_a_queue_of_each_class(size: int, turns: list[list[list[bool]]]) -> None:
    memory, queues = ClassMemory(2, size, 1), [deque(maxlen=size), deque(maxlen=size)]  # type: ignore[var-annotated]
    number = 1.0
    for kept in turns:
        vectors = torch.arange(number, number + 6).view(2, 3, 1)
        number += 6
        for c, queue in enumerate(queues):
            queue.extend([vectors[c, i].item() for i in range(3) if kept[c][i]][:size])
        memory.insert(vectors, torch.tensor(kept))
        for c, queue in enumerate(queues):
            assert sorted(memory.vectors[c][memory.there[c], 0].tolist()) == sorted(queue)
            assert memory.filled[c] == len(queue)
    memory.clear()
    assert not memory.there.any()
    assert not memory.vectors.any()


def test_picked_pixels_are_of_their_class_without_repetition() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([[0, 0, 0, 1, -1, -1, 3], [1, 1, 1, 1, 1, 1, 1]])
    places, there = pick(labels, 4, 5)
    assert places.shape == there.shape == (2, 4, 5)
    for n in range(2):
        for c in range(4):
            mine = places[n, c][there[n, c]].tolist()
            truth = (labels[n] == c).nonzero().flatten().tolist()
            assert len(mine) == len(set(mine)) == min(5, len(truth))
            assert set(mine) <= set(truth)
    again = torch.stack([pick(labels, 4, 5)[0][1, 1].sort().values for _ in range(20)])
    assert len(again.unique(dim=0)) > 1  # at random


def test_rows_are_the_vectors_at_their_places() -> None:
    maps, places = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 4, 5))
    found = rows(maps, places)
    for n, k, i in ((0, 0, 0), (1, 3, 4), (1, 2, 1)):
        assert torch.equal(found[n, k, i], maps[n, :, places[n, k, i]])


def test_best_are_the_highest_in_descending_order() -> None:
    """The released code sorts in ascending order and keeps the lowest scores."""
    scores = torch.tensor([[0.2, 0.9, 0.1, 0.8, 0.95], [0.3, 0.2, 0.1, 0.0, 0.5]])
    there = torch.tensor([[True, True, True, True, False], [True, False, False, False, False]])
    places, kept = best(scores, there, 2)
    assert places[0].tolist() == [1, 3]
    assert kept.tolist() == [[True, True], [True, False]]
    assert places[1, 0] == 0
    assert best(scores, there, 9)[0].shape == (2, 5)


def test_attention_judges_each_class_by_its_own_network() -> None:
    torch.manual_seed(0)
    attention, vectors = ClassAttention(3, 4), torch.randn(2, 3, 5, 4)
    found = attention(vectors)
    assert found.shape == (2, 3, 5)
    assert (found > 0).all()
    assert (found < 1).all()
    torch.testing.assert_close(found[1, 2], attention.scores[2](vectors[1, 2])[:, 0])
    assert not torch.allclose(found[1, 2], attention.scores[0](vectors[1, 2])[:, 0])


class First(torch.nn.Module):
    """S(z): the first component of a vector, squashed, for every class."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors[..., 0].sigmoid()


def bank(**changes: float) -> ClassBank:
    """Vectors are the features themselves, and attention is their first component."""
    made = ClassBank(2, 3, 2, **{"size": 6, "samples": 50, "images": 3, "confidence": 0.95, **changes})  # type: ignore[arg-type]
    made.average, made.memory_attention = torch.nn.Identity(), First()  # type: ignore[assignment]
    return made


def taught(labels: Tensor, sure: Tensor, features: Tensor) -> Taught:
    return Taught(Output(torch.zeros(len(labels), 3, *labels.shape[1:]), features, {}), labels, sure)


def test_memory_takes_the_best_of_each_image_that_are_sure_and_right() -> None:
    """round(6 / 3) = 2 vectors of an image and class."""
    made, truth = bank(), torch.tensor([[[0, 0, 0, 0, 0, 1]], [[0, 1, 1, 1, -1, 2]]])
    label = torch.tensor([[[0, 0, 0, 0, 1, 1]], [[0, 1, 1, 1, 0, 2]]])  # one wrong, one ignored
    sure = torch.tensor([[[0.99, 0.99, 0.99, 0.90, 0.99, 0.99]], [[0.99, 0.99, 0.99, 0.99, 0.99, 0.95]]])
    score = torch.tensor([[[1.0, 3.0, 2.0, 9.0, 9.0, 4.0]], [[5.0, 6.0, 7.0, 8.0, 9.0, 9.0]]])
    made.remember(taught(label, sure, torch.stack([score, torch.zeros_like(score)], 1)), truth)
    held = [made.memory.vectors[c][made.memory.there[c], 0].tolist() for c in range(3)]
    assert held == [[3.0, 2.0, 5.0], [4.0, 8.0, 7.0], []]


@pytest.mark.parametrize(("size", "images", "count"), [(256, 100, 3), (256, 1000, 1), (256, 1, 256)])
def test_share_of_an_image(size: int, images: int, count: int) -> None:
    assert bank(size=size, images=images).count == count


def test_labels_are_read_in_the_middle_of_the_features_cells() -> None:
    made = bank()
    made.projection = made.predictor = torch.nn.Identity()  # type: ignore[assignment]
    features = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2)
    labels = torch.zeros(1, 3, 6, dtype=torch.long)
    labels[0, 1, 1], labels[0, 1, 4] = 1, 2
    vectors, scores = made.read(features, labels)
    assert (scores > 0).sum(1).tolist() == [0, 1, 1]
    assert vectors[1, 0].tolist() == [1.0, 0.0]
    assert vectors[2, 0].tolist() == [2.0, 1.0]


def test_attention_moves_no_vector() -> None:
    torch.manual_seed(0)
    made = ClassBank(2, 3, 4, 6, 50, 3, 0.5)
    vectors, scores = made.read(torch.randn(2, 2, 3, 3), torch.randint(0, 3, (2, 3, 3)))
    for value, moved in ((scores, False), (vectors, True)):
        made.zero_grad()
        value.sum().backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.any() for p in made.projection.parameters()) == moved
