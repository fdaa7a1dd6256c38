"""Unpacking zip and tar archives that nobody vouches for: member by member, inside one folder, all or nothing."""

from __future__ import annotations

import dataclasses
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from acclimate.errors import DataError
from acclimate.files import read_json, sha256, storage_errors, sync_folder, write_json

MARKER = ".acclimate-complete.json"
"""The file that says a folder was unpacked to the end; without it the folder does not count."""

MAX_BYTES = 200 * 2**30
MAX_ENTRIES = 500_000
MAX_RATIO = 200.0

_CHUNK = 1 << 20
_RATIO_FROM = 1 << 24  # a few megabytes of zeros harm nobody


def extract(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_entries: int = MAX_ENTRIES,
    max_ratio: float = MAX_RATIO,
) -> Path:
    """Unpack a zip or tar archive (``.gz``, ``.bz2``, ``.xz`` too) into a new folder, and return it.

    The members are written to a temporary folder beside it, which is renamed when all of them are there; so an
    interruption leaves nothing that counts. A folder that this archive was already unpacked into is left as it is.

    Args:
        max_bytes: of all unpacked files together.
        max_entries: files and folders in the archive.
        max_ratio: unpacked size divided by the archive's size.

    Raises :class:`DataError`, and writes nothing, for a damaged or encrypted archive, for a member that is a link, a
    device, or leads outside the folder, for two members whose names are equal or differ in case only, for an archive
    over a limit, and where the folder exists already.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise DataError(f"{archive}: there is no such archive; check the path")
    if folder.exists() and any(folder.iterdir()):
        if is_complete(folder) and read_json(folder / MARKER).get("sha256") == sha256(archive):
            return folder
        raise DataError(f"{folder} is not empty; delete it, or extract {archive.name} to another folder")
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        unpack(archive, staging, max_bytes=max_bytes, max_entries=max_entries, max_ratio=max_ratio)
        publish(staging, folder, {"archive": archive.name, "sha256": sha256(archive)})
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return folder


def is_complete(folder: Path) -> bool:
    """Whether :func:`extract` or a download finished with this folder."""
    return (folder / MARKER).is_file()


def publish(staging: Path, folder: Path, facts: dict[str, object]) -> None:
    """Mark a finished temporary folder as complete and give it its name."""
    with storage_errors(folder):
        write_json(staging / MARKER, facts)
        os.replace(staging, folder)
        sync_folder(folder.parent)


def unpack(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_entries: int = MAX_ENTRIES,
    max_ratio: float = MAX_RATIO,
) -> None:
    """Write the members of an archive into an existing folder, under the limits of :func:`extract`.

    Raises :class:`DataError`; what was written until then stays.
    """
    guard = _Guard(archive, folder, max_bytes, max_entries, max_ratio)
    try:
        for member in _members(archive, folder):
            guard.write(member)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive} is damaged ({error}); get it again from its authors") from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage so
            raise DataError(f"{archive} is damaged ({error}); get it again from its authors") from error
        with storage_errors(folder):
            raise


@dataclasses.dataclass(frozen=True)
class _Member:
    name: str
    size: int
    content: IO[bytes] | None  # None: a folder
    refusal: str = ""  # why it must not be written


def _members(archive: Path, folder: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                yield _zip_member(opened, info)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive, "r:*") as opened_tar:
            for entry in opened_tar:
                yield _tar_member(opened_tar, entry, folder)
    else:
        raise DataError(f"{archive} is no zip or tar archive; get it again from its authors")


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return _Member(info.filename, 0, None, "is a link" if kind == stat.S_IFLNK else "is a device")
    if info.flag_bits & 1:
        return _Member(info.filename, 0, None, "is encrypted")
    if info.is_dir():
        return _Member(info.filename, 0, None)
    return _Member(info.filename, info.file_size, opened.open(info))


def _tar_member(opened: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> _Member:
    if entry.issym() or entry.islnk():
        return _Member(entry.name, 0, None, "is a link")
    if not (entry.isreg() or entry.isdir()):
        return _Member(entry.name, 0, None, "is a device")
    if refusal := _name_refusal(entry.name):
        return _Member(entry.name, 0, None, refusal)
    if hasattr(tarfile, "data_filter"):  # a second opinion, where Python has one
        tarfile.data_filter(entry, os.fspath(folder))
    return _Member(entry.name, entry.size, None if entry.isdir() else opened.extractfile(entry))


def _name_refusal(name: str) -> str:
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if "\\" in name or "\0" in name:
        return "has a backslash or a zero in its name"
    if ".." in name.split("/"):
        return "leads outside the folder"
    return ""


class _Guard:
    """Writes members one by one and keeps count."""

    def __init__(self, archive: Path, folder: Path, max_bytes: int, max_entries: int, max_ratio: float) -> None:
        self.archive, self.folder = archive, folder
        self.max_bytes, self.max_entries, self.max_ratio = max_bytes, max_entries, max_ratio
        self.packed = max(archive.stat().st_size, 1)
        self.entries = self.bytes = 0
        self.spelling: dict[str, str] = {}  # every file and folder as file systems without case would see it
        self.written: set[str] = set()

    def write(self, member: _Member) -> None:
        self.entries += 1
        if self.entries > self.max_entries:
            raise self.refused(f"it has more than {self.max_entries} entries")
        if refusal := member.refusal or _name_refusal(member.name):
            raise self.refused(f"its member {member.name!r} {refusal}")
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if not parts:
            return
        self._claim(parts, member)
        target = self.folder.joinpath(*parts)
        if member.content is None:
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        self._count(member.size, 0)
        with member.content as content, target.open("xb") as out:  # our own mode bits: no setuid, nothing executable
            while chunk := content.read(_CHUNK):
                self._count(len(chunk), len(chunk))
                out.write(chunk)

    def _claim(self, parts: list[str], member: _Member) -> None:
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            folded = unicodedata.normalize("NFC", path).casefold()
            if self.spelling.setdefault(folded, path) != path:
                raise self.refused(f"{path!r} and {self.spelling[folded]!r} in it differ in case only")
            last = depth == len(parts)
            if path in self.written and not (last and member.content is None and (self.folder / path).is_dir()):
                raise self.refused(f"it holds {path!r} twice")
        if member.content is not None:
            path = "/".join(parts)
            if (self.folder / path).exists():
                raise self.refused(f"it holds {path!r} twice")
            self.written.add(path)

    def _count(self, coming: int, written: int) -> None:
        if self.bytes + coming > self.max_bytes:
            raise self.refused(f"it unpacks to more than {self.max_bytes} bytes")
        if self.bytes + coming > max(self.max_ratio * self.packed, _RATIO_FROM):
            raise self.refused(f"it unpacks to more than {self.max_ratio:g} times its size")
        self.bytes += written

    def refused(self, reason: str) -> DataError:
        return DataError(f"{self.archive} is not unpacked: {reason}; get it from its authors, or unpack it by hand")
