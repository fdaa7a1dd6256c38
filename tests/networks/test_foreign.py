"""Foreign weights are read, foreign code is not run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from acclimate.errors import DataError
from acclimate.networks.foreign import load_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}


class Evil:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": {"state_dict": WEIGHTS}},
        {"model_state_dict": {f"module.{k}": v for k, v in WEIGHTS.items()}},
        {f"_orig_mod.module.{k}": v for k, v in WEIGHTS.items()},
        {**WEIGHTS, "epoch": 3},
    ],
)
def test_weights_are_found_wherever_they_are_nested(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    found = load_weights(tmp_path / "w.pth")
    assert set(found) == set(WEIGHTS)
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pt")
    assert set(load_weights(tmp_path / "w.pt")) == {"module.a", "b"}


def test_safetensors_are_read(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert set(load_weights(tmp_path / "w.safetensors")) == set(WEIGHTS)


def test_code_in_a_pickle_is_not_run(tmp_path):
    marker = tmp_path / "ran"
    torch.save({"state_dict": WEIGHTS, "extra": Evil(str(marker))}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="nothing in it was run"):
        load_weights(tmp_path / "evil.pt")
    assert not marker.exists()
    # The trap works: an ordinary load does run it.
    torch.load(tmp_path / "evil.pt", weights_only=False)  # repo-check: allow
    assert marker.exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(DataError, match="save the state_dict alone"):
        load_weights(tmp_path / "m.pt")


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_missing_damaged_and_empty_files_are_data_errors(tmp_path):
    torch.save(WEIGHTS, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    with pytest.raises(DataError, match="no such file"):
        load_weights(tmp_path / "none.pt")
    for number, content in enumerate([b"", b"hello there", whole[: len(whole) // 2]]):
        with pytest.raises(DataError):
            load_weights(_write(tmp_path / f"{number}.pt", content))
        with pytest.raises(DataError):
            load_weights(_write(tmp_path / f"{number}.safetensors", content))
    for content in ({"epoch": 3}, [torch.ones(1)], torch.ones(1)):
        torch.save(content, tmp_path / "empty.pt")
        with pytest.raises(DataError, match="no named weights"):
            load_weights(tmp_path / "empty.pt")
