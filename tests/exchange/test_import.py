"""Foreign weights become a model, or an error that lists what does not fit; nothing in the file is ever run."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from acclimate import networks
from acclimate.cli import main
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.exchange.import_ import import_weights


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    net = networks.build("dann-mnist", classes=3, norm="batch")
    torch.save({"state_dict": net.module.state_dict()}, tmp_path / "theirs.pt")
    return net, tmp_path / "theirs.pt"


def test_round_trip(weights, tmp_path):
    net, file = weights
    settings = {"norm": "batch"}
    made = import_weights(
        file,
        network="dann-mnist",
        classes=("a", "b", "c"),
        folder=tmp_path / "m",
        settings=settings,
        mean=[0.1, 0.2, 0.3],
    )
    again = Model.load(tmp_path / "m")
    assert again.method.name == "source-only"
    assert again.preprocess == made.preprocess
    assert again.preprocess.mean == (0.1, 0.2, 0.3)
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(again.method.predict(x), net.eval()(x).logits)
    with pytest.raises(UsageError, match="already holds"):
        import_weights(file, network="dann-mnist", classes=("a", "b", "c"), folder=tmp_path / "m", settings=settings)


def test_a_segmentation_network_is_recognised(tmp_path):
    net = networks.build("unet", classes=2, channels=1, width=2, depth=1)
    torch.save(net.state_dict(), tmp_path / "w.pth")  # with acclimate's own prefix
    settings = {"width": 2, "depth": 1}
    made = import_weights(
        tmp_path / "w.pth", network="unet", classes=("a", "b"), folder=tmp_path / "m", settings=settings, channels=1
    )
    assert made.method.task.name == "segmentation"


def test_what_does_not_fit_is_listed(weights, tmp_path):
    _, file = weights
    with pytest.raises(DataError) as error:
        import_weights(file, network="dann-mnist", classes=("a", "b"), folder=tmp_path / "m")
    said = str(error.value)
    assert "shape       head.4.weight: (3, 100) in the file, (2, 100) in the network" in said
    assert "unexpected  body.1.running_mean" in said
    assert "missing     body.0.bias" in said
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("classes", [("a", "a", "b"), ("a", "", "b")])
def test_class_names_differ(weights, tmp_path, classes):
    with pytest.raises(UsageError, match="class names"):
        import_weights(weights[1], network="dann-mnist", classes=classes, folder=tmp_path / "m")


class Harm:
    """What a hostile file holds."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_file_is_refused_and_not_run(tmp_path, capsys, legacy):
    file = tmp_path / "hostile.pt"
    if legacy:
        file.write_bytes(pickle.dumps({"state_dict": Harm(str(tmp_path / "owned"))}, protocol=2))
    else:
        torch.save({"state_dict": Harm(str(tmp_path / "owned"))}, file)
    words = ["import", str(file), "--network", "dann-mnist", "--classes", "a,b", "--out", str(tmp_path / "m")]
    assert main(words) == 3
    assert "nothing" in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "m").exists()


def test_the_verb_leads_to_the_next_one(weights, tmp_path, capsys):
    words = ["import", str(weights[1]), "--network", "dann-mnist", "--network-set", "norm=batch", "--classes", "a,b,c"]
    assert main([*words, "--out", str(tmp_path / "m"), "--std", "0.2"]) == 0
    answer = capsys.readouterr()
    assert "3 classes, classification" in answer.out
    assert f"acclimate adapt --model {tmp_path / 'm'} --target UNLABELLED" in answer.err
