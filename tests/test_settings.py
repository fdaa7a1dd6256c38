"""Settings are frozen and say what is wrong with them."""

from __future__ import annotations

import pydantic
import pytest

from acclimate.data.preprocess import Preprocess
from acclimate.errors import UsageError
from acclimate.plan import Optimiser, Plan
from acclimate.transforms.augment import Geometry


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'stpes' of Plan; did you mean 'steps'\?"):
        Plan(stpes=3)  # type: ignore[call-arg]


def test_unknown_key_deep_inside_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'lrr' of Optimiser; did you mean 'lr'\?"):
        Plan(optimiser={"lrr": 1})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'flip' of Geometry.*'flips'"):
        Preprocess(geometry={"flip": "none"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Plan(steps=0), "'steps'"),
        (lambda: Plan(precision="float8"), "'precision'"),
        (lambda: Plan(steps="many"), "'steps'"),
        (lambda: Optimiser(lr=-1), "'lr'"),
        (lambda: Geometry(shift=0.9), "'shift'"),
        (lambda: Preprocess(size=(3,)), "'size"),
    ],
)
def test_wrong_value_names_its_setting(make, where: str) -> None:
    with pytest.raises(UsageError, match=where) as error:
        make()
    assert error.value.exit_code == 2


def test_settings_are_frozen_and_replaced_by_copies() -> None:
    plan = Plan(steps=3)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        plan.steps = 4  # type: ignore[misc]
    assert plan.replace(steps=4) == Plan(steps=4)
    assert plan.steps == 3
    with pytest.raises(UsageError):
        plan.replace(stepz=4)


def test_settings_survive_json() -> None:
    plan = Plan(optimiser=Optimiser(kind="adam", betas=(0.5, 0.9)), clip=1.0)
    assert Plan(**plan.model_dump(mode="json")) == plan
    preprocess = Preprocess(size=(8, 9), mean=(0.1, 0.2, 0.3), geometry=Geometry(rotate=9))
    assert Preprocess(**preprocess.model_dump(mode="json")) == preprocess
