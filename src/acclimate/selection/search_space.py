"""What a sweep searches: settings of a method and of its plan, and the values that are tried."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from acclimate.errors import UsageError, nearest
from acclimate.experiment import Experiment
from acclimate.methods import find
from acclimate.plan import Optimiser, Plan
from acclimate.settings import Settings

LR = "lr"
TIMES = 10.0  # what is searched by default reaches from a tenth of a value to ten times of it
DIGITS = 3  # of a drawn value, so that it can be typed


@dataclasses.dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, both included; whole numbers only, or evenly in the logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")

    def recorded(self, value: Any) -> Any:
        """How the journal holds a value."""
        return value

    def suggested(self, trial: Any, name: str) -> float:
        """A value for a trial of optuna."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        value = float(f"{trial.suggest_float(name, self.low, self.high, log=self.log):.{DIGITS}g}")
        return min(max(value, self.low), self.high)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values, as JSON."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return self.recorded(value) in map(self.recorded, self.values)

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))

    def recorded(self, value: Any) -> str:
        """How the journal holds a value: as text, because it takes no lists."""
        return json.dumps(value)

    def suggested(self, trial: Any, name: str) -> Any:
        """A value for a trial of optuna."""
        return json.loads(trial.suggest_categorical(name, [self.recorded(value) for value in self.values]))


Dimension = Range | Choice
Search = Mapping[str, Dimension]
"""``lr``, ``METHOD.KEY`` or ``plan.KEY`` -> what is tried."""


def read_search(texts: Mapping[str, str], experiment: Experiment) -> dict[str, Dimension]:
    """``{"lr": "1e-4:1e-1:log", "plan.steps": "500,1000"}`` for the one method of an experiment.

    Raises :class:`UsageError` for a setting that does not exist, or for values that it does not take.
    """
    return {name: _read(name, text, experiment) for name, text in texts.items()}


def default_search(experiment: Experiment) -> dict[str, Dimension]:
    """The method's learning rate and those of its settings that are weights of a term: a tenth to ten times of what they are.

    A weight is a number above 0 whose name is ``weight`` or ends with it.
    """
    method = experiment.methods[0]
    fields = find(method).Settings.model_fields
    weights = [name for name, field in fields.items() if float in _types(field.annotation) and name.endswith("weight")]
    found: dict[str, Dimension] = {}
    for name in (LR, *(f"{method}.{name}" for name in weights)):
        value = present(experiment, name)
        if value is None or value <= 0:
            continue
        kind, setting = _owner(name, experiment)
        high = value * TIMES if _taken(kind, setting, value * TIMES) else value
        found[name] = Range(value / TIMES, high, log=True)
    return found


def present(experiment: Experiment, name: str) -> Any:
    """What a setting is without a sweep, as JSON."""
    kind, setting = _owner(name, experiment)
    given: Settings
    if name == LR:
        given = _optimiser(experiment)
    elif kind is Plan:
        given = experiment.plan.replace(**experiment.plans.get(experiment.methods[0], {}))
    else:
        given = kind(**experiment.settings.get(experiment.methods[0], {}))
    return given.model_dump(mode="json")[setting]


def changed(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with other settings of its one method, and of the plan for this method alone."""
    method = experiment.methods[0]
    plan = dict(experiment.plans.get(method, {}))
    settings = dict(experiment.settings.get(method, {}))
    for name, value in values.items():
        owner, _, setting = name.rpartition(".")
        if name == LR:
            plan["optimiser"] = _optimiser(experiment).replace(lr=value).model_dump(mode="json")
        else:
            (plan if owner == "plan" else settings)[setting] = value
    return experiment.replace(
        plans={**experiment.plans, method: plan}, settings={**experiment.settings, method: settings}
    )


def _optimiser(experiment: Experiment) -> Optimiser:
    """With which the experiment's one method learns."""
    method = experiment.methods[0]
    plan: Plan = experiment.plan.replace(**experiment.plans.get(method, {}))
    return plan.optimiser or find(method).optimiser


def _owner(name: str, experiment: Experiment) -> tuple[type[Settings], str]:
    """Whose setting a name is. Raises :class:`UsageError` for an unknown one, which names the nearest."""
    method = experiment.methods[0]
    owners: dict[str, type[Settings]] = {method: find(method).Settings, "plan": Plan}
    known = [LR, *(f"{owner}.{setting}" for owner, kind in owners.items() for setting in kind.model_fields)]
    if name == LR:
        return Optimiser, LR
    if name == "plan.seed":
        raise UsageError("--search plan.seed: a seed is chance, and choosing one is choosing luck; leave it out")
    if name not in known:
        same = [each for each in known if each.partition(".")[2] == name]
        near = f"; did you mean {same[0]!r}?" if same else nearest(name, known)
        every = "" if near else f" (known: {', '.join(sorted(known))})"
        raise UsageError(f"--search {name}: {method} has no such setting{near}{every}")
    owner, _, setting = name.rpartition(".")
    return owners[owner], setting


def _read(name: str, text: str, experiment: Experiment) -> Dimension:
    kind, setting = _owner(name, experiment)
    typed = f"--search {name}={text}"
    parts = text.split(":")
    if len(parts) in (2, 3) and all(map(_is_number, parts[:2])):
        return _read_range(typed, kind, setting, parts)
    try:
        values = json.loads(f"[{text}]")
    except ValueError:
        values = text.split(",")
    values = [_checked(typed, kind, setting, value) for value in values]
    if len(set(map(json.dumps, values))) < 2:
        raise UsageError(f"{typed}: write LOW:HIGH, LOW:HIGH:log, or at least two values, such as 1,2")
    return Choice(tuple(values))


def _read_range(typed: str, kind: type[Settings], setting: str, parts: Sequence[str]) -> Range:
    low, high = map(float, parts[:2])
    if parts[2:] not in ([], ["log"]):
        raise UsageError(f"{typed}: write LOW:HIGH or LOW:HIGH:log")
    log = parts[2:] == ["log"]
    if not low < high:
        raise UsageError(f"{typed}: the first must be below the second")
    if log and low <= 0:
        raise UsageError(f"{typed}: a logarithm needs numbers above 0")
    kinds = _types(kind.model_fields[setting].annotation)
    if not kinds & {int, float}:
        raise UsageError(f"{typed}: {setting} is no number; write its values, such as {setting}=A,B")
    whole = float not in kinds
    if whole and (low % 1 or high % 1):
        raise UsageError(f"{typed}: {setting} takes whole numbers")
    for end in (low, high):
        _checked(typed, kind, setting, int(end) if whole else end)
    return Range(low, high, log, whole)


def _checked(typed: str, kind: type[Settings], setting: str, value: Any) -> Any:
    """The value as the setting takes it, as JSON."""
    is_tuple = typing.get_origin(kind.model_fields[setting].annotation) is tuple
    try:
        made = kind(**{setting: [value] if is_tuple and not isinstance(value, list) else value})
    except UsageError as error:
        if not isinstance(error.__cause__, pydantic.ValidationError):
            raise
        wrong = error.__cause__.errors()[0]["msg"].replace("Input should be", "must be").partition(", unable")[0]
        raise UsageError(f"{typed}: {value} {wrong}") from error
    return made.model_dump(mode="json")[setting]


def _taken(kind: type[Settings], setting: str, value: Any) -> bool:
    try:
        kind(**{setting: value})
    except UsageError:
        return False
    return True


def _types(annotation: Any) -> set[Any]:
    """``float | None`` as a set."""
    return {annotation, *typing.get_args(annotation)} if typing.get_origin(annotation) is not tuple else {annotation}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
