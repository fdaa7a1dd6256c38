"""Writing replaces a file wholly or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from acclimate import files
from acclimate.errors import DataError, StorageError


def test_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for text in ("one", "zwei ü"):
        files.write_text(tmp_path / "new" / "a.txt", text)
        assert (tmp_path / "new" / "a.txt").read_text() == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_failure_keeps_the_file_before(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "before")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match=r"a\.txt: the disk is full"):
        files.write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_disguised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        files.write_text(tmp_path / "a", "x")


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_text(tmp_path / "a", "x")
        assert files.umask() == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_json_survives_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"ü": [1, 2.5, None]})
    assert files.read_json(path) == {"ü": [1, 2.5, None]} == json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
        files.read_json(path)
    with pytest.raises(DataError, match="does not exist"):
        files.read_json(tmp_path / "b.json")


def test_sha256_is_that_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    expected = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert files.sha256(tmp_path / "a") == expected
    with (tmp_path / "a").open("rb") as stream:
        assert files._sha256(stream) == expected
