"""Evidence: what is shown, in which order, and that no target label is read unless the experiment scores."""

from __future__ import annotations

import copy
import dataclasses
import types

import numpy as np
import pytest
import torch

from acclimate.data.domain import Domain
from acclimate.engine import seeing
from acclimate.engine.checkpoint import read_tensors
from acclimate.experiment import Domains
from acclimate.files import read_json
from acclimate.methods import find
from acclimate.networks.contract import Output
from acclimate.report import evidence


def test_disagreements_come_first_and_the_most_confident_before_others(runs):
    shown = read_json(runs["classification", True].folder / "evidence.json")["examples"]
    after = [item["predictions"][shown["compared"]] for item in shown["items"]]
    changed = [prediction["changed"] for prediction in after]
    assert shown["compared"] == "dann"
    assert changed == sorted(changed, reverse=True)
    assert 0 < sum(changed) <= shown["changed"]
    sure = [prediction["confidence"] for prediction in after if prediction["changed"]]
    assert sure == sorted(sure, reverse=True)


def test_segmented_images_are_ordered_by_the_share_of_changed_pixels(runs):
    found = runs["segmentation", True]
    shown, tensors = (
        read_json(found.folder / "evidence.json")["examples"],
        read_tensors(found.folder / evidence.TENSORS),
    )
    changed = [item["predictions"]["self-training"]["changed"] for item in shown["items"]]
    assert changed == sorted(changed, reverse=True)
    before, after, truth = (
        tensors[f"{name}/0"] for name in ("prediction/source-only", "prediction/self-training", "truth")
    )
    assert changed[0] == pytest.approx((before != after).float().mean().item())
    right = shown["items"][0]["predictions"]["self-training"]["right"]
    assert right == pytest.approx((after == truth).float().mean().item())


def test_nothing_of_the_target_s_labels_is_there_when_the_run_does_not_score(runs):
    found = runs["classification", False]  # its target labels raise when they are read
    facts, tensors = read_json(found.folder / "evidence.json"), read_tensors(found.folder / evidence.TENSORS)
    assert all(item["truth"] is None for item in facts["examples"]["items"])
    assert all(p["right"] is None for item in facts["examples"]["items"] for p in item["predictions"].values())
    assert not [name for name in tensors if name.startswith("truth")]


def test_source_free_runs_and_repeats_give_the_same_evidence(runs, tmp_path):
    done = runs["classification", False]
    domains = Domains(None, None, done.domains.target, None)
    for folder in (tmp_path / "one", tmp_path / "two"):
        evidence.gather(domains, done.players[:2], folder)
    facts, tensors = (read(tmp_path / "one") for read in (lambda p: read_json(p / evidence.FACTS), _tensors))
    assert facts["source shares"] is None
    assert facts["embeddings"]["counts"] == {"target": 60}
    assert facts["embeddings"]["separability"]["adabn"] is None
    again = _tensors(tmp_path / "two")
    assert tensors.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in tensors.items())


def test_changed_pixels_are_counted_by_what_became_of_them(runs):
    found = runs["segmentation", True]
    shown, tensors = read_json(found.folder / evidence.FACTS)["examples"], _tensors(found.folder)
    before, after, truth = (
        tensors[f"{name}/0"] for name in ("prediction/source-only", "prediction/self-training", "truth")
    )
    by_hand = {
        "corrected": (before != truth) & (after == truth),
        "newly_wrong": (before == truth) & (after != truth),
        "still_wrong": torch.zeros(1),  # of two classes one is right
        "not_labelled": torch.zeros(1),
    }
    item = shown["items"][0]
    assert item["became"] == pytest.approx({name: share.float().mean().item() for name, share in by_hand.items()})
    after = item["predictions"]
    gained = after["self-training"]["right"] - after["source-only"]["right"]
    assert item["became"]["corrected"] - item["became"]["newly_wrong"] == pytest.approx(gained)
    assert len(shown["items"]) == shown["looked at"]
    mean = np.mean([item["became"]["corrected"] for item in shown["items"]])
    assert shown["became"]["corrected"] == pytest.approx(mean)


def test_without_labels_a_changed_pixel_is_a_changed_pixel(runs):
    shown = read_json(runs["segmentation", False].folder / evidence.FACTS)["examples"]  # its target labels raise
    for item in shown["items"]:
        assert item["became"]["not_labelled"] == pytest.approx(item["predictions"]["self-training"]["changed"])
        assert item["became"]["corrected"] == item["became"]["newly_wrong"] == 0


def test_source_images_are_shown_beside_what_a_method_makes_of_them(runs):
    done = runs["segmentation", False]
    (facts,), tensors = read_json(done.folder / evidence.FACTS)["translated"], _tensors(done.folder)
    assert (facts["player"], len(facts["names"])) == ("adabn", evidence.TRANSLATED)
    for i, name in enumerate(facts["names"]):
        image = np.asarray(done.domains.source.images[list(done.domains.source.names).index(name)])
        np.testing.assert_array_equal(tensors[f"source/{i}"], image)
        np.testing.assert_allclose(tensors[f"translated/adabn/{i}"], image / 2, atol=0.5)
        assert facts["change"][i] == pytest.approx(image.mean() / 2, abs=0.5)
    assert read_json(runs["segmentation", True].folder / evidence.FACTS)["translated"] == []


def test_pixels_have_their_own_features_and_classes(runs):
    """A network whose only feature is the grey value: each class's pixels have the values that the labels say."""
    done = runs["segmentation", True]
    model = copy.copy(done.players[0].model)
    model.method = copy.deepcopy(model.method)
    model.method.net.forward = lambda x: Output(torch.cat([-x, x], 1), x, {})
    model.method.net.aligned = lambda output: output.features
    source, target = done.domains.source, done.domains.target.unlabelled()
    x, classes = evidence.at_pixels(model, source, "source")
    assert np.bincount(classes).tolist() == [min(150, 8 * len(source))] * 2
    grey = [np.concatenate([np.asarray(i)[..., 0][np.asarray(m) == k] for i, m in _pairs(source)]) for k in (0, 1)]
    for k in (0, 1):
        assert np.isin(x[classes == k].round(4), (grey[k] / 127.5 - 1).astype(np.float32).round(4)).all()
        assert x[classes == k].mean() == pytest.approx(grey[k].mean() / 127.5 - 1, abs=0.05)
    x, classes = evidence.at_pixels(model, target, "target")
    assert ((x[:, 0] > 0) == classes).all()  # where there is no label the prediction is the class


def _pairs(domain):
    return zip(domain.images, domain.labels)


def test_pieces_of_large_images_give_the_features_of_the_whole(runs, monkeypatch):
    done = runs["segmentation", True]
    model, source = done.players[0].model, done.domains.source
    model = dataclasses.replace(model, method=copy.deepcopy(model.method))
    pointwise = torch.nn.Conv2d(1, 12, 1)
    model.method.net.forward = lambda x: Output(model.method.net.head(pointwise(x)), pointwise(x), {})
    whole = evidence.features(model, source, "source")
    monkeypatch.setattr(seeing, "PIECE", 16)  # the images have 32 x 32 pixels
    np.testing.assert_allclose(evidence.features(model, source, "source"), whole, atol=1e-5)
    assert evidence.at_pixels(model, source, "source")[0].shape[1] == 12


def test_a_method_that_reads_target_labels_is_compared_only_where_no_other_is(runs):
    done = runs["segmentation", False]
    first, second = done.players[:2]
    few = dataclasses.replace(second, method="few", model=_called(second.model, "memory-bank-few"))
    assert evidence.compared([first, second, few]) is second
    assert evidence.compared([first, few]) is few
    assert evidence.compared([first]) is first


def _called(model, name):
    """The same model under the name of another method."""
    method = copy.copy(model.method)
    method.name = name
    return dataclasses.replace(model, method=method)


def _tensors(folder):
    return read_tensors(folder / evidence.TENSORS)


def test_gathering_leaves_the_models_as_they_were(runs, tmp_path):
    done = runs["classification", True]
    before = [{k: v.clone() for k, v in p.model.method.state_dict().items()} for p in done.players]
    evidence.gather(done.domains, done.players[:2], tmp_path)
    for state, player in zip(before, done.players):
        assert all(torch.equal(value, state[name]) for name, value in player.model.method.state_dict().items())


def test_settings_are_fully_resolved(runs):
    described = {p["name"]: p for p in read_json(runs["classification", True].folder / evidence.FACTS)["players"]}
    assert described["dann"]["label"] == "DANN"
    assert described["source-only"]["label"] == "source-only"
    assert described["dann"]["settings"]["method"]["hidden"] == [100]
    assert described["dann"]["settings"]["plan"]["optimiser"]["schedule"] == "dann"  # the method's own default


def test_large_images_and_maps_shrink_together():
    image = np.zeros((300, 1000, 3), np.uint8)
    image[:, 500:] = 200
    label = (image[..., 0] > 0).astype(np.int64)
    small, map_ = evidence.smaller(image), evidence.shrink(label)
    assert small.shape == (77, 256, 3)
    assert map_.shape == (77, 256)
    assert np.array_equal(map_ == 1, small[..., 0] > 100)


def test_principal_components_agree_with_scikit_learn():
    from sklearn.decomposition import PCA

    x = np.random.default_rng(0).standard_normal((80, 200))
    ours, theirs = evidence.reduce(x), PCA(50, svd_solver="full").fit_transform(x)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-8)


def test_separability_is_half_for_one_distribution_and_one_for_two():
    rng = np.random.default_rng(0)
    x, domain = rng.standard_normal((400, 5)), np.repeat([0, 1], 200)
    assert evidence.separability(x, domain) == pytest.approx(0.5, abs=0.1)
    assert evidence.separability(x + 5 * domain[:, None], domain) > 0.99
    assert evidence.separability(x[:205], domain[:205]) is None  # five images say nothing
    assert evidence.separability(x[:219], domain[:219]) is None
    assert evidence.separability(x[:220], domain[:220]) is not None


def test_two_clusters_are_told_apart_although_there_are_more_features_than_images():
    """22 images a domain, 64 features, in a quarter of which the clusters lie three of their widths apart."""
    rng = np.random.default_rng(0)
    domain = np.repeat([0, 1], 22)
    x = rng.standard_normal((44, 64))
    assert evidence.separability(x, domain) == pytest.approx(0.5, abs=0.2)
    x[:, :16] += 3 * domain[:, None]
    assert evidence.separability(x, domain) > 0.95
    assert evidence.separability(x * np.geomspace(1e-3, 1e3, 64), domain) > 0.95  # whatever the features' units


def test_the_probe_sees_features_and_not_their_scaled_components(monkeypatch):
    """Of 22 images a domain: components of all of them, each scaled, make every two images equally far apart."""
    method = types.SimpleNamespace(task=types.SimpleNamespace(name="segmentation"), needs=find("dann").needs)
    player = types.SimpleNamespace(method="source-only", model=types.SimpleNamespace(method=method))
    rng = np.random.default_rng(0)
    clusters = {
        "source": rng.standard_normal((22, 64)),
        "target": rng.standard_normal((22, 64)) + np.repeat([3, 0], [16, 48]),
    }
    monkeypatch.setattr(evidence, "features", lambda model, domain, name: clusters[name])
    monkeypatch.setattr(evidence, "in_two_dimensions", lambda x: np.zeros((len(x), 2), np.float32))
    blank = np.zeros((22, 4, 4, 3), np.uint8)
    domains = {
        role: Domain(role, "segmentation", ("a", "b"), blank, None, [str(i) for i in range(22)]) for role in clusters
    }
    found = evidence.embeddings(types.SimpleNamespace(**domains), [player], {})
    assert found["separability"]["source-only"] > 0.95


@pytest.mark.parametrize("points", [np.zeros((30, 4)), np.arange(6.0)[:, None]])
def test_collapsed_or_few_features_still_embed(points):
    placed = evidence.in_two_dimensions(points)
    assert np.isfinite(placed).all()
    assert placed.min() >= 0
    assert placed.max() <= 1
