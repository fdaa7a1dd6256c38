"""Drawn images: a picture beside the cell, and what the oracle sees in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from small_table import cell

from acclimate.benchmark.cell import RESULT
from acclimate.benchmark.fidelity import FILE, fidelity, judge_generated
from acclimate.benchmark.page import as_document, gather, markdown
from acclimate.engine.model import Model
from acclimate.files import read_json, write_json

ROW = """
[[methods]]
name = "label2image-da"
settings = { width = 4, critic_width = 4, latent = 8 }
only = ["shapes"]

[[methods]]
name = "trained-on-target"
"""


@pytest.fixture
def drawn(shapes):
    """Two finished cells: one that draws, and the oracle."""
    shapes.edit('\n[[methods]]\nname = "trained-on-target"\n', ROW)
    bench = shapes.bench()
    assert [bench.run(cell(row)) for row in ("label2image-da", "trained-on-target")] == ["done", "done"]
    return shapes


def test_what_a_method_draws_is_kept_and_judged(drawn):
    bench = drawn.bench()
    wanted = [cell("label2image-da"), cell("trained-on-target"), cell("dann")]
    with Image.open(bench.place(wanted[0]) / "generated.png") as picture:
        assert picture.size == (160, 48)  # ten images of each of three classes
        assert np.asarray(picture).shape == (48, 160, 3)
    assert not (bench.place(wanted[1]) / "generated.png").exists()
    assert fidelity(bench, wanted[0]) is None
    judge_generated(bench, wanted)
    share = fidelity(bench, wanted[0])
    found = read_json(bench.place(wanted[0]) / FILE)
    assert found["images"] == 333  # of each class: a thousand of all alike
    assert share == pytest.approx(sum(found["by_class"]) / 3)
    assert sum(found["by_class"]) > 0
    # an oracle that sees the first class everywhere finds a third
    model = Model.load(bench.place(wanted[1]))
    for parameter in model.method.parameters():
        torch.nn.init.zeros_(parameter)
    model.save(bench.place(wanted[1]))
    (bench.place(wanted[0]) / FILE).unlink()
    judge_generated(bench, wanted)
    assert fidelity(bench, wanted[0]) == pytest.approx(1 / 3)
    parts = gather(bench.table, drawn.out, {})
    assert parts[0].entries["shapes", "label2image-da"].fidelity.mean == pytest.approx(100 / 3)
    text = markdown(bench.table, parts)
    assert "| class fidelity (oracle) |" in text
    document, pictures = as_document(bench.table, parts, drawn.out, "acclimate bench")
    assert [figure.data for figure in document.figures()] == [
        {"seed": 0, "class fidelity (oracle), %": pytest.approx(100 / 3)}
    ]
    assert list(pictures) == ["quick-cpu-shapes-label2image-da"]


def test_another_oracle_makes_it_blank(drawn):
    bench = drawn.bench()
    judge_generated(bench, [cell("label2image-da")])
    assert fidelity(bench, cell("label2image-da")) is not None
    path = bench.place(cell("trained-on-target")) / RESULT
    write_json(path, read_json(path) | {"key": "another"})
    assert drawn.bench().found(cell("trained-on-target"))[0] == "stale"
    assert fidelity(bench, cell("label2image-da")) is None


def test_without_an_oracle_there_is_no_judge(shapes):
    shapes.edit('\n[[methods]]\nname = "trained-on-target"\n', ROW)
    bench = shapes.bench()
    bench.run(cell("label2image-da"))
    judge_generated(bench, [cell("label2image-da")])
    assert not (bench.place(cell("label2image-da")) / FILE).exists()
