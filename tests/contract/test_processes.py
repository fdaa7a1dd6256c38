"""What every method promises on two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import GAMES, METHODS, assert_same
from safetensors.torch import load_file

from acclimate.methods import find

pytestmark = pytest.mark.network
SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    started = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(size), str(folder)], stderr=subprocess.PIPE)
        for rank, size in ((0, 2), (1, 2), (0, 1))
    ]
    errors = [process.communicate(timeout=900)[1].decode() for process in started]
    assert not any(process.returncode for process in started), "\n".join(errors)
    return folder


@pytest.mark.parametrize(("name", "task"), GAMES)
def test_processes_end_with_equal_weights_and_buffers(name: str, task: str, results: Path) -> None:
    assert_same(*(load_file(results / f"{rank}-of-2" / f"whole-{name}-{task}.safetensors") for rank in range(2)))


@pytest.mark.parametrize(("name", "task"), GAMES)
def test_resume_of_two_processes_is_bit_identical(name: str, task: str, results: Path) -> None:
    for rank in range(2):
        folder = results / f"{rank}-of-2"
        assert_same(*(load_file(folder / f"{kind}-{name}-{task}.safetensors") for kind in ("resumed", "whole")))


@pytest.mark.parametrize(("name", "task"), GAMES)
def test_kept_columns_of_a_resumed_run_are_those_of_the_whole_run(name: str, task: str, results: Path) -> None:
    whole, again = (results / f"{kind}-{name}-{task}" / "artifacts" for kind in ("whole", "resumed"))
    names = sorted(path.name for path in whole.glob("*"))
    assert names == sorted(path.name for path in again.glob("*") if path.suffix != ".part")
    for found in names:
        assert_same(load_file(whole / found), load_file(again / found))


OWN_ROWS = {"dan", "3c-gan", "label2image-da"}
"""Methods that compare the samples of one process with each other, or draw images in each process, and show it."""


@pytest.mark.parametrize("name", [n for n in METHODS if "classification" in find(n).card.tasks and n not in OWN_ROWS])
def test_loss_curve_is_that_of_one_process(name: str, results: Path) -> None:
    """On a network without BatchNorm, whose statistics would be those of the process's own rows."""
    one, two = (json.loads((results / f"0-of-{size}" / f"curve-{name}.json").read_text()) for size in (1, 2))
    if isinstance(one, str):
        assert "BatchNorm" in one
        return
    assert len(one) == len(two)
    assert one or name == "gim"  # which never trains
    for a, b in zip(one, two):
        assert a.keys() == b.keys()
        for key in a.keys() - {"stage", "step"}:
            assert a[key] == pytest.approx(b[key], abs=1e-5), (key, a["step"])
