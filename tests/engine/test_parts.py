"""Stages that are parts of one schedule: together they are the stage that they were cut from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from games import Supervised
from runs import assert_same, differs, plan, start, state

from acclimate.errors import UsageError
from acclimate.methods import Train
from acclimate.methods.base import Progress, Stage, Sweep, rounds
from acclimate.plan import Optimiser

HOW = plan(steps=8, optimiser=Optimiser(lr=0.1, schedule="cosine", warmup=0.25))


class Rounds(Supervised):
    """Source training in two rounds with a Sweep between them."""

    whole: bool = False

    def stages(self) -> Sequence[Stage]:
        (one, first), (two, second) = rounds(self.plan.steps, 2)
        parts = {} if self.whole else {"part": first}, {} if self.whole else {"part": second}
        return [
            Train("one", "step", ("source",), one, **parts[0]),
            Sweep("pause", "pause"),
            Train("two", "step", ("source",), two, continues=True, **parts[1]),
        ]

    def pause(self) -> None: ...


def test_rounds_are_bit_for_bit_the_stage_that_they_were_cut_from() -> None:
    assert_same(state(start(Rounds, how=HOW)), state(start(Supervised, how=HOW)))


def test_stages_that_are_no_parts_begin_their_schedule_again() -> None:
    class Again(Rounds):
        whole = True

    assert differs(state(start(Again, how=HOW)), state(start(Supervised, how=HOW)))


def test_progress_goes_on_through_the_parts() -> None:
    seen: list[float] = []

    class Watched(Rounds):
        def step(self, source: Any, at: Any) -> Any:
            seen.append(at.fraction)
            return super().step(source, at)

    start(Watched, how=HOW)
    assert seen == pytest.approx([k / 8 for k in range(8)])
    assert Progress("x", 1, 4).fraction == 0.25


@pytest.mark.parametrize(
    ("steps", "count", "lengths"),
    [(9, 3, [3, 3, 3]), (10, 3, [3, 3, 4]), (2, 15, [1, 1]), (7, 1, [7]), (1500, 15, [100] * 15)],
)
def test_rounds_share_all_steps_and_the_whole_schedule(steps: int, count: int, lengths: list[int]) -> None:
    found = rounds(steps, count)
    assert [length for length, _ in found] == lengths
    ends = [0.0, *(part[1] for _, part in found)]
    assert [part[0] for _, part in found] == ends[:-1]
    assert ends[-1] == 1
    assert ends == pytest.approx([sum(lengths[:i]) / steps for i in range(len(ends))])


@pytest.mark.parametrize("part", [(0.5, 0.5), (0.5, 0.2), (-0.1, 1.0), (0.0, 1.5)])
def test_part_that_is_none_is_refused(part: tuple[float, float]) -> None:
    class Wrong(Supervised):
        def stages(self) -> Sequence[Stage]:
            return [Train("fit", "step", ("source",), 4, part=part)]

    with pytest.raises(UsageError, match=r"'fit'.*part must rise within 0\.\.1"):
        start(Wrong)
