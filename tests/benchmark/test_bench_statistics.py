"""Means, deviations and paired intervals, against SciPy."""

from __future__ import annotations

import pytest
from scipy import stats

from acclimate.benchmark.statistics import paired, spread


def test_spread_by_hand():
    assert spread([]) is None
    one = spread([80.0])
    assert (one.mean, one.deviation, one.n) == (80.0, None, 1)
    three = spread([80.0, 82.0, 87.0])
    assert (three.mean, three.n) == (83.0, 3)
    assert three.deviation == pytest.approx(13**0.5)  # (9 + 1 + 16) / 2


def test_the_paired_interval_is_students():
    values, base = {0: 83.0, 1: 85.5, 2: 81.0, 7: 99.0}, {2: 80.0, 0: 80.0, 1: 81.0, 9: 1.0}
    found = paired(values, base)
    oracle = stats.ttest_rel([83.0, 85.5, 81.0], [80.0, 81.0, 80.0])
    assert found.n == 3
    assert found.mean == pytest.approx(8.5 / 3)
    assert found.interval == pytest.approx(tuple(oracle.confidence_interval(0.95)))


def test_one_seed_has_no_interval_and_none_no_difference():
    assert paired({0: 3.0, 1: 5.0}, {1: 1.0}).interval is None
    assert paired({0: 3.0, 1: 5.0}, {1: 1.0}).mean == 4.0
    assert paired({0: 3.0}, {1: 1.0}) is None
