"""Randomness as arithmetic: every draw is a function of integers and names, never of what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def key(*parts: object) -> int:
    """A 63-bit seed from any parts, the same in every process.

    Python's own ``hash`` is salted per process, so it must not seed anything.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator keyed by ``parts``."""
    return torch.Generator().manual_seed(key(*parts))
