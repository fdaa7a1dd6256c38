"""Fetching a catalog set: https and a known sha256, or no download at all."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pooch

from acclimate.data.archives import is_complete, publish, unpack
from acclimate.data.catalog.base import Card, Remote, data_root, how_to_get
from acclimate.errors import DataError, UsageError
from acclimate.files import storage_errors

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def download(card: Card, root: str | os.PathLike[str] | None = None, *, progress: bool = False) -> Path:
    """Fetch the files of a set into ``root/<name>`` and return that folder.

    Each file is kept in ``root/.downloads`` once its checksum is right, so an interrupted download goes on with the
    next file. The set's folder appears, with a marker inside, when all is in it. A complete folder is left alone.

    Raises :class:`UsageError` with instructions where a checksum is unknown, :class:`DataError` where a file does not
    have the published checksum, cannot be fetched, or where the set's folder exists but did not come from here.
    """
    root = data_root() if root is None else Path(root)
    folder = root / card.name
    if card.bundled:
        raise UsageError(f"{card.name} comes with acclimate; there is nothing to download")
    if is_complete(folder):
        return folder
    if not card.fetchable:
        raise UsageError(how_to_get(card, folder))
    if folder.exists():
        raise DataError(f"{folder} exists and was not made by a download; move or delete it, then download again")
    with storage_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=root, prefix=f".{card.name}."))
    try:
        for remote in card.files:
            fetched = fetch(remote, root / ".downloads" / card.name, progress=progress)
            place = staging / remote.folder
            place.mkdir(parents=True, exist_ok=True)
            if remote.name.endswith(_ARCHIVES):
                unpack(fetched, place)
            else:
                shutil.copyfile(fetched, place / remote.name)
        publish(staging, folder, {"files": {remote.url: remote.sha256 for remote in card.files}})
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(root / ".downloads" / card.name)
    return folder


def fetch(remote: Remote, folder: Path, *, progress: bool = False) -> Path:
    """One file, checked. A file that is there with the right checksum is not fetched again.

    Raises :class:`UsageError` for an address that is not https or a file without a checksum, :class:`DataError` where
    the download fails or brings something else; the file that was there before is kept.
    """
    if urlsplit(remote.url).scheme != "https":
        raise UsageError(f"{remote.url} is not an https address; fetch it by hand and check where it comes from")
    if remote.sha256 is None:
        raise UsageError(f"no checksum is known for {remote.url}; fetch it by hand")
    with storage_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        downloader = pooch.HTTPDownloader(progressbar=progress, timeout=30)
        path = pooch.retrieve(
            remote.url, f"sha256:{remote.sha256}", fname=remote.name, path=folder, downloader=downloader
        )
    except ValueError as error:  # pooch compares the checksum before it replaces anything
        raise DataError(
            f"{remote.url} does not have the published sha256 {remote.sha256}; nothing was kept. Try again later, and "
            "report it if it stays so"
        ) from error
    except OSError as error:  # the exceptions of requests are among them
        with storage_errors(folder / remote.name):
            if error.errno is not None:
                raise
        raise DataError(f"{remote.url} cannot be fetched ({error}); check the network and try again") from error
    return Path(path)
