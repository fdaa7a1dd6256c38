"""What the verbs share on the terminal: stdout is the result, stderr the progress."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acclimate.engine.run import Report

SPARSE, COUNTED = 60.0, 10.0  # seconds between two lines of training, of counting, where there is no terminal


def first_process() -> bool:
    """Whether this process talks; under ``torchrun`` only one does."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "") -> None:
    """A line for the person who waits."""
    if first_process():
        print(text, file=sys.stderr, flush=True)


def show(text: str = "") -> None:
    """A line of the result."""
    if first_process():
        print(text)


def document(value: Any) -> None:
    """The result as one JSON document."""
    show(json.dumps(plain(value), indent=2, ensure_ascii=False, default=str))


def plain(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def command(*words: str | Path) -> str:
    """A command to type, quoted where it has to be."""
    return shlex.join(["acclimate", *(str(word) for word in words)])


def suggest(*commands: str) -> None:
    """End with what to type next. It goes to stderr, so that a result can be piped or kept in a file."""
    for number, text in enumerate(commands):
        say(f"{'next:' if number == 0 else 'or:':6}{text}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; the first is text, the others are aligned to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def facts(rows: Mapping[str, str]) -> str:
    """``name   value`` lines; values may hold several lines."""
    width = max(map(len, rows))
    return "\n".join(
        "\n".join(
            f"{(name if number == 0 else '').ljust(width)}  {line}".rstrip()
            for number, line in enumerate(value.splitlines() or [""])
        )
        for name, value in rows.items()
    )


def wrapped(text: str) -> str:
    """A paragraph in lines that fit beside a name."""
    return textwrap.fill(text, 100)


def percent(share: float | None, sign: bool = False) -> str:
    """``83.4 %``; nothing where there is no number."""
    if share is None or not math.isfinite(share):
        return ""
    return f"{100 * share:+.1f}" if sign else f"{100 * share:.1f} %"


def minutes(value: float) -> str:
    """``1.2 min``, or seconds where it is less than one minute."""
    return f"{value:.1f} min" if value >= 1 else f"{60 * value:.0f} s"


@contextmanager
def waiting(text: str, aloud: bool = False) -> Iterator[None]:
    """A spinner while something takes a moment; where there is no terminal nothing, or a line if it shall be ``aloud``."""
    if not (sys.stderr.isatty() and first_process()):
        if aloud:
            say(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


class Progress:
    """Shows how far a run is: a bar on a terminal, otherwise a line when a stage begins, then one a minute of training and
    one every ten seconds of counting.

    An instance listens to :func:`acclimate.experiment.carry_out` and, as :meth:`count`, to everything that counts.
    """

    def __init__(self) -> None:
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._stage = ""
        self._spoke = 0.0

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and first_process():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            # The names of stages and terms come from methods: they are text, not markup.
            text = TextColumn("{task.description}", markup=False)
            columns = (text, BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
            note = TextColumn("{task.fields[note]}", markup=False)
            self._bars = Bars(*columns, note, console=Console(stderr=True))
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, method: str, seed: int, report: Report) -> None:
        """One report of the engine."""
        note = ", ".join(f"{name} {value:.3f}" for name, value in list((report.means or {}).items())[:2])
        self._advance(f"{method}, seed {seed}", report.stage, report.done, report.total, note, SPARSE)

    def count(self, done: int, total: int, what: str = "images") -> None:
        """So many of so many."""
        self._advance(what, "", done, total, "", COUNTED)

    def note(self, text: str) -> None:
        """Something begins that cannot be counted."""
        if self._bars is None:
            say(text)
        elif "" in self._tasks:
            self._bars.update(self._tasks[""], description=text)
        else:
            self._tasks[""] = self._bars.add_task(text, total=None, note="")

    def _advance(self, what: str, stage: str, done: int, total: int, note: str, every: float) -> None:
        if self._bars is None:
            stage, now = f"{what} {stage}", time.monotonic()
            if stage != self._stage or now - self._spoke > every:
                self._stage, self._spoke = stage, now
                count = f" {done}/{total}" if total else ""
                say(f"{stage.strip()}{count} {note}".rstrip())
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total or None, note="")
        title = f"{what}: {stage}" if stage else what
        self._bars.update(self._tasks[what], description=title, completed=done, total=total or None, note=note)
