"""Evidence: what is shown, in which order, and that no target label is read unless the experiment scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.engine.checkpoint import read_tensors
from acclimate.experiment import Domains
from acclimate.files import read_json
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


@pytest.mark.parametrize("points", [np.zeros((30, 4)), np.arange(6.0)[:, None]])
def test_collapsed_or_few_features_still_embed(points):
    placed = evidence.in_two_dimensions(points)
    assert np.isfinite(placed).all()
    assert placed.min() >= 0
    assert placed.max() <= 1


def test_a_subset_is_the_same_each_time(runs):
    source = runs["classification", True].domains.source
    a, b = (evidence.some(source, 10, "test") for _ in range(2))
    assert a.names == b.names
    assert len(a) == 10
