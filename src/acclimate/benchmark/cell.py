"""One cell: train, judge, and one ``result.json`` renamed into place when all of it is done."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import functools
import io
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from acclimate import __version__
from acclimate.benchmark.table import BASELINE, Cell, Table
from acclimate.data.domain import Domain
from acclimate.engine.adapt import Adapted, adapt
from acclimate.engine.code import code_files, code_hash
from acclimate.engine.generated import generated_grid
from acclimate.engine.model import Model
from acclimate.engine.run import NO_EFFECT, Report
from acclimate.errors import AcclimateError, DataError, Interrupted, StorageError, UsageError
from acclimate.experiment import (
    Domains,
    Experiment,
    Listener,
    Player,
    check_methods,
    fresh_network,
    judge,
    open_domains,
    reads,
    starts_from_source,
)
from acclimate.files import read_json, write_bytes, write_json
from acclimate.methods import Need, Train, find
from acclimate.random import key

SCHEMA = 1
RESULT, FAILURE, BEGUN = "result.json", "failure.json", "begun.json"
KEPT_BYTES = 4 * 2**30  # of decoded images of a domain that stay in memory between cells
_FOLDER = re.compile(r"(?P<preset>[a-z0-9]+)-(?P<device>[a-z]+)-seed-(?P<seed>\d+)")

State = Literal["done", "failed", "stale", "missing"]


class Bench:
    """The cells of a table in a folder, for one kind of device.

    Each lies in ``cells/<task>/<row>/<preset>-<device>-seed-<n>/``. Its key is a hash of what its numbers depend on
    (:meth:`identity`); a cell with another key is stale: it is blank in the table, and moved aside before it is run anew.
    """

    def __init__(self, table: Table, folder: Path, device: torch.device | str) -> None:
        self.table, self.folder, self.device = table, folder, torch.device(device)
        self._identities: dict[Cell, dict[str, Any]] = {}
        self._failed: set[Cell] = set()  # in this process: not tried again for each cell that starts from them

    def place(self, cell: Cell) -> Path:
        """The cell's folder."""
        return self.folder / "cells" / cell.task / cell.row / f"{cell.preset}-{self.device.type}-seed-{cell.seed}"

    def start(self, cell: Cell) -> Cell | None:
        """The cell whose model this one starts from, where it starts from one."""
        experiment = self.table.experiment(cell)
        starts = starts_from_source(experiment, experiment.methods[0])
        return dataclasses.replace(cell, row=BASELINE) if starts else None

    # -- what a cell's numbers depend on --------------------------------------------------------------------------

    def identity(self, cell: Cell) -> dict[str, Any]:
        """What decides a cell's numbers, but for torch, the machine, the engine, the network's code and the pixels of a set
        whose name, classes and size are the same.

        Raises :class:`UsageError` for a method or setting that does not exist, :class:`DataError` where data is missing.
        """
        if cell not in self._identities:
            experiment = self.table.experiment(cell)
            recipe, preprocess, data = _inputs(experiment.replace(plan={}, methods=(), settings={}).model_dump_json())
            if Need.FEW_TARGET_LABELS not in find(experiment.methods[0]).needs:
                data = {role: facts for role, facts in data.items() if role != "labelled"}
            start = self.start(cell)
            self._identities[cell] = {
                **self._own(cell, experiment),
                "preprocess": preprocess,
                "network": recipe,
                "data": data,
                "start": None if start is None else self.key(start),
            }
        return self._identities[cell]

    def _own(self, cell: Cell, experiment: Experiment) -> dict[str, Any]:
        """The part that is known without data."""
        kind = find(experiment.methods[0])
        return {
            "method": kind.name,
            "code": [[path.name, code_hash(path)] for path in code_files(kind)],
            "optimiser": (experiment.plan.optimiser or kind.optimiser).model_dump(mode="json"),
            "settings": kind.Settings(**experiment.settings[experiment.methods[0]]).model_dump(mode="json"),
            "plan": experiment.plan.model_dump(mode="json", exclude=NO_EFFECT),
            "seed": cell.seed,
            "device": self.device.type,
        }

    def key(self, cell: Cell) -> str:
        """A short name of the identity."""
        return f"{key(json.dumps(self.identity(cell), sort_keys=True)):016x}"

    # -- what is there --------------------------------------------------------------------------------------------

    def found(self, cell: Cell) -> tuple[State, dict[str, Any] | None]:
        """The state of a cell with its result or its failure."""
        place = self.place(cell)
        for name, state in ((RESULT, "done"), (FAILURE, "failed")):
            if (place / name).exists():
                facts = read_json(place / name)
                return (state, facts) if self._current(cell, facts) else ("stale", None)  # type: ignore[return-value]
        return "missing", None

    def _current(self, cell: Cell, facts: dict[str, Any]) -> bool:
        try:
            return bool(facts["key"] == self.key(cell))
        except DataError:  # the data is not on this machine: all else can still be compared
            known = facts.get("identity", {})
            experiment = self.table.experiment(cell)
            own = json.loads(json.dumps(self._own(cell, experiment)))
            start = self.start(cell)
            return (
                {name: known.get(name) for name in own} == own
                and Experiment(**facts["experiment"]) == experiment  # older ones lack settings of today
                and (start is None or self._same_start(start, known))
            )
        except UsageError:  # a method that is not installed here
            return False

    def _same_start(self, start: Cell, known: dict[str, Any]) -> bool:
        state, facts = self.found(start)
        return state == "done" and facts is not None and facts["key"] == known.get("start")

    # -- running --------------------------------------------------------------------------------------------------

    def check(self, cells: Sequence[Cell]) -> None:
        """Raise the first :class:`UsageError` or :class:`DataError`, before anything is trained for hours."""
        for cell in cells:
            experiment = self.table.experiment(cell)
            domains = opened(experiment)
            check_methods(experiment.methods, domains.task(), domains)
            self.identity(cell)

    def busy(self, cell: Cell) -> bool:
        """Whether another process is at a cell."""
        with _claimed(self.place(cell)) as mine:
            return not mine

    def run(self, cell: Cell, listener: Listener | None = None) -> State:
        """Run a cell that is not done, its start first; a failure is recorded, an interruption raised.

        Returns "missing" where another process is at this cell or its start.
        """
        with _claimed(self.place(cell)) as mine:
            if not mine:
                return "missing"
            if self.found(cell)[0] == "done":
                return "done"
            if cell in self._failed:
                return "failed"
            place = self._fresh(cell)
            try:
                start = self._started(cell, listener)
                if start == "missing":
                    return "missing"
                result = self._carry_out(cell, place, start, listener)
            except (Interrupted, StorageError):
                raise
            except Exception as error:
                self.fail(cell, error)
                return "failed"
            write_json(place / RESULT, result)
            shutil.rmtree(place / "run", ignore_errors=True)  # checkpoints; the model is beside them
            return "done"

    def fail(self, cell: Cell, error: Exception) -> None:
        """Record why a cell has no result."""
        self._failed.add(cell)
        known = isinstance(error, AcclimateError)
        write_json(
            self.place(cell) / FAILURE,
            {
                "schema": SCHEMA,
                "key": self.key(cell),
                "identity": self.identity(cell),
                **dataclasses.asdict(cell),
                "message": str(error) if known else f"{type(error).__name__}: {error}",
                "traceback": [] if known else traceback.format_exception(error),
                "experiment": self.table.experiment(cell).model_dump(mode="json"),
                "date": _now(),
            },
        )

    def _fresh(self, cell: Cell) -> Path:
        """The cell's folder with nothing of another key in it."""
        place, wanted = self.place(cell), self.key(cell)
        if place.exists():
            facts = [read_json(place / name) for name in (RESULT, BEGUN) if (place / name).exists()]
            if not facts or facts[0]["key"] != wanted:
                if (place / RESULT).exists():
                    aside = place.parent / "stale" / f"{place.name}-{facts[0]['key']}"
                    aside.parent.mkdir(exist_ok=True)
                    shutil.rmtree(aside, ignore_errors=True)
                    os.replace(place, aside)
                else:
                    shutil.rmtree(place)
        (place / FAILURE).unlink(missing_ok=True)
        write_json(place / BEGUN, {"key": wanted})
        return place

    def _started(self, cell: Cell, listener: Listener | None) -> Model | Literal["missing"] | None:
        """The model that a cell starts from, which is trained first where it is missing."""
        start = self.start(cell)
        if start is None:
            return None
        state = self.run(start, listener)
        if state == "missing":
            return "missing"
        if state == "failed":
            raise no_start()
        return Model.load(self.place(start), "cpu")

    def _carry_out(self, cell: Cell, place: Path, start: Model | None, listener: Listener | None) -> dict[str, Any]:
        experiment = self.table.experiment(cell)
        name = experiment.methods[0]
        kind = find(name)
        domains = opened(experiment)
        task = domains.task()
        fresh, preprocess = fresh_network(experiment, domains, task, cell.seed)
        net = fresh if start is None else start.method.net
        clock = Clock(place / "seconds.json")
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

        def observe(report: Report) -> None:
            clock.tick()
            if listener is not None:
                listener(cell.label, cell.seed, report)

        def train() -> Adapted:
            return adapt(
                net,
                domains.source,
                domains.target,
                name,
                labelled=domains.labelled,
                plan=experiment.plan,
                preprocess=preprocess,
                task=task,
                folder=place / "run",
                device=self.device,
                observer=observe,
                **experiment.settings[name],
            )

        begun = (place / "run" / "identity.json").exists()
        try:
            done = train()
        except UsageError:
            if not begun:
                raise
            shutil.rmtree(place / "run")  # what was begun does not fit what is here now: the network's code, say
            done = train()
        finally:
            clock.stop()
        memory = torch.cuda.max_memory_allocated(self.device) if cuda else _resident()
        done.model.save(place)
        player = Player(name, done.model, {"history": done.history, "warnings": done.warnings})
        judge(player, domains)
        save_pictures(done.model, place / "generated.png")
        identity = self.identity(cell)
        return {
            "schema": SCHEMA,
            "key": self.key(cell),
            "identity": identity,
            "table": self.table.name,
            **dataclasses.asdict(cell),
            "method": kind.name,
            "oracle": Need.TARGET_LABELS in kind.needs,
            "reads": reads(name),
            "device": self.device.type,
            "task kind": task.name,
            "classes": list(task.classes),
            "primary": task.primary,
            "steps": sum(stage.steps for stage in done.model.method.stages() if isinstance(stage, Train)),
            **player.facts,
            "seconds": clock.seconds,
            "memory": {
                "bytes": memory,
                "of": "largest sum of tensors on the GPU while this cell was trained"
                if cuda
                else "largest resident set of the process so far, what it did before this cell included",
            },
            "machine": _machine(self.device),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "acclimate": __version__},
            "commit": commit(),
            "date": _now(),
            "experiment": experiment.model_dump(mode="json"),
        }


def no_start() -> UsageError:
    """Why a cell whose start failed has no result."""
    return UsageError(f"it starts from {BASELINE}, which failed")


def sections(folder: Path) -> dict[tuple[str, str], set[int]]:
    """The seeds of which there are cells in a folder, by preset and kind of device."""
    found: dict[tuple[str, str], set[int]] = {}
    for place in sorted(folder.glob("cells/*/*/*")):
        if match := _FOLDER.fullmatch(place.name):
            found.setdefault((match["preset"], match["device"]), set()).add(int(match["seed"]))
    return found


# -- data -------------------------------------------------------------------------------------------------------------


class Kept(Sequence[Any]):
    """A sequence that makes each element once."""

    def __init__(self, base: Sequence[Any]) -> None:
        self.base = base
        self._made: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: Any) -> Any:
        if index not in self._made:
            self._made[index] = self.base[index]
        return self._made[index]


def opened(experiment: Experiment) -> Domains:
    """Both domains, the target's test with labels; each image is decoded once for all cells of a process."""
    fields = ("source", "target", "class_map", "holdout", "labelled")
    return _opened(json.dumps({name: getattr(experiment, name) for name in fields}))


@functools.lru_cache(2)  # seeds are outermost, tasks next: few are in use at a time
def _opened(fields: str) -> Domains:
    found = open_domains(Experiment(**json.loads(fields)), None, score=True)
    target, test = _kept(found.target), _kept(found.target_test)
    assert target is not None  # only what may be None is
    return Domains(_kept(found.source), _kept(found.source_test), target, test, _kept(found.labelled))


def _kept(domain: Domain | None) -> Domain | None:
    if domain is None or hasattr(domain.images, "dtype"):  # an array is decoded already
        return domain
    if len(domain) * domain.images[0].size > KEPT_BYTES:
        return domain
    labels = None if domain.labels is None or hasattr(domain.labels, "dtype") else Kept(domain.labels)
    return dataclasses.replace(domain, images=Kept(domain.images), labels=domain.labels if labels is None else labels)


@functools.lru_cache(None)
def _inputs(fields: str) -> tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any]]:
    """The network's recipe, the preprocessing, and names, classes and sizes of the domains."""
    experiment = Experiment(**json.loads(fields))
    domains = opened(experiment)
    net, preprocess = fresh_network(experiment, domains, domains.task(), 0)
    data: dict[str, Any] = {
        role: {"name": domain.name, "classes": list(domain.classes), "images": len(domain)}
        for role, domain in vars(domains).items()
        if domain is not None
    }
    data |= {"class_map": experiment.class_map, "holdout": experiment.holdout}  # which of them are what
    return net.recipe, preprocess.model_dump(mode="json"), data


# -- small things -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _claimed(place: Path) -> Iterator[bool]:
    """Whether this process has the cell to itself; the claim ends with the process, however that ends."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{place.name}.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class Clock:
    """Seconds of all sittings, those that were cut off included; read and written at most every five seconds."""

    EVERY = 5.0

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = read_json(path)["seconds"] if path.exists() else 0.0
        self._begun = self._written = time.perf_counter()
        self._stopped: float | None = None

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + (self._stopped or time.perf_counter()) - self._begun

    def tick(self) -> None:
        """Remember, if it is time to."""
        if time.perf_counter() - self._written > self.EVERY:
            self._written = time.perf_counter()
            write_json(self.path, {"seconds": self.seconds})

    def stop(self) -> None:
        """Remember."""
        self._stopped = time.perf_counter()
        write_json(self.path, {"seconds": self.seconds})


def save_pictures(model: Model, path: Path) -> None:
    """What a generative method draws, as PNG: ten images of each of up to ten classes, a row per class."""
    grid = generated_grid(model)
    if grid is None:
        return
    from PIL import Image

    rows, columns, height, width, channels = grid.images.shape
    pixels = grid.images.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels).numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(stream, "png")
    write_bytes(path, stream.getvalue())


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _resident() -> int:
    """Bytes; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


@functools.lru_cache(None)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.lru_cache(None)
def commit() -> str | None:
    """The commit of the checkout that acclimate runs from, with "+" where files differ from it; None outside of one."""

    def git(*words: str) -> str | None:
        command: list[str] = ["git", "-C", str(Path(__file__).parent), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "../experiment.py") is None:  # not ours, but of whoever installed acclimate
        return None
    head = git("rev-parse", "HEAD")
    return head and head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
