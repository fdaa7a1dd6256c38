"""Every card of the catalog says what people need to know, and never more than is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from acclimate import registry
from acclimate.data.catalog.base import Dataset
from acclimate.errors import DataError, UsageError

SETS = registry.names("datasets")


@pytest.fixture(params=SETS)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return registry.load("datasets", request.param)


def test_the_card_is_complete(dataset: Dataset) -> None:
    card = dataset.card
    assert card.name in SETS
    assert registry.load("datasets", card.name) is dataset
    assert card.task in ("classification", "segmentation")
    assert len(set(card.classes)) == len(card.classes) >= 2
    assert len(set(card.splits)) == len(card.splits) >= 1
    for text in (card.title, card.layout, card.licence):
        assert text.strip()
    assert re.match(r"@\w+\{\w+,", card.citation), "BibTeX"
    assert card.citation.count("{") == card.citation.count("}")


def test_files_are_fetched_over_https_with_a_plausible_checksum_or_not_at_all(dataset: Dataset) -> None:
    for remote in dataset.card.files:
        assert remote.url.startswith(("https://", "http://"))
        if remote.sha256 is not None:
            assert remote.url.startswith("https://")
            assert re.fullmatch(r"[0-9a-f]{64}", remote.sha256)
    if not dataset.card.bundled:
        assert dataset.card.homepage.startswith("http")


def test_a_set_that_is_not_there_says_where_it_belongs(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dataset.card.bundled:
        pytest.skip("it comes with acclimate")
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path))
    folder = tmp_path / dataset.card.name
    for _ in ("no folder", "an empty folder"):
        for split in dataset.card.splits:
            with pytest.raises(DataError) as caught:
                dataset.open(split)
            assert str(folder) in str(caught.value)
            assert dataset.card.layout in str(caught.value)
        folder.mkdir(exist_ok=True)
    with pytest.raises(UsageError, match="no split"):
        dataset.open("no-such-split")
