import dataclasses

import numpy as np
import pytest
import runs
import torch
import toys

from acclimate.data.preprocess import Preprocess
from acclimate.engine import adapt as engine
from acclimate.engine.evaluate import evaluate
from acclimate.errors import UsageError
from acclimate.plan import Optimiser, Plan
from acclimate.selection import reverse
from acclimate.selection.reverse import predicted, reverse_validation

HOW = Plan(precision="float32", optimiser=Optimiser(lr=0.02))


@pytest.fixture(scope="module", params=runs.TASKS)
def trained(request):
    """A source-only model, its source, held-out source images, and a target that differs little."""
    source, target, _ = toys.PAIRS[request.param](count={"classification": 300, "segmentation": 40}[request.param])
    source, source_test = source.holdout(0.3)
    plan = HOW.replace(steps=80, batch=16)
    made = runs.start("source-only", request.param, how=plan, pair=(source, None)).model
    return made, source, source_test, target


def spoilt(model, seed=0):
    """The same model with logits that are noise: its labels of the target mean nothing."""
    made = dataclasses.replace(model)
    generator = torch.Generator().manual_seed(seed)

    def logits(domain, memory_budget=0.0):
        for index, z in model.logits(domain):
            yield index, torch.randn(z.shape, generator=generator)

    made.logits = logits
    return made


def test_right_labels_lead_back_and_noise_does_not(trained):
    """In reverse onto the source itself: the model's labels there are nearly right."""
    model, source, source_test, _ = trained
    plan = HOW.replace(steps=40, batch=16)
    good = reverse_validation(model, source, source_test, source, plan)
    bad = reverse_validation(spoilt(model), source, source_test, source, plan)
    assert good > bad + 0.2
    assert good == pytest.approx(evaluate(model, source_test).value, abs=0.15)


def test_labels_are_the_predictions(trained):
    model, _, _, target = trained
    found = predicted(model, target.unlabelled())
    assert found.classes == model.method.task.classes
    assert np.asarray(found.labels[0]).dtype == np.uint8
    assert found.images is target.images
    assert evaluate(model, found).value == 1
    assert evaluate(model, dataclasses.replace(found, labels=list(target.labels))).value < 1


def test_is_keyed(trained):
    model, source, source_test, target = trained
    before = {name: value.clone() for name, value in model.method.state_dict().items()}
    plan = HOW.replace(steps=3, batch=8, seed=3)
    torch.manual_seed(1)
    first = reverse_validation(model, source, source_test, target, plan)
    torch.manual_seed(2)
    assert reverse_validation(model, source, source_test, target, plan) == first
    runs.assert_same(before, model.method.state_dict())  # the model itself is not trained


@pytest.fixture
def calls(monkeypatch):
    """What each training of a reverse validation was given."""
    seen = []

    def adapt(net, source, target, method, **given):
        seen.append({"net": net, "source": source, "target": target, "method": method, **given})
        return engine.adapt(net, source, target, method, **given)

    monkeypatch.setattr(reverse, "adapt", adapt)
    return seen


def test_domains_change_places_and_weights_go_on(calls):
    source, target, source_test = runs.small("classification")
    model = runs.start("dann", weight=0.3).model
    reverse_validation(model, source, source_test, target, HOW.replace(steps=2, batch=8, seed=5))
    (call,) = calls
    assert call["net"] is model.method.net
    assert call["source"].images is target.images
    assert call["source"].labels is not target.labels
    assert call["target"].images is source.images
    assert call["target"].labels is None
    assert call["method"] is type(model.method)
    assert call["weight"] == 0.3
    assert (call["plan"].steps, call["plan"].batch, call["plan"].seed) == (2, 8, 5)
    assert call["plan"].optimiser == HOW.optimiser


@pytest.mark.parametrize("name", ["adabn", "self-training", "shot"])
def test_methods_that_start_from_a_source_model_get_one(calls, name):
    task = "classification"
    source, target, source_test = runs.small(task)
    model = runs.start(name, task).model
    found = reverse_validation(model, source, source_test, target, HOW.replace(steps=3, batch=8))
    assert 0 <= found <= 1
    assert [call["method"] for call in calls] == ["source-only", type(model.method)]
    assert calls[0]["net"] is model.method.net
    assert calls[0]["target"] is None
    assert calls[1]["net"] is not model.method.net


@pytest.mark.parametrize("name", ["trained-on-target", "memory-bank-few"])
def test_methods_that_read_target_labels_are_refused(name):
    kind = reverse.Model(runs.start("source-only", "segmentation").model.method, Preprocess(), torch.device("cpu"))
    kind.method.needs = runs.find(name).needs
    source, target, source_test = runs.small("segmentation")
    with pytest.raises(UsageError, match="cannot run in reverse"):
        reverse_validation(kind, source, source_test, target, HOW.replace(steps=1, batch=2))


def test_scales_change_places(calls):
    """The target at half size: in reverse the source is what is seen at half size, and it keeps its own."""
    source, target, source_test = runs.small("segmentation")
    scaled = toys.PREPROCESS["segmentation"].replace(scale=(1.0, 0.5))
    model = runs.start("dann", "segmentation", preprocess=scaled).model
    reverse_validation(model, source, source_test, target, HOW.replace(steps=2, batch=4))
    assert calls[0]["preprocess"].scale == (0.5, 1.0)
    assert np.asarray(calls[0]["source"].labels[0]).shape == np.asarray(target.labels[0]).shape


def test_poisoned_labels_are_never_read():
    class Poison:
        def __len__(self):
            return runs.SMALL["classification"]

        def __getitem__(self, index):
            raise AssertionError("a label was read")

    source, target, source_test = runs.small("classification")
    model = runs.start("dann").model
    hidden = [dataclasses.replace(domain, labels=Poison()) for domain in (source, target)]
    reverse_validation(model, hidden[0], source_test, hidden[1], HOW.replace(steps=2, batch=8))
