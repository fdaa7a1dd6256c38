"""Downloads: https and a known checksum, or instructions; and no half of a data set."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import stat
import zipfile
from pathlib import Path

import pytest
import requests

from acclimate.data.catalog.base import Card, Dataset, Remote
from acclimate.data.download import download, fetch
from acclimate.errors import DataError, UsageError

FILES: dict[str, bytes | BaseException] = {}


class Server:
    """Stands where pooch's downloader would ask the network."""

    asked: list[str]

    def __init__(self, **options: object) -> None:
        pass

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        self.asked.append(url)
        content = FILES[url]
        if isinstance(content, BaseException):
            Path(output_file).write_bytes(b"half")
            raise content
        Path(output_file).write_bytes(content)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    FILES.clear()
    Server.asked = []
    monkeypatch.setattr("acclimate.data.download.pooch.HTTPDownloader", Server)
    return Server


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def published(name: str, content: bytes, **options: object) -> Remote:
    url = f"https://example.org/{name}"
    FILES[url] = content
    return Remote(url, name, hashlib.sha256(content).hexdigest(), len(content), **options)


def card(*files: Remote, terms: str | None = None) -> Card:
    return Card(
        name="toy",
        title="Toy",
        task="classification",
        classes=("a", "b"),
        splits=("train",),
        layout="plain.txt    one line",
        homepage="https://example.org/",
        licence="CC0",
        citation="@misc{toy}",
        files=files,
        terms=terms,
    )


def test_files_and_archives_arrive_complete(tmp_path: Path, server: type[Server]) -> None:
    toy = card(published("plain.txt", b"text"), published("parts.zip", zipped(x=b"1"), folder="inside"))
    folder = download(toy, tmp_path / "root")
    assert (folder / "plain.txt").read_bytes() == b"text"
    assert (folder / "inside" / "x").read_bytes() == b"1"
    asked = len(server.asked)
    assert download(toy, tmp_path / "root") == folder
    assert len(server.asked) == asked == 2
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700


def test_a_wrong_checksum_keeps_what_was_there_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    remote = published("a.bin", b"new")
    FILES[remote.url] = b"tampered"
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(DataError, match="published sha256"):
        fetch(remote, tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.bin", b"old")]


def test_a_right_file_is_not_fetched_again(tmp_path: Path, server: type[Server]) -> None:
    remote = published("a.bin", b"new")
    (tmp_path / "a.bin").write_bytes(b"new")
    fetch(remote, tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("url", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd"])
def test_only_https(tmp_path: Path, url: str, server: type[Server]) -> None:
    with pytest.raises(UsageError, match="https"):
        download(card(Remote(url, "a", "0" * 64)), tmp_path)
    assert server.asked == []


def test_an_unknown_checksum_means_instructions_and_no_download(tmp_path: Path, server: type[Server]) -> None:
    toy = card(Remote("https://example.org/a.zip", "a.zip"), terms="register first")
    with pytest.raises(UsageError) as caught:
        download(toy, tmp_path / "root")
    for part in ("https://example.org/a.zip", str(tmp_path / "root" / "toy"), "plain.txt", "register first"):
        assert part in str(caught.value)
    assert server.asked == []
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("trouble", "raised"),
    [(requests.exceptions.ConnectionError("no route"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_an_interrupted_download_does_not_count_and_goes_on(
    tmp_path: Path, trouble: BaseException, raised: type[BaseException], server: type[Server]
) -> None:
    first, second = published("first", b"1"), published("second", b"2")
    toy = card(first, second)
    FILES[second.url] = trouble
    with pytest.raises(raised):
        download(toy, tmp_path)
    assert not (tmp_path / "toy").exists()
    assert [path.name for path in (tmp_path / ".downloads" / "toy").iterdir()] == ["first"]
    FILES[second.url] = b"2"
    assert (download(toy, tmp_path) / "second").read_bytes() == b"2"
    assert server.asked.count(first.url) == 1
    assert {path.name for path in tmp_path.iterdir()} == {".downloads", "toy"}


def test_a_folder_of_the_users_own_is_not_touched(tmp_path: Path, server: type[Server]) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "mine").write_text("mine")
    with pytest.raises(DataError, match="move or delete"):
        download(card(published("a", b"1")), tmp_path)
    assert (tmp_path / "toy" / "mine").read_text() == "mine"


def test_a_hostile_archive_with_the_right_checksum_is_still_refused(tmp_path: Path) -> None:
    toy = card(published("evil.zip", zipped(**{"../evil": b"1"})))
    with pytest.raises(DataError, match="outside"):
        download(toy, tmp_path)
    assert not (tmp_path / "toy").exists()
    assert not (tmp_path / "evil").exists()


def test_bundled_sets_need_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="comes with acclimate"):
        download(card(), tmp_path)


def test_a_missing_set_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))
    toy = card(published("a", b"1"))
    dataset = Dataset(toy, load=lambda folder, split: pytest.fail("must not be read"))
    with pytest.raises(DataError, match="acclimate download toy"):
        dataset.open()
    with pytest.raises(UsageError, match="did you mean 'train'"):
        dataset.open("trian")
    unknown = dataclasses.replace(toy, files=(Remote("https://example.org/a", "a"),))
    with pytest.raises(DataError, match="cannot fetch it") as caught:
        Dataset(unknown, dataset.load).open()
    assert str(tmp_path / "toy") in str(caught.value)
