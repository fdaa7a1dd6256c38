"""The exported file gives the model's numbers for the images as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from acclimate import networks, tasks
from acclimate.data.preprocess import Preprocess
from acclimate.engine.model import Model
from acclimate.errors import ConditionError, UsageError
from acclimate.exchange.export import export_onnx
from acclimate.methods import find
from acclimate.plan import Plan

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def model(task: str) -> Model:
    torch.manual_seed(0)
    if task == "classification":
        net = networks.build("dann-mnist", classes=3, size=28, norm="batch")
        preprocess = Preprocess(size=(28, 28), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    else:
        net = networks.build("unet", classes=3, channels=1, size=32, width=2, depth=2)
        preprocess = Preprocess(crop=(32, 32), channels=1, mean=0.4, std=0.25)
    method = find("source-only")(net, tasks.build(task, ["a", "b", "c"]), Plan())
    return Model(method.eval(), preprocess, torch.device("cpu"))


def test_classification(tmp_path):
    ours = model("classification")
    found = export_onnx(ours, tmp_path / "m.onnx")
    assert found["difference"] < 1e-4
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 28, 28)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"images": images})
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    with torch.no_grad():
        expected = ours.method.predict(torch.from_numpy((images / 255 - mean) / std)).numpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-4)
    properties = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(properties["classes"]) == ["a", "b", "c"]
    assert json.loads(properties["preprocess"])["size"] == [28, 28]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]  # one file, nothing beside it


def test_segmentation_takes_other_sizes(tmp_path):
    ours = model("segmentation")
    found = export_onnx(ours, tmp_path / "m.onnx")
    assert "multiples of 32" in found["input"]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 96, 160)).astype(np.float32)
    (theirs,) = session.run(None, {"images": images})
    with torch.no_grad():
        expected = ours.method.predict(torch.from_numpy((images / 255 - 0.4) / 0.25)).numpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-4)


def test_nothing_is_written_where_the_numbers_differ(tmp_path):
    with pytest.raises(ConditionError, match="differs"):
        export_onnx(model("classification"), tmp_path / "m.onnx", tolerance=-1.0)
    assert not list(tmp_path.iterdir())


def test_missing_extra_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r'pip install "acclimate\[export\]"'):
        export_onnx(model("classification"), tmp_path / "m.onnx")
