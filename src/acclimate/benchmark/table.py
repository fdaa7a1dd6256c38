"""A table as TOML: tasks, rows and presets, and what each cell of it trains."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acclimate.errors import DataError, UsageError, unknown
from acclimate.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from acclimate.experiment import Experiment

BASELINE = "source-only"
OWN = "own"  # an optimiser of this name is the method's own default
_NAME, _PRESET = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*"), re.compile(r"[a-z0-9]+")  # they become folders


class Task(Settings):
    """A column: a source, a target, and the network for them."""

    name: str
    title: str
    source: str
    target: str
    network: str | None = None
    network_settings: dict[str, Any] = {}
    preprocess: dict[str, Any] = {}
    class_map: dict[str, str] = {}
    holdout: float = 0.2
    labelled: int | None = None  # target training images whose labels methods get that ask for a few
    warm_start: bool = False  # every method but the references starts from source-only's network
    plan: dict[str, Any] = {}


class Published(Settings):
    """A number that somebody published, in per cent, and where it stands."""

    value: float
    deviation: float | None = None
    source: str


class Row(Settings):
    """A method with its settings; the same method may have several rows."""

    name: str
    title: str | None = None
    method: str | None = None  # default: the row's name
    settings: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    only: tuple[str, ...] | None = None  # the tasks that it runs on; default: all
    published: dict[str, Published] = {}  # by task
    note: str | None = None

    @property
    def kind(self) -> str:
        """The registered name of the method."""
        return self.method or self.name


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row on one task with one seed."""

    task: str
    row: str
    preset: str
    seed: int

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.task}, {self.row}"


@dataclasses.dataclass(frozen=True)
class Table:
    """What a file says; :meth:`experiment` gives what a cell trains.

    ``defaults`` stand for what a task leaves out, in all tasks. ``presets.NAME.plan``, the defaults' ``plan``, their
    ``NAME.plan``, a task's ``plan``, its ``NAME.plan``, a row's ``plan``, its ``NAME.plan``, its ``tasks.TASK.plan`` and its
    ``tasks.TASK.NAME.plan`` follow each other; the later one wins, setting by setting.
    ``optimiser = "own"`` is the method's own default.
    """

    ref: str
    title: str
    description: str
    presets: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]  # as in the file
    rows: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of all tasks

    @property
    def name(self) -> str:
        """``digits``, for a packaged table and for a file of that name."""
        return Path(self.ref).stem

    def words(self) -> dict[str, Any]:
        """What it is about, as JSON."""
        names = {"tasks": list(self.tasks), "methods": list(self.rows), "presets": list(self.presets)}
        return {"title": self.title, "description": self.description, **names}

    def lines(self) -> list[str]:
        """What a list of tables says."""
        return [self.title, f"tasks: {', '.join(self.tasks)}", f"methods: {', '.join(self.rows)}"]

    def task(self, name: str, preset: str) -> Task:
        """A task under a preset."""
        if name not in self.tasks:
            raise unknown("task", name, self.tasks)
        layers = []
        for given in (dict(self.defaults), dict(self.tasks[name])):
            own = _pick(given, self.presets, preset)
            layers += [given, own]
        return Task(**_layered(*layers))

    def row(self, name: str, preset: str, task: str | None = None) -> Row:
        """A row under a preset, for one task."""
        if name not in self.rows:
            raise unknown("method of this table", name, self.rows)
        given = dict(self.rows[name])
        own, by_task = _pick(given, self.presets, preset), given.pop("tasks", {})
        for known in (*by_task, *given.get("only", ()), *given.get("published", ())):
            if known not in self.tasks:
                raise unknown(f"task in row {name!r}", known, self.tasks)
        here = dict(by_task.get(task, {})) if task else {}
        here_own = _pick(here, self.presets, preset)
        for layer in (own, here, here_own):
            for field in layer:
                if field not in ("plan", "settings"):
                    raise unknown(f"change in row {name!r}", field, ("plan", "settings", *self.presets))
        merged = _layered(given, own, here, here_own)
        if "published" in merged:
            merged["published"] = {key: Published(**value) for key, value in merged["published"].items()}
        return Row(**merged)

    def cells(
        self, preset: str, seeds: Iterable[int], tasks: Sequence[str] | None = None, rows: Sequence[str] | None = None
    ) -> list[Cell]:
        """All cells in the order in which they run: one seed of everything comes before the next seed."""
        if preset not in self.presets:
            raise unknown(f"preset of {self.name}", preset, self.presets)
        for name in tasks or ():
            self.task(name, preset)
        for name in rows or ():
            self.row(name, preset)
        return [
            Cell(task, row, preset, seed)
            for seed in seeds
            for task in self.tasks
            if tasks is None or task in tasks
            for row in self.rows
            if (rows is None or row in rows) and self.runs(row, task)
        ]

    def runs(self, row: str, task: str) -> bool:
        """Whether the table has such a cell."""
        only = self.rows[row].get("only")
        return only is None or task in only

    def experiment(self, cell: Cell) -> Experiment:
        """What a cell trains. Raises :class:`UsageError` for a setting that does not exist."""
        from acclimate.experiment import Experiment
        from acclimate.plan import Plan

        task, row = self.task(cell.task, cell.preset), self.row(cell.row, cell.preset, cell.task)
        plan = {**self.presets[cell.preset].get("plan", {}), **task.plan, **row.plan, "seed": cell.seed}
        if plan.get("optimiser") == OWN:
            plan["optimiser"] = None
        return Experiment(
            source=task.source,
            target=task.target,
            network=task.network,
            network_settings=task.network_settings,
            methods=(row.kind,),
            plan=Plan(**plan),
            preprocess=task.preprocess,
            settings={row.kind: row.settings},
            class_map=task.class_map,
            holdout=task.holdout,
            labelled=task.labelled,
            warm_start=task.warm_start,
        )


def names() -> list[str]:
    """The packaged tables."""
    return sorted(Path(file.name).stem for file in _packaged().iterdir() if file.name.endswith(".toml"))


def load(ref: str) -> Table:
    """A packaged table by its name, or one from a ``.toml`` file.

    Raises :class:`UsageError` for an unknown name, or for a table that does not fit together; :class:`DataError` for a
    file that is missing or no TOML.
    """
    if ref.endswith(".toml"):
        if not Path(ref).is_file():
            raise DataError(f"{ref}: there is no such file; acclimate bench --list names the packaged tables")
        text = Path(ref).read_text(encoding="utf-8")
    elif ref in names():
        text = (_packaged() / f"{ref}.toml").read_text(encoding="utf-8")
    else:
        raise unknown("table", ref, names())
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{ref} is not valid TOML: {error}") from error
    return parse(ref, found)


def parse(ref: str, found: Mapping[str, Any]) -> Table:
    """The table that a TOML document describes. Raises :class:`UsageError` where it does not fit together."""
    known = ("title", "description", "presets", "defaults", "tasks", "methods")
    for name in found:
        if name not in known:
            raise unknown(f"part of table {ref}", name, known)
    for name in ("title", "presets", "tasks", "methods"):
        if not found.get(name):
            raise UsageError(f"{ref}: a table needs {name}")
    table = Table(
        ref,
        found["title"],
        str(found.get("description", "")).strip(),
        found["presets"],
        _by_name(ref, "tasks", found["tasks"]),
        _by_name(ref, "methods", found["methods"]),
        found.get("defaults", {}),
    )
    for name in ("name", "title"):
        if name in table.defaults:
            raise UsageError(f"{ref}: each task has a {name} of its own; take it out of defaults")
    for preset, values in table.presets.items():
        if not _PRESET.fullmatch(preset):
            raise UsageError(f"{ref}: preset {preset!r}: write lower-case letters and digits, such as quick")
        for name in values:
            if name != "plan":
                raise unknown(f"part of preset {preset!r}", name, ("plan",))
    first = next(iter(table.rows))
    if first != BASELINE or table.row(first, next(iter(table.presets))).kind != BASELINE:
        raise UsageError(f"{ref}: the first method must be {BASELINE}: without it no gain can be believed")
    for preset in table.presets:
        for task in table.tasks:
            table.task(task, preset)
            for row in table.rows:
                table.row(row, preset, task)
    return table


def _by_name(ref: str, part: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    listed: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        name = str(entry.get("name", ""))
        if not _NAME.fullmatch(name):
            raise UsageError(f"{ref}: name {name!r} in {part}: write lower-case letters, digits, dots and hyphens")
        if name in listed:
            raise UsageError(f"{ref}: {name!r} stands twice in {part}; give each its own name")
        listed[name] = entry
    return listed


def _pick(given: dict[str, Any], presets: Iterable[str], preset: str) -> dict[str, Any]:
    """Take the parts named like a preset out of ``given``; the one asked for is returned."""
    found = {name: given.pop(name) for name in presets if name in given}
    return dict(found.get(preset, {}))


def _layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win; tables (``plan``, ``settings``, ``preprocess``) are joined setting by setting."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
            merged[name] = {**merged[name], **value} if both else value
    return merged


def _packaged() -> Any:
    return resources.files(__package__) / "tables"
