"""What every registered score keeps: a card, honest needs, a finite number that follows from what was seen alone."""

from __future__ import annotations

import dataclasses
import inspect
import math
import warnings

import pytest
import torch

from acclimate import registry
from acclimate.errors import UsageError
from acclimate.selection import Score, Seen, find

NAMES = registry.names("scores")
K, N, M = 4, 160, 120
TARGET_ROWS = ("zt", "ft", "image_t", "consensus")
SOURCE_ROWS = ("zs", "fs", "ys", "image_s")

NEIGHBOURS_HELD_OUT = ("iwv", "dev")
"""Of the target's rows, whole blocks of neighbours choose the penalty of the density ratio: their order matters."""


def maps(seed: int, speckled: bool) -> list[torch.Tensor]:
    """Twelve maps of squares of three classes on a ground; speckled where asked for."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(12):
        labels = torch.zeros(24, 24, dtype=torch.int64)
        for label in range(1, K):
            y, x = torch.randint(0, 17, (2,), generator=generator).tolist()
            labels[y : y + 7, x : x + 7] = label
        if speckled:
            wrong = torch.rand(24, 24, generator=generator) < 0.3
            labels[wrong] = torch.randint(0, K, (int(wrong.sum()),), generator=generator)
        found.append(labels)
    return found


def of_domain(rows: int, seed: int, good: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, features and labels of balanced classes: sure, right and in groups, or unsure, often wrong, blurred."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % K
    said = y if good else torch.where(torch.rand(rows, generator=generator) < 0.4, (y + y % 2 + 1) % K, y)
    onehot = torch.eye(K)[said]
    z = (8 if good else 1.5) * onehot + (0.3 if good else 1.0) * torch.randn(rows, K, generator=generator)
    f = 4 * torch.eye(K, 6)[y] + (0.4 if good else 4.0) * torch.randn(rows, 6, generator=generator)
    return z, f, y


def seen(good: bool = True) -> Seen:
    """All that there can be to see."""
    zt, ft, _ = of_domain(N, 0, good)
    zs, fs, ys = of_domain(M, 1, good)
    _, fs_train, _ = of_domain(N, 2, good)
    ensemble = [of_domain(N, 0, True)[0], of_domain(N, 0, False)[0], of_domain(N, 3, False)[0]]
    values = {
        "zt": zt,
        "ft": ft,
        "image_t": torch.arange(N) // 4,
        "zs": zs,
        "fs": fs,
        "ys": ys,
        "image_s": torch.arange(M) // 4,
        "fs_train": fs_train,
        "consensus": torch.stack([z.softmax(1) for z in ensemble]).mean(0),
        "masks_t": maps(4, speckled=not good),
        "masks_s": maps(5, speckled=False),
        "classes": K,
    }
    return Seen(**values)


def tensors(of: Seen) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for field in dataclasses.fields(of):
        value = getattr(of, field.name)
        found += [value] if isinstance(value, torch.Tensor) else list(value) if isinstance(value, list) else []
    return found


def shuffled(of: Seen, names: tuple[str, ...], seed: int) -> Seen:
    """The same rows in another order, in all of what ``names`` names."""
    order = torch.randperm(len(getattr(of, names[0])), generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(of, **{name: getattr(of, name)[order] for name in names})


@pytest.fixture(params=NAMES)
def score(request: pytest.FixtureRequest) -> Score:
    return find(request.param)


def test_what_is_seen_here_is_all_there_is() -> None:
    assert all(getattr(seen(), field.name) is not None for field in dataclasses.fields(Seen))


def test_each_says_what_it_is(score: Score) -> None:
    assert score.name in NAMES
    assert find(score.name) is score
    assert score.better in ("high", "low")
    assert score.tasks
    assert set(score.tasks) <= {"classification", "segmentation"}
    assert score.title[0].isupper()
    assert score.paper
    for sentence in (score.when, score.fails):
        assert len(sentence.split()) > 8
        assert sentence[0].isupper()
        assert sentence.endswith(".")
    assert inspect.getdoc(score.function)


def test_each_takes_what_can_be_seen(score: Score) -> None:
    assert score.takes
    assert set(score.takes) <= {field.name for field in dataclasses.fields(Seen)}
    for parameter in inspect.signature(score.function).parameters.values():
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_each_is_a_finite_number_twice_the_same_and_changes_nothing(score: Score) -> None:
    of = seen()
    before = [tensor.clone() for tensor in tensors(of)]
    state = torch.get_rng_state()
    value = score(of)
    assert type(value) is float
    assert math.isfinite(value)
    assert score(of) == value
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(of)))


def test_the_order_of_rows_does_not_matter(score: Score) -> None:
    of = seen(good=False)
    other = shuffled(of, SOURCE_ROWS, 0)
    if score.name not in NEIGHBOURS_HELD_OUT:
        other = shuffled(other, TARGET_ROWS, 1)
    assert score(other) == pytest.approx(score(of), rel=1e-6, abs=1e-9)


def test_what_is_not_there_is_named(score: Score) -> None:
    for name in score.takes:
        without = dataclasses.replace(seen(), **{name: None})
        assert score.missing(without) == [name]
        with pytest.raises(UsageError, match=rf"\b{name}\b"):
            score(without)


def test_what_it_does_not_take_does_not_matter(score: Score) -> None:
    of = seen()
    bare = dataclasses.replace(of, **{f.name: None for f in dataclasses.fields(of) if f.name not in score.takes})
    assert score(bare) == score(of)


def test_a_good_model_is_better_than_a_noisy_one(score: Score) -> None:
    good, noisy = score(seen(good=True)), score(seen(good=False))
    assert score.gain(good) > score.gain(noisy)


TARGET_ONLY = [name for name in NAMES if set(find(name).takes) <= {"zt", "ft", "consensus"}]


def strange(case: str) -> Seen:
    """A target that leaves little to go by."""
    generator = torch.Generator().manual_seed(7)
    zt, ft = torch.randn(40, K, generator=generator), torch.randn(40, 6, generator=generator)
    if case == "one row":
        zt, ft = zt[:1], ft[:1]
    elif case == "two rows":
        zt, ft = zt[:2], ft[:2]
    elif case == "one class predicted":
        zt[:, 2] += 50
    elif case == "constant features":
        ft = torch.ones_like(ft)
    elif case == "constant everything":
        zt, ft = zt[:1].repeat(40, 1), ft[:1].repeat(40, 1)
    elif case == "huge logits":
        zt *= 1e4
    elif case == "two classes":
        zt = zt[:, :2]
    elif case == "duplicates":
        zt, ft = zt[:3].repeat(13, 1), ft[:3].repeat(13, 1)
    elif case == "huge features":
        ft *= 1e15
    return Seen(zt, ft, torch.arange(len(zt)), consensus=zt.softmax(1), classes=zt.shape[1])


@pytest.mark.parametrize(
    "case",
    [
        "one row",
        "two rows",
        "one class predicted",
        "constant features",
        "constant everything",
        "huge logits",
        "two classes",
        "duplicates",
        "huge features",
    ],
)
@pytest.mark.parametrize("name", TARGET_ONLY)
def test_strange_targets_have_finite_scores(name: str, case: str) -> None:
    of = strange(case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = find(name)(of)
        order = torch.randperm(len(of.zt), generator=torch.Generator().manual_seed(1))
        other = dataclasses.replace(of, zt=of.zt[order], ft=of.ft[order], consensus=of.consensus[order])
        assert find(name)(other) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert math.isfinite(value)
