from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from acclimate.errors import UsageError
from acclimate.selection.base import Score, Seen
from acclimate.selection.quality import rank_correlation, regret
from acclimate.selection.rank import jackknife_error, ordered, rank, without_groups


def mean_score(better="high"):
    return Score("mean", "the mean", lambda zt: zt[:, 0].mean().item(), better, "nobody", "when", "fails")


def seen(values, images=None) -> Seen:
    z = torch.tensor(values, dtype=torch.float32)[:, None]
    return Seen(zt=z, ft=z, image_t=torch.arange(len(z)) if images is None else torch.tensor(images), classes=1)


def test_the_error_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).standard_normal(10)  # ten images, ten groups of one: s / sqrt(n)
    found = jackknife_error(without_groups(mean_score(), seen(x)))
    assert found == pytest.approx(x.std(ddof=1) / math.sqrt(10), rel=1e-5)


def test_groups_are_equally_large() -> None:
    """24 images in ten groups: four stay out, so that a score that grows with their number is not taken for uncertain."""
    count = Score("count", "rows", lambda zt: float(len(zt)), "high", "nobody", "when", "fails")
    assert without_groups(count, seen(np.zeros(24))) == [18.0] * 10


def test_few_source_images_do_not_stop_it() -> None:
    one = dataclasses.replace(seen(np.arange(12.0)), ys=torch.tensor([0]), zs=torch.ones(1, 1), fs=torch.ones(1, 1))
    one = dataclasses.replace(one, image_s=torch.tensor([0]))
    risk = Score("risk", "risk", lambda zs, zt: float(len(zs)), "low", "nobody", "when", "fails")
    assert without_groups(risk, one) == [1.0] * 10


def test_what_says_nothing_of_so_few_has_no_error() -> None:
    def fails(zt):
        if len(zt) < 12:
            raise UsageError("too few")
        return 1.0

    (only,) = rank(Score("s", "s", fails, "high", "nobody", "when", "fails"), {"a": seen(np.zeros(12))})
    assert only.error is None


def test_what_is_no_number_comes_last() -> None:
    assert [each.label for each in ordered(mean_score(), {"a": math.nan, "b": 1.0, "c": 2.0})] == ["c", "b", "a"]
    assert [each.label for each in ordered(mean_score("low"), {"a": math.nan, "b": 1.0})] == ["b", "a"]


def test_pixels_of_an_image_leave_together() -> None:
    one = seen([0.0, 4.0, 1.0, 5.0], [0, 0, 1, 1])
    assert without_groups(mean_score(), one) == pytest.approx([3.0, 2.0])


def test_differences_are_paired() -> None:
    """Two models that differ by a constant are told apart although each alone is uncertain."""
    x = np.random.default_rng(1).standard_normal(40) * 10
    first, second = rank(mean_score(), {"low": seen(x), "high": seen(x + 0.5)})
    assert (first.label, second.label) == ("high", "low")
    assert first.error > 1
    assert second.behind == pytest.approx(0.5, abs=1e-4)
    assert second.behind_error == pytest.approx(0.0, abs=1e-4)
    assert not second.tied


def test_what_images_could_explain_is_tied() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 40)) * 10
    assert all(each.tied for each in rank(mean_score(), {"x": seen(x), "y": seen(y - y.mean() + x.mean() - 0.1)}))


def test_low_scores_are_best_where_the_score_says_so() -> None:
    ranked = rank(mean_score("low"), {"a": seen([2.0, 2.0]), "b": seen([1.0, 1.0]), "c": seen([3.0, 3.0])})
    assert [each.label for each in ranked] == ["b", "a", "c"]
    assert [each.behind for each in ranked] == [0.0, 1.0, 2.0]


def test_what_is_set_aside_comes_last_whatever_its_score() -> None:
    ranked = rank(mean_score(), {"a": seen([2.0, 2.0]), "b": seen([9.0, 9.0]), "c": seen([3.0, 3.0])}, {"b"})
    assert [each.label for each in ranked] == ["c", "a", "b"]
    assert [each.set_aside for each in ranked] == [False, False, True]
    assert not ranked[2].tied


def test_one_image_has_no_error_and_settles_nothing() -> None:
    ranked = rank(mean_score(), {"a": seen([1.0]), "b": seen([2.0])})
    assert [each.error for each in ranked] == [None, None]
    assert all(each.tied for each in ranked)


def test_regret_is_what_the_choice_costs() -> None:
    assert regret([0.1, 0.9, 0.5], [70.0, 60.0, 80.0]) == 20.0
    assert regret([0.1, 0.2, 0.9], [70.0, 60.0, 80.0]) == 0.0
    assert regret([0.9, 0.9, 0.5], [70.0, 60.0, 80.0]) == 15.0  # of equal ones either may be taken


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 6, 12), rng.integers(0, 6, 12)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
