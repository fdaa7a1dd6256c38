"""A whole diagnosis of a small network on scenes whose shift is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate import networks
from acclimate.data.domain import Domain
from acclimate.data.perlin import scenes
from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis import diagnose as module
from acclimate.diagnosis.advisor import Advisor, Trial, images_to_label
from acclimate.diagnosis.diagnose import Diagnosis, diagnose
from acclimate.engine.adapt import adapt
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.plan import Optimiser, Plan
from acclimate.report.diagnosis import write_diagnosis
from acclimate.report.document import load_document
from acclimate.transforms.shifts import Shift


def domain(name: str, seed: int, count: int = 40, change: float = 0.0, sign: float = 1.0) -> Domain:
    """Objects of mean .6 on ground of mean .4, then x -> sign (x - .5) + .5 + change."""
    x, y = scenes(count, 32, inside=0.6, outside=0.4, sigma=0.07, generator=torch.Generator().manual_seed(seed))
    x = (sign * (x.float() / 255 - 0.5) + 0.5 + change).clamp(0, 1).mul(255).to(torch.uint8)
    return Domain(
        name,
        "segmentation",
        ("background", "object"),
        x.numpy(),
        y.numpy().astype(np.int16),
        [f"{name}-{i}" for i in range(count)],
    )


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    net = networks.build("unet", classes=2, channels=1, size=32, width=4, depth=2)
    plan = Plan(steps=120, batch=16, precision="float32", optimiser=Optimiser(kind="adam", lr=5e-3, schedule="poly"))
    preprocess = Preprocess(crop=(32, 32), channels=1)
    return adapt(
        net, domain("train", 0, 120), None, "source-only", plan=plan, preprocess=preprocess, device="cpu"
    ).model


@pytest.fixture(scope="module", autouse=True)
def fewer_windows() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOWS", 16)
        patch.setattr(module, "REFERENCE", 20)
        yield


def ask(model: Model | None, target: Domain, **more: object) -> Diagnosis:
    return diagnose(domain("source", 1), target, model, trials=36, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def brighter(model: Model) -> Diagnosis:
    return ask(model, domain("target", 2, change=0.3))


def test_brightness_is_found_and_adaptation_advised(brighter: Diagnosis) -> None:
    fired = {check.name: check for check in brighter.moved if check.fires}
    assert "brightness" in fired
    assert fired["brightness"].effect > 5
    assert brighter.gain is not None
    assert brighter.gain.predicted > 0.2
    assert brighter.verdict == "adapt"
    assert brighter.sentence.startswith("Adapt: ")
    first = brighter.layers[0]
    assert first.fires
    assert first.before > 3 * first.null_quantile
    assert first.after < first.before / 3


def test_nothing_to_gain_where_nothing_moved(model: Model) -> None:
    found = ask(model, domain("target", 2))
    assert found.verdict != "adapt"
    assert found.gain is not None
    assert abs(found.gain.predicted) < 0.03
    assert sum(check.fires for check in found.moved) <= 2


def test_inverted_contrast_is_not_advised(model: Model) -> None:
    assert ask(model, domain("target", 2, sign=-1.0)).verdict != "adapt"


def test_target_labels_are_not_read(model: Model, brighter: Diagnosis) -> None:
    target = domain("target", 2, change=0.3)
    poisoned = Domain("target", target.task, target.classes, target.images, [None] * len(target), target.names)
    again = ask(model, poisoned)
    assert again.model_dump(exclude={"seconds"}) == brighter.model_dump(exclude={"seconds"})


def test_the_model_is_left_as_it_was(model: Model) -> None:
    before = {name: value.clone() for name, value in model.method.state_dict().items()}
    ask(model, domain("target", 3, change=0.2))
    assert all(torch.equal(value, before[name]) for name, value in model.method.state_dict().items())


def test_budget_decides_how_much_is_tried(model: Model) -> None:
    source, target = domain("source", 1), domain("target", 2, change=0.3)
    quick = diagnose(source, target, model, budget=0.01)
    assert len(quick.tried) == module.LEAST
    seen: list[tuple[int, int]] = []
    diagnose(source, target, model, trials=25, progress=lambda done, wanted: seen.append((done, wanted)))
    assert seen[-1] == (25, 25)


def test_without_a_model_the_images_are_compared() -> None:
    found = ask(None, domain("target", 2, change=0.3))
    assert found.verdict is None
    assert found.layers == []
    assert "brightness" in found.sentence


def test_page_and_twin(brighter: Diagnosis, tmp_path: Path) -> None:
    page = write_diagnosis(brighter, tmp_path, "acclimate diagnose a b --model m", "acclimate adapt ...")
    assert brighter.sentence.split(":")[0] in page.read_text()
    document = load_document(tmp_path / "diagnosis.json")
    assert {figure.name for figure in document.figures()} == {"moved", "layers", "gain"}
    assert Diagnosis.model_validate(json.loads((tmp_path / "findings.json").read_text())) == brighter


def test_what_cannot_be_diagnosed_is_said(model: Model) -> None:
    target = domain("target", 2)
    with pytest.raises(DataError, match="too few"):
        diagnose(domain("source", 1, 3), target, model)
    with pytest.raises(UsageError, match="labels"):
        diagnose(domain("source", 1).unlabelled(), target, model)
    net = networks.build("unet", classes=2, channels=1, size=32, width=4, depth=2, norm="instance")
    plain = adapt(net, domain("train", 0, 16), None, "source-only", plan=Plan(steps=1, batch=4), device="cpu").model
    with pytest.raises(UsageError, match="no BatchNorm"):
        diagnose(domain("source", 1), target, plain)


# -- the advisor alone ------------------------------------------------------------------------------------------------


def trials(count: int, rule: float = 1.0, noise: float = 0.0) -> list[Trial]:
    """Gain = rule * (share that changes) * (sign that one fact tells)."""
    rng = np.random.default_rng(0)
    kinds = ["brightness", "noise", "blur", "scale", "gamma", "contrast"]
    found = []
    for i in range(count):
        differs, sign = rng.uniform(0, 0.8), rng.choice([-1.0, 1.0])
        facts = {"agreement": 1 - differs, "margin before": -sign, "margin after": sign, "other": rng.normal()}
        gain = differs * (rule * sign + noise * rng.uniform(-1, 1))
        found.append(Trial((Shift(family=kinds[i % 6], amount=0.5),), facts, 0.5, 0.5 + gain, 0.1))
    return found


def test_advisor_learns_a_rule_that_holds_for_kinds_it_has_not_seen() -> None:
    found = Advisor(trials(60)).ask({"agreement": 0.5, "margin before": -1.0, "margin after": 1.0, "other": 0.0})
    assert found.predicted == pytest.approx(0.5, abs=0.1)
    assert found.low > 0
    assert found.correlation is not None
    assert found.correlation > 0.9


def test_interval_covers_what_it_promises() -> None:
    """Nine in ten of new trials drawn like the old ones (conformal: exact on average, whatever was learnt)."""
    drawn = trials(400, rule=0.5, noise=0.5)
    advisor = Advisor(drawn[:100])
    inside = [(said := advisor.ask(one.facts)).low <= one.gain <= said.high for one in drawn[100:]]
    assert 0.83 <= np.mean(inside) <= 0.99


def test_few_trials_widen_the_interval() -> None:
    facts = {"agreement": 0.5, "margin before": -1.0, "margin after": 1.0, "other": 0.0}
    few, many = (Advisor(trials(n, rule=0.5, noise=0.5)).ask(facts) for n in (24, 120))
    assert few.high - few.low > many.high - many.low
    with pytest.raises(DataError, match="too few"):
        Advisor(trials(8))


def test_images_to_label_by_hand() -> None:
    assert images_to_label(trials(24)) == 16  # (1.96 * .1 / .05)^2 = 15.4
