"""One thread, no network: what every test may count on."""

from __future__ import annotations

import os
import socket

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reaches another machine, and only tests marked ``network`` open sockets on this one."""
    if request.node.get_closest_marker("network"):
        return

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a test without the mark 'network' tried to reach {arguments[1:]}")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, *arguments: object, _original=original) -> object:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(self, *arguments)
            return _original(self, *arguments)

        monkeypatch.setattr(socket.socket, name, guarded)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
