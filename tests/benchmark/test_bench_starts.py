"""Cells that start from source-only's network, and cells that read a few target labels."""

from __future__ import annotations

from pathlib import Path

import folders
import pytest
from small_table import Shapes, cell

from acclimate.errors import UsageError

MASKS = """
title = "Masks"

[presets.quick.plan]
steps = 4
batch = 2
log_every = 2
save_every = 2
precision = "float32"

[presets.paper.plan]
steps = 6

[[tasks]]
name = "shapes"
title = "Plain → dark"
source = "{root}/plain"
target = "{root}/dark"
network = "unet"
network_settings = {{ width = 2, depth = 2 }}
preprocess = {{ crop = 16 }}
warm_start = true
labelled = 2

[[methods]]
name = "source-only"

[[methods]]
name = "dann"
settings = {{ hidden = [4] }}

[[methods]]
name = "memory-bank-few"
settings = {{ size = 8, samples = 8, width = 8, ramp = 0.3 }}

[[methods]]
name = "trained-on-target"
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("masks")
    folders.masks(root / "plain", 10)
    folders.masks(root / "dark", 10, shifted=True)
    return root


@pytest.fixture
def table(root: Path, tmp_path: Path) -> Shapes:
    path = tmp_path / "masks.toml"
    path.write_text(MASKS.format(root=root))
    return Shapes(path, tmp_path / "out")


def test_a_warm_start_trains_source_only_first_and_is_part_of_the_key(table: Shapes) -> None:
    bench = table.bench()
    assert bench.run(cell("dann")) == "done"
    state, start = bench.found(cell("source-only"))
    assert state == "done"
    assert bench.found(cell("dann"))[1]["identity"]["start"] == start["key"]  # type: ignore[index]
    assert bench.start(cell("source-only")) is bench.start(cell("trained-on-target")) is None
    warm = bench.key(cell("dann"))
    table.edit("warm_start = true\n", "")
    assert table.bench().key(cell("dann")) != warm
    assert table.bench().start(cell("dann")) is None


def test_a_method_that_reads_few_labels_gets_them_in_a_cell(table: Shapes) -> None:
    bench = table.bench()
    assert bench.run(cell("memory-bank-few")) == "done"
    assert bench.found(cell("memory-bank-few"))[1]["identity"]["data"]["labelled"]["images"] == 2  # type: ignore[index]


def test_the_number_of_labelled_images_concerns_only_methods_that_read_them(table: Shapes) -> None:
    rows = ("source-only", "dann", "memory-bank-few", "trained-on-target")
    before = {row: table.bench().key(cell(row)) for row in rows}
    table.edit("labelled = 2", "labelled = 3")
    changed = [row for row in rows if table.bench().key(cell(row)) != before[row]]
    assert changed == ["memory-bank-few"]


def test_missing_labels_are_said_before_any_cell_is_trained(table: Shapes) -> None:
    table.edit("labelled = 2\n", "")
    with pytest.raises(UsageError, match="memory-bank-few needs a few labelled target images"):
        table.bench().check([cell("source-only"), cell("memory-bank-few")])
