"""What Sweeps keep: written as they go, joined by image, and refused where it is not what was saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Stream
from acclimate.engine import artifacts
from acclimate.engine.artifacts import Artifacts
from acclimate.engine.world import World
from acclimate.errors import DataError, UsageError


def target(sizes: list[tuple[int, int]]) -> Stream:
    """Images of several sizes, image i of the grey value 10 * i."""
    images = [np.full((*size, 1), 10 * i, np.uint8) for i, size in enumerate(sizes)]
    domain = Domain("grey", None, (), images, None, [str(i) for i in range(len(sizes))])
    return Stream(domain, "target", "segmentation", Preprocess(crop=(4, 4), channels=1, mean=0.0, std=1.0), batch=6)


def kept(folder: Path, stream: Stream, stage: str = "label") -> Artifacts:
    """Each pixel's own value as a map of labels and as a soft map."""
    found = Artifacts(folder, World.current())
    for batch in stream.sweep():
        found.keep(batch, {"label": (batch.x[:, 0] * 25.5).round().short(), "soft": batch.x.half()})
    found.publish(stage, stream)
    return found


SIZES = [(6, 6), (8, 5), (6, 6), (4, 9), (6, 6)]


@pytest.mark.parametrize("held", [1, 300, 2**28])
def test_maps_reach_the_batches_of_their_images_however_they_were_written(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "HELD", held)
    stream = target(SIZES)
    found = kept(tmp_path, stream)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(found.published["target"])  # nothing but the files that a checkpoint names
    assert (len(files) > 1) == (held < 2**28)
    batch = stream.batch(0)
    assert torch.equal(batch.columns["label"], (batch.x[:, 0] * 25.5).round().short())
    torch.testing.assert_close(batch.columns["soft"], batch.x, atol=1e-3, rtol=0)


def test_no_more_than_the_limit_waits_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "HELD", 500)
    found, most = Artifacts(tmp_path, World.current()), 0
    stream = target([(6 + i, 6) for i in range(8)])
    for batch in stream.sweep():
        found.keep(batch, {"soft": batch.x})
        most = max(most, sum(value.nbytes for value in found._maps.values()))
    assert most < 500


def test_a_later_sweep_replaces_the_columns_and_leaves_no_file_of_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "HELD", 1)
    stream = target(SIZES)
    kept(tmp_path, stream)
    monkeypatch.setattr(artifacts, "HELD", 2**28)
    found = kept(tmp_path, stream)  # the same stage again, in fewer files
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(found.published["target"])
    later = Artifacts(tmp_path, World.current())
    for batch in stream.sweep():
        later.keep(batch, {"soft": torch.zeros_like(batch.x)})
    later.publish("soft labels", stream)
    assert list(stream.columns) == ["soft"]
    assert not stream.batch(0).columns["soft"].any()


def test_an_image_without_a_map_is_noticed(tmp_path: Path) -> None:
    stream, found = target(SIZES), Artifacts(tmp_path, World.current())
    first = next(stream.sweep())
    found.keep(first, {"soft": first.x})
    with pytest.raises(UsageError, match="every image"):
        found.publish("label", stream)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    stream = target(SIZES)
    published = kept(tmp_path, stream).published
    again = Artifacts(tmp_path, World.current())
    again.restore(published, {"target": stream})
    path = tmp_path / next(iter(published["target"]))
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DataError, match="has changed"):
        again.restore(published, {"target": stream})


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 6, 6)])
def test_maps_that_would_not_fit_their_image_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    stream, found = target([(6, 6)]), Artifacts(tmp_path, World.current())
    value = torch.zeros(shape, dtype=torch.int16 if shape[-1] == 3 else torch.float32)
    with pytest.raises(UsageError, match="keep labels as integers"):
        found.keep(next(stream.sweep()), {"label": value})
