"""The notebook that a student runs: well-formed, small, and its code runs from top to bottom."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST = 400_000  # bytes


def code_of(path: Path) -> list[str]:
    """The source of each code cell, in order."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_there_is_one() -> None:
    assert [path.name for path in NOTEBOOKS] == ["dann.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_the_format_of_a_notebook(path: Path) -> None:
    """nbformat 4.5, as its schema says it."""
    book = json.loads(path.read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert isinstance(book["metadata"], dict)
    identities = [cell["id"] for cell in book["cells"]]
    assert len(set(identities)) == len(identities)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", identity) for identity in identities)
    for cell in book["cells"]:
        code = cell["cell_type"] == "code"
        assert cell["cell_type"] in ("code", "markdown")
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if code else set()
        )
        assert all(isinstance(line, str) for line in cell["source"])
        for output in cell.get("outputs", ()):
            assert output["output_type"] in ("stream", "display_data", "execute_result")  # and no error


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small_and_names_no_place_of_whoever_ran_it(path: Path) -> None:
    text = path.read_text()
    assert len(text) < MOST
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert not [line for cell in code_of(path) for line in cell.splitlines() if line.startswith(("%", "!"))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_code_runs_from_top_to_bottom(path: Path, monkeypatch, tmp_path, capsys) -> None:
    """With few steps and on the bundled digits, in a plain namespace."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import torch

    monkeypatch.setenv("ACCLIMATE_STEPS", "3")
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))  # no MNIST there
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    threads, settings = torch.get_num_threads(), dict(plt.rcParams)
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(code_of(path)):
            exec(compile(cell, f"{path.name}, code cell {number}", "exec"), names)
    finally:
        torch.set_num_threads(threads)
        plt.rcParams.update(settings)
    said = capsys.readouterr().out
    assert "source-only:" in said
    assert "no reversal" in said
    assert not list(tmp_path.iterdir())  # and leaves nothing behind
