"""Cells on a local Ray; skipped where Ray is not installed."""

from __future__ import annotations

import sys

import pytest
from small_table import BREAKS, cell

from acclimate.errors import UsageError


def test_without_ray_it_says_what_to_install(shapes, monkeypatch):
    from acclimate.benchmark.cluster import on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'--ray needs an extra: pip install "acclimate\[ray\]"'):
        on_ray(shapes.bench(), [cell("adabn")], "local", 1, print)


@pytest.mark.network
@pytest.mark.slow
def test_cells_on_a_local_ray(shapes):
    pytest.importorskip("ray", reason='Ray is not installed: pip install "acclimate[ray]"')
    from acclimate.benchmark.cluster import on_ray

    said: list[str] = []
    shapes.edit(*BREAKS)  # it fails there, and the others go on
    bench = shapes.bench()
    wanted = [cell("adabn"), cell("dann"), cell("dann-wide")]
    tally = on_ray(bench, wanted, "local", 1, said.append)
    assert (tally.done, tally.failed) == (3, 1)  # source-only came first
    assert len(said) == 4
    assert {which.row: bench.found(which)[0] for which in wanted} == {
        "adabn": "done",
        "dann": "done",
        "dann-wide": "failed",
    }
    again = on_ray(bench, wanted[:2], "local", 1, said.append)
    assert (again.done, len(said)) == (3, 4)


@pytest.mark.network
@pytest.mark.slow
def test_a_task_that_dies_is_a_failure(shapes, monkeypatch):
    pytest.importorskip("ray", reason='Ray is not installed: pip install "acclimate[ray]"')
    from acclimate.benchmark import cluster

    def dies(wanted, start):
        raise SystemExit(9)

    monkeypatch.setattr(cluster, "_task", dies)
    bench = shapes.bench()
    tally = cluster.on_ray(bench, [cell("adabn")], "local", 1, lambda text: None)
    assert (tally.done, tally.failed) == (0, 2)
    assert "its task ended without a result" in bench.found(cell("source-only"))[1]["message"]
