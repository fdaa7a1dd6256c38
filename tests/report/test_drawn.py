"""Images that a method draws: in the evidence, in the twin, on the page, and absent where there are none."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.engine.checkpoint import read_tensors, write_tensors
from acclimate.files import read_json, write_json
from acclimate.methods import find
from acclimate.report import evidence
from acclimate.report.pictures import strip
from acclimate.report.schema import load
from acclimate.report.write import write


def test_the_oracle_is_asked_what_it_sees(runs):
    done = runs["classification", True]
    (found,) = load(done.folder / "report.json").generated
    oracle = done.players[-1].model
    seen = int(oracle.method.predict(torch.zeros(1, 3, 16, 16)).argmax())
    assert (found.player, found.oracle, found.judged, found.columns) == ("dann", "trained-on-target", 100, 10)
    assert found.by_class == [float(k == seen) for k in range(3)]
    assert found.fidelity == pytest.approx(1 / 3)
    assert found.classes == list(done.results["classes"])
    images = read_tensors(done.folder / evidence.TENSORS)["generated/dann"]
    assert images.shape == (3, 10, 16, 16, 3)
    assert (images == 128).all()  # 0 is the middle of what the network takes


def test_the_page_shows_one_strip_for_each_class(runs):
    html = runs["classification", True].html
    assert "class fidelity (oracle) 33.3&nbsp;%" in html
    section = html.split('<div class="drawn"')[1].split("</section>")[0]
    uris = [part.split('"')[0] for part in section.split('src="')[1:]]
    assert len(uris) == 3
    for uri in uris:
        picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        assert picture.size == (10 * 64 + 9 * 4, 64)
    assert section.count("100&nbsp;%") == 1
    assert "&lt;script&gt;" in section
    assert html.count("<h2>Images that a method draws</h2>") == 1


def test_without_a_generator_there_is_no_section_and_without_an_oracle_no_fidelity(runs, tmp_path, monkeypatch):
    done = runs["classification", False]
    assert load(done.folder / "report.json").generated == []
    assert "Images that a method draws" not in done.html
    tensors = {}
    monkeypatch.setattr(find("dann"), "generate", lambda self, labels: torch.zeros(len(labels), 3, 16, 16))
    (facts,) = evidence.generated(done.players, tensors)
    assert (facts["oracle"], facts["fidelity"]) == (None, None)
    assert list(tensors) == ["generated/dann"]
    shutil.copytree(done.folder, tmp_path / "run")
    found = read_json(tmp_path / "run" / evidence.FACTS)
    write_json(tmp_path / "run" / evidence.FACTS, {**found, "generated": [facts]})
    write_tensors(tmp_path / "run" / evidence.TENSORS, {**read_tensors(done.folder / evidence.TENSORS), **tensors})
    html = write(tmp_path / "run").read_text()
    assert "Images that a method draws" in html
    assert "lass fidelity" not in html


def test_large_drawn_images_are_kept_small(runs, monkeypatch):
    done, tensors = runs["classification", False], {}
    monkeypatch.setattr(find("dann"), "generate", lambda self, labels: torch.zeros(len(labels), 3, 224, 192))
    evidence.generated(done.players, tensors)
    assert tensors["generated/dann"].shape == (3, 10, 64, 55, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_repeats_pixels(channels):
    images = np.random.default_rng(0).integers(0, 255, (3, 20, 16, channels), np.uint8)
    drawn = strip(list(images))
    assert drawn.shape == (60, 3 * 48 + 2 * 4, 3)
    for place, image in enumerate(images):
        cell = drawn[1::3, 52 * place + 1 : 52 * place + 48 : 3]
        assert np.array_equal(cell, np.broadcast_to(image, (20, 16, 3)))
    assert (drawn[:, 48:52] == 128).all()
