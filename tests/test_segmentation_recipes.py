"""Recipes of streets and of vessels, from small files in the layouts that the authors publish to results."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate import recipes
from acclimate.data.catalog.cityscapes import STREET_CLASSES
from acclimate.engine.model import Model
from acclimate.experiment import BASELINE, ORACLE, Experiment, carry_out
from acclimate.files import read_json
from acclimate.networks.resnet import ResNet

STREET_IDS = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33, 4])  # the last is void
SYNTHIA_IDS = np.array([3, 4, 2, 21, 5, 7, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11, 0])
GAME, RENDERED, CITY, EYE = (36, 66), (32, 54), (32, 64), (60, 64)  # height, width
IN_16 = [name not in ("terrain", "truck", "train") for name in STREET_CLASSES]
IN_13 = [name not in ("terrain", "truck", "train", "wall", "fence", "pole") for name in STREET_CLASSES]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that ``ACCLIMATE_DATA`` names, and another one to work in."""
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "data"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array if array.dtype == bool else array.astype(np.uint8)).save(path)


def picture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3))


def ids(seed: int, shape: tuple[int, int], known: np.ndarray) -> np.ndarray:
    """Blocks of 4 x 4 pixels, each of one class."""
    height, width = (-(-side // 4) for side in shape)
    blocks = np.random.default_rng(seed + 100).choice(known, (height, width))
    return np.kron(blocks, np.ones((4, 4), int))[: shape[0], : shape[1]]


def write_gta5(root: Path) -> None:
    """Six pairs; the mask of the third has another size."""
    for number in range(1, 7):
        shape = (GAME[0] + 1, GAME[1]) if number == 3 else GAME
        save(root / "images" / f"{number:05d}.png", picture(number, GAME))
        save(root / "labels" / f"{number:05d}.png", ids(number, shape, STREET_IDS))


def write_synthia(root: Path) -> None:
    for number in range(5):
        save(root / "RGB" / f"{number:07d}.png", picture(number, RENDERED))
        save(root / "GT" / "LABELS" / f"{number:07d}.png", ids(number, RENDERED, SYNTHIA_IDS))


def write_cityscapes(root: Path) -> None:
    for split, count in (("train", 4), ("val", 3)):
        for number in range(count):
            stem = f"{split}/ulm/ulm_{number}"
            save(root / "leftImg8bit" / f"{stem}_leftImg8bit.png", picture(number + 50, CITY))
            save(root / "gtFine" / f"{stem}_gtFine_labelIds.png", ids(number + 50, CITY, STREET_IDS))


def eye(seed: int) -> np.ndarray:
    rows, columns = np.indices(EYE)
    lit = (rows - 30) ** 2 + (columns - 32) ** 2 < 28**2
    return np.where(lit[..., None], 60 + picture(seed, EYE) // 2, 0)


def vessels(seed: int) -> np.ndarray:
    return ids(seed, EYE, np.array([0, 0, 255])) > 0


def write_drive(root: Path) -> None:
    for part in ("training", "test"):
        for number in (1, 2, 3):
            save(root / part / "images" / f"{number:02d}_{part}.tif", eye(number))
            save(root / part / "1st_manual" / f"{number:02d}_manual1.gif", vessels(number))
            save(root / part / "mask" / f"{number:02d}_{part}_mask.gif", eye(0)[..., 0] > 0)


def write_chase(root: Path) -> None:
    for child in (1, 2, 13):
        for side in "LR":
            save(root / f"Image_{child:02d}{side}.jpg", eye(child))
            save(root / f"Image_{child:02d}{side}_1stHO.png", vessels(child))


WRITE: dict[str, Callable[[Path], None]] = {
    "gta5": write_gta5,
    "synthia": write_synthia,
    "cityscapes": write_cityscapes,
    "drive": write_drive,
    "chase": write_chase,
}


def run(name: str, place: Path, **changes: Any) -> tuple[dict[str, Any], Path]:
    """Carry out a recipe for two steps of its own batch size on small files; what it says, and where it lies."""
    fields = copy.deepcopy(recipes.load(name).fields)
    fields["plan"] |= {"steps": 2, "log_every": 2}
    for own in fields["plans"].values():
        own |= {"steps": 2} if "steps" in own else {}
    for key, value in changes.items():
        fields[key] = {**fields.get(key, {}), **value}
    experiment = Experiment(**fields)
    for ref in (str(experiment.source), experiment.target):
        WRITE[ref](place / ref)
    folder = place.parent / "run"
    said = carry_out(experiment, folder, score=True, device="cpu")
    assert read_json(folder / "results.json")["players"].keys() == said["players"].keys()
    return said, folder


def street(name: str, place: Path) -> tuple[dict[str, Any], Path]:
    """A recipe of streets with a network of its kind, but smaller, from a small file of weights."""
    torch.manual_seed(0)
    torch.save(ResNet(18, 1000).state_dict(), "resnet101-63fe2227.pth")
    small = {"network_settings": {"depth": 18}, "preprocess": {"crop": [16, 32]}}
    return run(name, place, **small, settings={"mic": {"block": 8}})


def counted() -> np.ndarray:
    """How many pixels of each of the 19 classes the three images of val hold, at their full size."""
    masks = np.stack([ids(number + 50, CITY, STREET_IDS) for number in range(3)])
    return (masks[..., None] == STREET_IDS[:19]).sum((0, 1, 2))


def ious(confusion: list[list[int]]) -> np.ndarray:
    counts = np.array(confusion, float)
    return np.array([row[k] / (row.sum() + counts[:, k].sum() - row[k]) for k, row in enumerate(counts)])


def test_gta5_leaves_out_what_does_not_fit_and_scores_val_at_full_size(place: Path) -> None:
    said, folder = street("gta5-to-cityscapes", place)
    assert list(said["players"]) == [BASELINE, "adaptsegnet", "mic"]
    assert said["classes"] == list(STREET_CLASSES)
    domains = said["domains"]
    assert {role: facts["images"] for role, facts in domains.items()} == {"source": 5, "target": 4, "target_test": 3}
    assert (domains["target"]["name"], domains["target_test"]["name"]) == ("cityscapes:train", "cityscapes:val")
    assert domains["source"]["facts"]["unusable"]["files"] == ["images/00003.png"]
    for player in said["players"].values():
        found = player["seeds"]["0"]["target_test"]
        assert np.sum(found["confusion"], 1).tolist() == counted().tolist()
        assert found["scores"]["mIoU"] == pytest.approx(ious(found["confusion"]).mean())
        assert found["scores"]["mIoU 13"] == pytest.approx(ious(found["confusion"])[IN_13].mean())
    assert Model.load(folder / "seed-0" / "adaptsegnet").method.settings.auxiliary == "conv4"  # type: ignore[attr-defined]
    model = Model.load(folder / "seed-0" / "mic")
    assert model.preprocess.scale == (0.66876, 0.5)
    recipe = model.method.net.recipe or {}
    assert (recipe["name"], recipe["settings"]["batch_norm"]) == ("deeplab-v2", "frozen-affine")
    assert model.method.net.lr_scales["layer4"] == 0.1


def test_synthia_scores_sixteen_classes_and_thirteen(place: Path) -> None:
    said, _ = street("synthia-to-cityscapes", place)
    assert list(said["players"]) == [BASELINE, "adaptsegnet", "mic"]
    assert said["classes"] == [name for name, known in zip(STREET_CLASSES, IN_16) if known]
    assert {role: facts["images"] for role, facts in said["domains"].items()} == {
        "source": 5,
        "target": 4,
        "target_test": 3,
    }
    thirteen = np.array(IN_13)[IN_16]
    for player in said["players"].values():
        found = player["seeds"]["0"]["target_test"]
        assert np.sum(found["confusion"], 1).tolist() == counted()[IN_16].tolist()  # the three others are not counted
        each = ious(found["confusion"])
        assert found["primary"] == "mIoU"
        assert found["scores"]["mIoU"] == pytest.approx(each.mean())
        assert found["scores"]["mIoU 13"] == pytest.approx(each[thirteen].mean())


@pytest.mark.parametrize("name", ["drive-to-chase", "chase-to-drive"])
def test_vessels_are_scored_inside_of_the_field_of_view(place: Path, name: str) -> None:
    said, folder = run(name, place, network_settings={"width": 4}, preprocess={"crop": 16})
    assert list(said["players"]) == [BASELINE, "adabn", "self-training", "fda", ORACLE]
    images = {"drive": (3, 3), "chase": (4, 2)}
    source, target = name.split("-to-")
    assert [facts["images"] for facts in said["domains"].values()] == [*images[source], *images[target]]
    pixels = images[target][1] * EYE[0] * EYE[1]
    for player in said["players"].values():
        found = player["seeds"]["0"]["target_test"]
        assert found["primary"] == "foreground IoU"
        assert 0.5 < np.sum(found["confusion"]) / pixels < 0.9
    model = Model.load(folder / "seed-0" / "fda")
    assert model.preprocess.scale == 0.5
    assert model.preprocess.channels == 3
