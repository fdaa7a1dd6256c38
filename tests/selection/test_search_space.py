"""What a sweep searches: by default, as typed, and what is refused."""

from __future__ import annotations

import pytest

from acclimate.errors import UsageError
from acclimate.experiment import Experiment
from acclimate.selection.search_space import Choice, Range, changed, default_search, present, read_search


def asked(method="dann", **changes) -> Experiment:
    given = {"settings": {"dann": {"hidden": [4]}}, **changes}
    return Experiment(source="a", target="b", methods=(method,), **given)


def test_by_default_the_learning_rate_and_the_weights_are_searched():
    assert default_search(asked()) == {"lr": Range(0.001, 0.1, log=True), "dann.weight": Range(0.1, 10, log=True)}
    ynet = default_search(asked("y-net"))
    assert (ynet["y-net.weight"].low, ynet["y-net.weight"].high) == pytest.approx((1e-4, 1e-2))
    assert list(default_search(asked("fda"))) == ["lr"]  # its other numbers are no weights


def test_what_was_typed_is_the_middle_of_what_is_searched_and_nothing_is_searched_around_zero():
    typed = asked(settings={"dann": {"weight": 0.5}}, plans={"dann": {"optimiser": {"lr": 0.002}}})
    found = default_search(typed)
    assert (found["dann.weight"].low, found["dann.weight"].high) == pytest.approx((0.05, 5))
    assert (found["lr"].low, found["lr"].high) == pytest.approx((0.0002, 0.02))
    assert list(default_search(asked(settings={"dann": {"weight": 0.0}}))) == ["lr"]


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("lr", "1e-4:1e-1:log", Range(1e-4, 0.1, log=True)),
        ("dann.weight", "0:3", Range(0, 3)),
        ("plan.steps", "500:1000", Range(500, 1000, whole=True)),
        ("plan.steps", "500,1000", Choice((500, 1000))),
        ("plan.clip", "None,1", None),
        ("plan.clip", "null,1", Choice((None, 1.0))),
        ("dann.ramp", "true,false", Choice((True, False))),
        ("dann.norm", "target,joint", Choice(("target", "joint"))),
        ("dann.hidden", "20,50", Choice(([20], [50]))),
        ("dann.hidden", "[20,20],50", Choice(([20, 20], [50]))),
    ],
)
def test_ranges_and_choices_are_read_in_the_setting_s_own_type(name, text, read):
    if read is None:
        with pytest.raises(UsageError, match=f"--search {name}={text}: None must be a valid number"):
            read_search({name: text}, asked())
    else:
        assert read_search({name: text}, asked()) == {name: read}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("dann.wieght", "1,2", r"--search dann\.wieght: dann has no such setting; did you mean 'dann\.weight'\?"),
        ("weight", "1,2", r"did you mean 'dann\.weight'\?"),
        ("mcd.weight", "1,2", r"dann has no such setting; did you mean 'dann\.weight'\?"),
        ("plan.seed", "1,2", "choosing luck"),
        ("lr", "0:1", "lr=0:1: 0.0 must be greater than 0"),
        ("lr", "0:1:log", "numbers above 0"),
        ("lr", "2:1", "first must be below"),
        ("lr", "1:2:linear", "LOW:HIGH:log"),
        ("lr", "1", "at least two values"),
        ("plan.steps", "0.5:2", "whole numbers"),
        ("plan.steps", "0:2", "steps=0:2: 0 must be greater than or equal to 1"),
        ("dann.norm", "0:1", "no number; write its values"),
        ("dann.norm", "target,jiont", "jiont must be 'joint'"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_was_typed(name, text, said):
    with pytest.raises(UsageError, match=said):
        read_search({name: text}, asked())


def test_settings_change_for_the_method_alone():
    before = asked(plans={"dann": {"clip": 2.0}})
    after = changed(before, {"lr": 0.3, "plan.steps": 7, "dann.weight": 4.0})
    assert after.settings == {"dann": {"hidden": [4], "weight": 4.0}}
    assert after.plan == before.plan  # source-only's
    assert after.plans["dann"]["clip"] == 2.0
    assert {name: present(after, name) for name in ("lr", "plan.steps", "dann.weight", "dann.ramp")} == {
        "lr": 0.3, "plan.steps": 7, "dann.weight": 4.0, "dann.ramp": True,
    }  # fmt: skip
    assert after.plans["dann"]["optimiser"]["schedule"] == "dann"  # the method's own, but for its rate
