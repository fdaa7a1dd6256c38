"""Recipes: what they name exists, variants share a file, and the long ones run on small files of their data's layout."""

from __future__ import annotations

import copy
import gzip
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate import recipes, registry
from acclimate.data import open_splits
from acclimate.data.catalog.office_31 import CARD as OFFICE_31
from acclimate.engine.model import Model
from acclimate.errors import UsageError
from acclimate.experiment import BASELINE, ORACLE, Experiment, carry_out
from acclimate.files import read_json
from acclimate.methods import find
from acclimate.networks import card
from acclimate.networks.resnet import ResNet

TRAIN, TEST = 30, 12


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that ``ACCLIMATE_DATA`` names, and another one to work in."""
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("ACCLIMATE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "data"


def labels_of(count: int) -> np.ndarray:
    """0, 1, ..., 9, 0, ...: more of the first digits where ``count`` is not a multiple of ten."""
    return np.arange(count) % 10


def write_mat(root: Path, pattern: str, zero: int) -> None:
    """Colour digits as MATLAB files: ``X (32, 32, 3, N)``, ``y (N, 1)`` with ``zero`` for the digit 0."""
    savemat = pytest.importorskip("scipy.io").savemat
    root.mkdir()
    for split, count in (("train", TRAIN), ("test", TEST)):
        x = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        y = labels_of(count)
        savemat(root / pattern.format(split), {"X": x, "y": np.where(y == 0, zero, y).astype(np.uint8)[:, None]})


def write_idx(root: Path) -> None:
    """MNIST's four files."""
    root.mkdir()
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        x = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", x), ("labels-idx1", labels_of(count).astype(np.uint8))):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (root / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))


def write_office(root: Path) -> None:
    """One or two photographs of each class, domain by domain in another size."""
    rng = np.random.default_rng(0)
    for split, side, most in (("amazon", 40, 2), ("dslr", 56, 1), ("webcam", 48, 2)):
        for label, name in enumerate(OFFICE_31.classes):
            folder = root / split / "images" / name
            folder.mkdir(parents=True)
            for number in range(1 + label % most):
                pixels = rng.integers(0, 256, (side, side - 8 * number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"frame_{number:04d}.jpg")


WRITE = {
    "svhn": lambda root: write_mat(root, "{}_32x32.mat", 10),
    "syn-digits": lambda root: write_mat(root, "synth_{}_32x32.mat", 0),
    "mnist": write_idx,
    "office-31": write_office,
}


def shortened(name: str, steps: int, batch: int = 8, **changes: Any) -> Experiment:
    """A packaged recipe as it is, but for the number and size of its steps."""
    fields = copy.deepcopy(recipes.load(name).fields)
    fields["plan"] |= {"steps": steps, "batch": batch, "log_every": steps}
    for own in fields.get("plans", {}).values():
        own |= {key: value for key, value in (("steps", steps), ("batch", batch)) if key in own}
    fields["plans"]["shot"]["steps"] = steps
    for key, value in changes.items():
        fields[key] |= value
    return Experiment(**fields)


def run(name: str, place: Path, steps: int = 2, **changes: Any) -> tuple[dict[str, Any], Path]:
    """Carry out a shortened recipe on small files; what it says, and where it lies."""
    experiment = shortened(name, steps, **changes)
    for ref in {str(experiment.source), experiment.target}:
        root = place / ref.partition(":")[0]
        if not root.exists():
            WRITE[root.name](root)
    folder = place.parent / "run"
    said = carry_out(experiment, folder, score=True, device="cpu")
    assert read_json(folder / "results.json")["players"].keys() == said["players"].keys()
    return said, folder


@pytest.mark.parametrize("name", recipes.names(variants=True))
def test_what_a_recipe_names_exists(name: str) -> None:
    recipe = recipes.load(name)
    experiment = recipe.experiment()
    assert recipe.expected_text
    assert set(experiment.methods) <= set(registry.names("methods"))
    for ref in (str(experiment.source), experiment.target):
        head, _, split = ref.partition(":")
        known = registry.load("datasets", head).card.splits
        assert not split or {split, f"{split}-train"} & set(known)
    task = card(str(experiment.network)).task
    players = {BASELINE, ORACLE, *experiment.methods}
    assert players >= experiment.plans.keys() | experiment.settings.keys()
    for player in players:
        kind = find(player)
        assert task in kind.card.tasks
        kind.Settings(**experiment.settings.get(player, {}))
        experiment.plan.replace(**experiment.plans.get(player, {}))


@pytest.mark.parametrize("name", ["svhn-to-mnist", "mnist-to-svhn", "syn-digits-to-svhn"])
def test_digits_run_from_files_to_results(place: Path, name: str) -> None:
    said, folder = run(name, place)
    assert list(said["players"]) == [BASELINE, "dann", "shot", "vada", "dirt-t", ORACLE]
    assert said["classes"] == list("0123456789")
    counts = np.bincount(labels_of(TEST), minlength=10).tolist()
    for player in said["players"].values():
        facts = player["seeds"]["0"]
        assert np.sum(facts["target_test"]["confusion"], 1).tolist() == counts  # the label 10 is the digit 0
        assert np.sum(facts["source_test"]["confusion"], 1).tolist() == counts
        assert facts["source_test"]["images"] == facts["target_test"]["images"] == TEST
    assert {role: facts["images"] for role, facts in said["domains"].items()} == {
        "source": TRAIN,
        "source_test": TEST,
        "target": TRAIN,
        "target_test": TEST,
    }
    for player in said["players"]:
        model = Model.load(folder / "seed-0" / player)
        recipe = model.method.net.recipe
        assert recipe is not None
        assert recipe["name"] == ("dtn" if name == "svhn-to-mnist" else "vada-small")
        assert recipe["settings"].get("instance_norm", False) == (name == "mnist-to-svhn")
        assert model.preprocess.size == (32, 32)
        assert (model.preprocess.mean, model.preprocess.std) == (0.5, 0.5)  # [-1, 1]
        index, logits = next(model.logits(open_splits(said["domains"]["target_test"]["name"])[1].subset([0, 1])))
        assert (len(index), tuple(logits.shape)) == (2, (2, 10))


@pytest.fixture
def imagenet(place: Path) -> Path:
    """What the Office recipes find under the name of torchvision's file: the weights of a smaller network."""
    torch.manual_seed(0)
    path = Path("resnet50-0676ba61.pth")
    torch.save(ResNet(18, 1000).state_dict(), path)
    return path


SMALL = {"network_settings": {"depth": 18}, "preprocess": {"size": 32}}


def test_office_runs_transductively_from_files_to_results(place: Path, imagenet: Path) -> None:
    said, folder = run("office-31-webcam-to-amazon", place, steps=1, **SMALL)
    assert list(said["players"]) == [BASELINE, "dan", "dann", "shot"]
    domains = said["domains"]
    assert domains["target"] == domains["target_test"]
    assert (domains["target"]["name"], domains["target"]["images"]) == ("office-31:amazon", 31 + 15)
    assert (domains["source"]["name"], domains["source"]["images"]) == ("office-31:webcam", 31 + 15)
    assert "source_test" not in domains
    counts = [1 + label % 2 for label in range(31)]
    for player in said["players"].values():
        assert player["seeds"]["0"]["source_test"] is None
        assert np.sum(player["seeds"]["0"]["target_test"]["confusion"], 1).tolist() == counts
    imagenet.unlink()  # a finished model needs no such file
    model = Model.load(folder / "seed-0" / "dann")
    assert model.method.net.shapes["features"] == (256,)
    assert model.method.net.lr_scales["layer4"] == 0.1
    assert model.preprocess.mean == (0.485, 0.456, 0.406)
    assert model.preprocess.size == (32, 32)


def test_office_s_six_directions_share_a_file() -> None:
    found = [recipes.load(name) for name in recipes.names(variants=True) if name.startswith("office-31")]
    pairs = {(r.fields["source"], r.fields["target"]) for r in found}
    assert pairs == {
        (f"office-31:{a}", f"office-31:{b}") for a, b in itertools.permutations(("amazon", "dslr", "webcam"), 2)
    }
    assert len({r.title for r in found}) == len({r.expected_text for r in found}) == 6
    shared = [{**r.fields, "source": None, "target": None} for r in found]
    assert all(fields == shared[0] for fields in shared)
    listed = [name for name in recipes.names() if name.startswith("office-31")]
    assert listed == ["office-31"]
    first = recipes.load("office-31")
    assert len(first.variants) == 5
    assert recipes.load(first.variants[0]).variants == ()
    assert all(name in first.lines()[0] for name in first.variants)
    with pytest.raises(UsageError, match="did you mean 'office-31-dslr-to-amazon'"):
        recipes.load("office-31-dslr-to-amazn")


def test_variants_of_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('title = "a"\ntarget = "x"\n[plan]\nsteps = 3\n[variants.one]\ntarget = "y"\n[variants.two]\n')
    itself, one, two = (recipes.load(f"{path}{name}") for name in ("", ":one", ":two"))
    assert (itself.fields["target"], one.fields["target"], two.fields["target"]) == ("x", "y", "x")
    assert itself.fields["plan"] == one.fields["plan"] == two.fields["plan"] == {"steps": 3}
    assert (itself.variants, one.variants) == ((f"{path}:one", f"{path}:two"), ())
    with pytest.raises(UsageError, match=r"did you mean '.*own\.toml:two'"):
        recipes.load(f"{path}:tow")
    (tmp_path / "plain.toml").write_text('title = "a"\ntarget = "x"\n')
    assert recipes.load(str(tmp_path / "plain.toml")).fields == {"target": "x"}
    with pytest.raises(UsageError, match=r"unknown recipe '.*plain\.toml:one'"):
        recipes.load(f"{tmp_path / 'plain.toml'}:one")


def test_without_a_holdout_a_domain_is_tested_whole(place: Path) -> None:
    write_office(place / "office-31")
    train, test = open_splits("office-31:dslr", 0)
    assert train is test
    assert len(test) == 31
    WRITE["mnist"](place / "mnist")
    assert [len(part) for part in open_splits("mnist", 0)] == [TRAIN, TEST]  # its own splits stay
