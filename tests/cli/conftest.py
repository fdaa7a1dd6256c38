"""One small run that the tests of the verbs share."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import pytest

from acclimate.cli import main

TINY = ("--network", "dann-mnist", "--network-set", "norm=batch", "--steps", "30", "--batch", "8", "--device", "cpu")


@dataclasses.dataclass
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has to be one document."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


Command = Callable[..., Answer]


@pytest.fixture(scope="session")
def call() -> Command:
    """Run a command in this process."""

    def run(*words: str | Path) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
        return Answer(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as a user would have them: simulated/, real/ (labelled), new/ (plain images)."""
    root = tmp_path_factory.mktemp("user")
    folders.classes(root / "simulated", 60)
    folders.classes(root / "real", 30, shifted=True)
    folders.plain(root / "new")
    return root


@dataclasses.dataclass
class Finished:
    """A run, and what was said while it was made."""

    folder: Path
    words: list[str]
    answer: Answer


@pytest.fixture(scope="session")
def run(place: Path, call: Command) -> Finished:
    """source-only, AdaBN and DANN, adapted from simulated/ to real/."""
    folder = place / "run"
    methods = ("--method", "adabn", "--method", "dann", "--set", "dann.hidden=20", "--set", "plan.log_every=10")
    words = ["adapt", "--source", place / "simulated", "--target", place / "real", "--out", folder, *methods, *TINY]
    answer = call(*words)
    assert answer.code == 0, answer.err
    return Finished(folder, [str(word) for word in words], answer)
