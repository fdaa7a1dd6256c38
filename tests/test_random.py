"""Keys are functions of their parts, in every process."""

from __future__ import annotations

import subprocess
import sys

import torch

from acclimate.random import generator, key


def test_key_is_the_same_in_every_process() -> None:
    code = "from acclimate.random import key; print(key(3, 'target', 'epoch', 7))"
    out = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert int(out[0]) == int(out[1]) == key(3, "target", "epoch", 7)


def test_keys_of_other_parts_differ() -> None:
    parts = [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1), (0, "a1"), ("0", "a", 1), (0, ("a", 1))]
    assert len({key(*p) for p in parts}) == len(parts)
    assert all(0 <= key(*p) < 2**63 for p in parts)


def test_generator_draws_what_its_parts_say() -> None:
    assert torch.equal(torch.rand(3, generator=generator(1, "x")), torch.rand(3, generator=generator(1, "x")))
    assert not torch.equal(torch.rand(3, generator=generator(1, "x")), torch.rand(3, generator=generator(2, "x")))
