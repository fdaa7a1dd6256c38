"""A table of two tiny tasks: folders of bars, crosses and rings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from acclimate.benchmark.cell import Bench
from acclimate.benchmark.table import Cell, load

TABLE = """
title = "Shapes"
description = "Bars, crosses and rings."

[presets.quick.plan]
steps = 6
batch = 8
log_every = 2
save_every = 2
precision = "float32"

[presets.paper.plan]
steps = 8
batch = 8

[[tasks]]
name = "shapes"
title = "Plain → tinted"
source = "{root}/plain"
target = "{root}/tinted"
network = "dann-mnist"
network_settings = {{ norm = "batch" }}
preprocess = {{ size = 16 }}

[[tasks]]
name = "back"
title = "Tinted → plain"
source = "{root}/tinted"
target = "{root}/plain"
network = "dann-mnist"
network_settings = {{ norm = "batch" }}
preprocess = {{ size = 16 }}
plan = {{ steps = 4 }}

[[methods]]
name = "source-only"

[[methods]]
name = "adabn"
published = {{ shapes = {{ value = 71.5, deviation = 0.5, source = "Somebody 2020" }} }}

[[methods]]
name = "dann"
settings = {{ hidden = [10] }}
only = ["shapes"]

[[methods]]
name = "dann-wide"
title = "DANN, wide critic"
method = "dann"
note = "a critic twice as wide"
settings = {{ hidden = [20] }}
only = ["shapes"]

[[methods]]
name = "trained-on-target"
"""


BREAKS = (
    'name = "dann-wide"',
    'name = "dann-wide"\nplan = { optimiser = { lr = 1e30 } }',
)
"""An edit with which one row becomes non-finite."""


@dataclasses.dataclass
class Shapes:
    """A table's file and a folder for its cells."""

    path: Path
    out: Path

    def bench(self) -> Bench:
        """As a new process would see it."""
        return Bench(load(str(self.path)), self.out, "cpu")

    def edit(self, old: str, new: str) -> None:
        """Change the table."""
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))


def cell(row: str, seed: int = 0, task: str = "shapes", preset: str = "quick") -> Cell:
    """Short for one cell."""
    return Cell(task, row, preset, seed)
