"""Archives: one hostile archive for every way out, and nothing left behind."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from acclimate.data import archives
from acclimate.data.archives import MARKER, extract, is_complete
from acclimate.errors import DataError

Make = Callable[[Path, Iterable[tuple[str, bytes]]], Path]


def make_zip(folder: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path = folder / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def make_tar(folder: Path, members: Iterable[tuple[str, bytes]], mode: str = "w:gz") -> Path:
    path = folder / "data.tar.gz"
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def tar_entry(folder: Path, **attributes: object) -> Path:
    """A tar archive of a good file and one odd entry."""
    path = folder / "odd.tar"
    with tarfile.open(path, "w") as archive:
        good = tarfile.TarInfo("good.txt")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
        entry = tarfile.TarInfo("odd")
        for name, value in attributes.items():
            setattr(entry, name, value)
        archive.addfile(entry)
    return path


def refused(archive: Path, folder: Path, words: str, **limits: float) -> None:
    """It is refused with these words, and leaves nothing inside or beside the folder."""
    around = sorted(folder.parent.rglob("*"))
    with pytest.raises(DataError, match=words) as caught:
        extract(archive, folder, **limits)
    assert archive.name in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == around


both = pytest.mark.parametrize("make", [make_zip, make_tar])


@both
def test_files_arrive_with_a_marker(tmp_path: Path, make: Make) -> None:
    archive = make(tmp_path, [("a.txt", b"one"), ("deep/er/b ü.txt", b"two"), ("./c.txt", b"")])
    folder = extract(archive, tmp_path / "new" / "out")
    assert (folder / "a.txt").read_bytes() == b"one"
    assert (folder / "deep/er/b ü.txt").read_bytes() == b"two"
    assert (folder / "c.txt").read_bytes() == b""
    assert is_complete(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


@both
def test_a_second_time_is_free_and_foreign_folders_are_left_alone(tmp_path: Path, make: Make) -> None:
    archive = make(tmp_path, [("a.txt", b"one")])
    folder = extract(archive, tmp_path / "out")
    (folder / "a.txt").write_text("edited")
    assert (extract(archive, folder) / "a.txt").read_text() == "edited"
    other = make(tmp_path, [("a.txt", b"another")])
    with pytest.raises(DataError, match="not empty"):
        extract(other, folder)
    (folder / MARKER).unlink()
    with pytest.raises(DataError, match="not empty"):
        extract(archive, folder)
    assert (folder / "a.txt").read_text() == "edited"


@both
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/evil", "absolute"),
        ("C:/evil", "absolute"),
        ("../evil", "outside"),
        ("a/../../evil", "outside"),
        ("..\\evil", "backslash"),
        ("a\\evil", "backslash"),
    ],
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, make: Make, name: str, words: str) -> None:
    refused(make(tmp_path, [("good.txt", b"good"), (name, b"evil")]), tmp_path / "out", words)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("goal", ["/etc", "../..", "good.txt"])
def test_links_in_tar_archives_are_refused(tmp_path: Path, kind: bytes, goal: str) -> None:
    refused(tar_entry(tmp_path, type=kind, linkname=goal), tmp_path / "out", "is a link")


def test_links_in_zip_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("odd")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
        archive.writestr("odd/passwd", "evil")
    refused(path, tmp_path / "out", "is a link")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    refused(tar_entry(tmp_path, type=kind), tmp_path / "out", "is a device")


def test_mode_bits_of_the_archive_do_not_arrive(tmp_path: Path) -> None:
    folder = extract(tar_entry(tmp_path, mode=0o6777), tmp_path / "out")
    assert (folder / "odd").stat().st_mode & 0o7111 == 0


@both
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("a.txt", "a.txt", "twice"),
        ("a.txt", "./a.txt", "twice"),
        ("a", "a/b", "twice"),
        ("a/b", "a", "twice"),
        ("a.txt", "A.txt", "case"),
        ("dir/a.txt", "DIR/b.txt", "case"),
        ("\u00e9.txt", "e\u0301.txt", "case"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path, make: Make, first: str, second: str, words: str) -> None:
    refused(make(tmp_path, [(first, b"one"), (second, b"two")]), tmp_path / "out", words)


@both
def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path, make: Make) -> None:
    archive = make(tmp_path, [("zeros", bytes(40 << 20))])
    assert archive.stat().st_size < 100_000
    refused(archive, tmp_path / "out", "200 times its size")


@both
def test_a_bomb_of_many_members_is_refused(tmp_path: Path, make: Make) -> None:
    refused(make(tmp_path, [(f"{n}", bytes(1 << 20)) for n in range(20)]), tmp_path / "out", "200 times its size")


@both
def test_the_total_size_is_limited(tmp_path: Path, make: Make) -> None:
    content = os.urandom(6000)
    archive = make(tmp_path, [("a", content), ("b", content)])
    refused(archive, tmp_path / "out", "more than 10000 bytes", max_bytes=10_000)
    assert is_complete(extract(archive, tmp_path / "out", max_bytes=12_000))


@both
def test_the_number_of_entries_is_limited(tmp_path: Path, make: Make) -> None:
    archive = make(tmp_path, [(str(n), b"") for n in range(11)])
    refused(archive, tmp_path / "out", "more than 10 entries", max_entries=10)
    assert archives.MAX_ENTRIES < 10**6


def test_a_member_larger_than_its_header_says_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path, [("a", os.urandom(5000))])
    content = bytearray(path.read_bytes())
    for place in (content.find(b"PK\x03\x04") + 22, content.find(b"PK\x01\x02") + 24):
        content[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    refused(path, tmp_path / "out", "damaged")


@both
def test_damaged_archives_are_named(tmp_path: Path, make: Make) -> None:
    archive = make(tmp_path, [("a", os.urandom(5000))])
    archive.write_bytes(archive.read_bytes()[:3000])
    refused(archive, tmp_path / "out", "no zip or tar|damaged")


def test_what_is_no_archive_or_encrypted_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    refused(tmp_path / "text.zip", tmp_path / "out", "no zip or tar")
    with pytest.raises(DataError, match="no such archive"):
        extract(tmp_path / "gone.zip", tmp_path / "out")
    path = make_zip(tmp_path, [("a", b"secret")])
    content = bytearray(path.read_bytes())
    for place in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[place] |= 1
    path.write_bytes(content)
    refused(path, tmp_path / "out", "encrypted")


@both
def test_an_interruption_leaves_nothing(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path, [("a", b"one"), ("b", b"two")])
    write = archives._Guard.write

    def interrupted(guard: archives._Guard, member: archives._Member) -> None:
        if member.name == "b":
            raise KeyboardInterrupt
        write(guard, member)

    monkeypatch.setattr(archives._Guard, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]
    monkeypatch.undo()
    assert (extract(archive, tmp_path / "out") / "b").read_bytes() == b"two"
