"""``acclimate translate``, and how ``predict`` and ``evaluate`` ask about large images."""

from __future__ import annotations

import folders
import numpy as np
import pytest
import torch
from PIL import Image

from acclimate import networks, tasks
from acclimate.data import open_domain
from acclimate.data.decode import read_mask
from acclimate.data.preprocess import Preprocess
from acclimate.engine.evaluate import evaluate
from acclimate.engine.inference import Inference
from acclimate.engine.model import Model
from acclimate.methods import find
from acclimate.plan import Plan


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A segmentation model of DANN in model/, a labelled folder cells/."""
    root = tmp_path_factory.mktemp("cells")
    torch.manual_seed(0)
    net = networks.build("unet", classes=2, channels=1, size=16, width=2, depth=1)
    method = find("dann")(net, tasks.build("segmentation", ["ground", "shape"]), Plan())
    Model(method.eval(), Preprocess(crop=(16, 16), channels=1), torch.device("cpu")).save(root / "model")
    folders.masks(root / "cells", 4)
    return root


def test_a_source_becomes_a_source(cells, call, tmp_path, monkeypatch):
    refused = call("translate", cells / "model", cells / "cells", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "dann does not redraw images" in refused.err
    monkeypatch.setattr(find("dann"), "translate", lambda self, x: -x)
    words = ("translate", cells / "model", cells / "cells", "--out", tmp_path / "out", "--device", "cpu")
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert "4 images as dann redraws them, with the labels of cells" in answer.out
    last = answer.err.strip().splitlines()[-1]
    assert last == f"next: acclimate adapt --source {tmp_path / 'out'} --target TARGET"
    source, again = open_domain(cells / "cells"), open_domain(tmp_path / "out")
    np.testing.assert_array_equal(again.images[0], 255 - np.asarray(source.images[0]))
    np.testing.assert_array_equal(again.labels[3], source.labels[3])
    assert call(*words).code == 2
    forced = call(*words, "--force", "--json")
    assert forced.json["images"] == len(forced.json["files"]) == 4
    assert forced.json["labelled"] is True


def test_the_runs_own_target_is_named(run, place, call, tmp_path, monkeypatch):
    monkeypatch.setattr(find("dann"), "translate", lambda self, x: x)
    labelled = call("translate", run.folder, place / "simulated", "--out", tmp_path / "s")
    assert labelled.err.strip().endswith(f"adapt --source {tmp_path / 's'} --target {place / 'real'}")
    plain = call("translate", run.folder, place / "new", "--out", tmp_path / "n")
    assert "without labels" in plain.out
    assert plain.err.strip().endswith(f"check {tmp_path / 'n'}")


WORDS = ("--window", "16x24", "--overlap", "0.25", "--scales", ".75,1", "--flip")
ASKED = Inference(window=(16, 24), overlap=0.25, scales=(0.75, 1.0), flip=True)


def test_predict_and_evaluate_pass_the_options_on(cells, call, tmp_path):
    model = Model.load(cells / "model")
    model.inference = ASKED
    domain = open_domain(cells / "cells")
    answer = call("predict", cells / "model", cells / "cells", "--out", tmp_path / "p", *WORDS)
    assert answer.code == 0, answer.err
    logits = {i: z.argmax(0) for index, zs in model.logits(domain) for i, z in zip(index, zs)}
    for i in range(4):
        np.testing.assert_array_equal(read_mask(tmp_path / "p" / f"{i:03}.png"), logits[i])
    scored = call("evaluate", cells / "model", cells / "cells", "--json", *WORDS)
    assert scored.json["inference"] == ASKED.model_dump(mode="json")
    assert scored.json["players"]["dann"]["confusion"] == evaluate(model, domain).confusion
    assert Image.open(tmp_path / "p" / "000.png").size == (32, 32)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--window", "large"), "write pixels"),
        (("--overlap", "0.5"), "--window 512"),
        (("--window", "16", "--overlap", "1"), "overlap"),
        (("--scales", "one"), "scales"),
        (("--scales", "1,0"), "scales"),
        (("--scales", ","), "scales"),
    ],
)
def test_mistakes_are_named(cells, call, tmp_path, words, said):
    answer = call("predict", cells / "model", cells / "cells", "--out", tmp_path / "p", *words)
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "p").exists()


def test_classes_have_no_windows(run, place, call, tmp_path):
    answer = call("predict", run.folder, place / "new", "--out", tmp_path / "p", "--window", "8")
    assert answer.code == 2
    assert "for segmentation" in answer.err
    assert call("predict", run.folder, place / "new", "--out", tmp_path / "p", "--flip").code == 0
