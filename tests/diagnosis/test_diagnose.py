"""A whole diagnosis of a small network on scenes whose shift is known."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate import networks, tasks
from acclimate.data.domain import Domain
from acclimate.data.perlin import scenes
from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis import diagnose as module
from acclimate.diagnosis.advisor import Advice, Advisor, Trial, images_to_label, trial
from acclimate.diagnosis.behaviour import Reference, observe, reference
from acclimate.diagnosis.diagnose import Diagnosis, Estimate, diagnose, holm, like, verdict_of
from acclimate.diagnosis.windows import Windows, alike, cut, normalised, ordinals, reduced, window_size
from acclimate.engine.adapt import adapt
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.methods import find
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


DONE: dict[tuple[object, ...], Trial] = {}


def once(source: Reference, pool: Windows, by: tuple[Shift, ...], seed: int, count: int) -> Trial:
    """A trial is a function of its source's windows, its shifts and its seed: what was tried is not tried again."""
    name = (by, seed, count, *(float(x.double().sum()) for x in (source.windows.x, source.windows.y, pool.x, pool.y)))
    if name not in DONE:
        DONE[name] = trial(source, pool, by, seed, count)
    return DONE[name]


@pytest.fixture(scope="module", autouse=True)
def fewer_windows() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "windows_of", lambda *_: 16)
        patch.setattr(module, "trial", once)
        yield


def ask(model: Model | None, target: Domain, **more: object) -> Diagnosis:
    return diagnose(domain("source", 1), target, model, trials=24, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.method.state_dict().items()}


@pytest.fixture(scope="module")
def brighter(model: Model, weights: dict[str, torch.Tensor]) -> Diagnosis:
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
    found = ask(model, domain("target", 2, sign=-1.0))
    assert found.verdict != "adapt"
    assert found.gain is not None
    assert found.gain.predicted < 0.1


def test_target_labels_are_not_read(model: Model, brighter: Diagnosis) -> None:
    target = domain("target", 2, change=0.3)
    poisoned = Domain("target", target.task, target.classes, target.images, [None] * len(target), target.names)
    again = ask(model, poisoned)
    assert again.model_dump(exclude={"seconds"}) == brighter.model_dump(exclude={"seconds"})


def test_the_model_is_left_as_it_was(model: Model, weights: dict[str, torch.Tensor], brighter: Diagnosis) -> None:
    assert brighter.tried
    assert all(torch.equal(value, weights[name]) for name, value in model.method.state_dict().items())


class Clock:
    """Every trial takes one second."""

    def __init__(self, patch: pytest.MonkeyPatch, interrupt_at: int | None = None) -> None:
        self.now, self.trials = 0.0, trials(60)
        self.interrupt_at = interrupt_at
        self.tried = 0
        patch.setattr(module.time, "monotonic", lambda: self.now)
        patch.setattr(module, "trial", self.trial)
        patch.setattr(module, "like", lambda *_: None)

    def trial(self, *_: object) -> Trial:
        if self.tried == self.interrupt_at:
            raise KeyboardInterrupt
        self.now += 1
        self.tried += 1
        return self.trials[self.tried % 60]


def try_for(budget: float, trials: int | None = None, progress: module.Progress | None = None) -> tuple[int, bool]:
    windows = Windows(torch.zeros(4, 1, 16, 16), None, torch.arange(4))
    done, interrupted = module._try(None, windows, windows, budget, trials, 0, progress)  # type: ignore[arg-type]
    return len(done), interrupted


def test_a_larger_budget_tries_more(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    assert try_for(0.01) == (module.LEAST, False)
    assert try_for(50) == (49, False)  # the next would end when the time is up; one more is kept in reserve
    assert try_for(1e6) == (module.MOST_TRIALS, False)
    seen: list[tuple[int, int]] = []
    assert try_for(0, 25, lambda done, wanted: seen.append((done, wanted))) == (25, False)
    assert seen == [(i + 1, 25) for i in range(25)]


def test_ctrl_c_keeps_what_is_done_where_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, interrupt_at=module.LEAST)
    assert try_for(1e6) == (module.LEAST, True)
    Clock(monkeypatch, interrupt_at=module.LEAST - 1)
    with pytest.raises(KeyboardInterrupt):
        try_for(1e6)


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
        diagnose(domain("source", 1, 7), target, model)
    with pytest.raises(UsageError, match="labels"):
        diagnose(domain("source", 1).unlabelled(), target, model)
    source = domain("source", 1)
    nothing = dataclasses.replace(source, labels=np.full_like(source.labels, -1))
    with pytest.raises(DataError, match="'ignore'"):
        diagnose(nothing, target, model)
    with pytest.raises(DataError, match="classes that the model does not have: dirt"):
        diagnose(dataclasses.replace(source, classes=("background", "dirt")), target, model)
    small = dataclasses.replace(target, images=target.images[:, :12])
    with pytest.raises(DataError, match="target has images of 12 pixels"):
        diagnose(source, small, model)
    broken = copy.deepcopy(model)
    next(broken.method.net.parameters()).data.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        diagnose(source, target, broken)
    net = networks.build("unet", classes=2, channels=1, size=32, width=4, depth=2, norm="instance")
    plain = adapt(net, domain("train", 0, 16), None, "source-only", plan=Plan(steps=1, batch=4), device="cpu").model
    with pytest.raises(UsageError, match="no BatchNorm"):
        diagnose(domain("source", 1), target, plain)


def test_classes_in_another_order_are_matched_by_name(model: Model, brighter: Diagnosis) -> None:
    source = domain("source", 1)
    turned = dataclasses.replace(source, classes=source.classes[::-1], labels=1 - source.labels)
    found = diagnose(turned, domain("target", 2, change=0.3), model, trials=24)
    assert found.model_dump(exclude={"seconds"}) == brighter.model_dump(exclude={"seconds"})


# -- what is looked at ------------------------------------------------------------------------------------------------


def test_windows_of_one_size_fit_both_domains() -> None:
    source, target = domain("source", 1, 10), domain("target", 2, 10)
    wide = dataclasses.replace(target, images=np.pad(target.images, ((0, 0), (0, 40), (0, 10), (0, 0))))
    assert window_size(1.0, 96, source, wide) == (32, 32)
    assert window_size(1.0, 96, wide) == (64, 32)
    assert window_size(2.0, 96, wide) == (96, 80)
    uneven = [*source.images[:9], source.images[9][:20]]
    assert window_size(1.0, 96, dataclasses.replace(source, images=uneven)) == (16, 32)


def test_equally_many_windows_of_each_image_by_hand() -> None:
    source, target = torch.tensor([4, 7, 4, 4, 7, 7, 4]), torch.tensor([0, 1, 2, 1, 2, 0, 2])
    assert ordinals(source).tolist() == [0, 0, 1, 2, 1, 2, 3]
    here, there = alike(source, target)
    assert source[here].tolist() == [4, 7, 4, 7]
    assert target[there].tolist() == [0, 1, 2, 1, 2, 0]


def test_trials_are_as_many_windows_of_as_many_images_as_the_target(model: Model) -> None:
    for images in (5, 12, 30):
        chosen, there, pool = module._equally(domain("t", 3, images), domain("s", 4, 20), model, (32, 32), 0)
        own = like(pool, len(there.images.unique()), len(there), 5)
        assert len(chosen) == min(images, 16)
        assert len(own) == len(there) == 16
        counts = [windows.images.unique(return_counts=True)[1].sort().values.tolist() for windows in (own, there)]
        assert counts[0] == counts[1]


def test_whole_images_are_reduced_by_averaging() -> None:
    source = domain("source", 1, 3)
    large = dataclasses.replace(source, images=source.images.repeat(8, 1).repeat(8, 2))
    found = reduced(large, Preprocess(channels=1), torch.tensor([2, 0]))
    assert [tuple(x.shape) for x in found] == [(1, 1, 128, 128)] * 2
    expected = torch.from_numpy(source.images[2][..., 0] / 255.0).float()
    assert torch.allclose(found[0][0, 0], expected.repeat_interleave(4, 0).repeat_interleave(4, 1), atol=1e-6)


def test_brightness_is_of_whole_images() -> None:
    """Windows of 96 pixels cannot see that the outer half of large images is dark."""
    source = domain("source", 1, 12)
    large = np.pad(source.images, ((0, 0), (0, 96), (0, 96), (0, 0)))
    there = dataclasses.replace(source, images=large)
    checks = {check.name: check for check in diagnose(there, there).moved}
    assert checks["brightness"].source == pytest.approx(large.mean() / 255, abs=1e-6)


# -- checks -----------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]  # .005 < .0125, .01 < .0167, .03 > .025
    assert holm([0.03, 0.04]) == [False, False]
    assert holm([0.02, 0.05]) == [True, True]
    assert holm([]) == []


def test_false_alarms_of_every_check_where_nothing_moved() -> None:
    """10 and 30 images, 2 and 8 windows of each, so that means over all of them spread more on the side of the few.

    At 5 %, more than 9 alarms in 60 have a chance below one in a thousand.
    """
    torch.manual_seed(0)
    net = networks.build("unet", classes=2, channels=1, size=16, width=2, depth=1).eval()
    task, preprocess = tasks.build("segmentation", ("background", "object")), Preprocess(channels=1)
    everything = domain("all", 11, 600)
    first = cut(everything, "segmentation", preprocess, 16, (16, 16))
    shape = reference(net, task, preprocess, first)  # of which the checks read windows and state
    alarms: dict[str, int] = {}
    for repeat in range(60):
        chosen = torch.randperm(600, generator=torch.Generator().manual_seed(repeat))[:40].tolist()
        source, target = everything.subset(chosen[:10]), everything.subset(chosen[10:])
        here, there = (
            cut(of, "segmentation", preprocess, count, (16, 16), 2 * repeat + side)
            for side, (of, count) in enumerate(((source, 20), (target, 240)))
        )
        usual = dataclasses.replace(
            shape, windows=here, state=observe(net, normalised(here.x, preprocess), task, repeat)
        )
        state = observe(net, normalised(there.x, preprocess), task, repeat + 1)
        checks = [
            *module._image_checks((source, here), (target, there), preprocess, "segmentation", repeat),
            *module._prediction_checks(usual, state, there.images, repeat),
            *module.layer_checks(usual, state, there.images, repeat),
        ]
        for check in checks:
            alarms[check.name] = alarms.get(check.name, 0) + check.fires
    assert len(alarms) > 12
    assert max(alarms.values()) <= 9, alarms
    assert sum(alarms.values()) > 0


# -- words ------------------------------------------------------------------------------------------------------------


def advice(predicted: float, low: float, high: float) -> Advice:
    return Advice(predicted, low, high, 0.9, 30, [], 0.01, None)


@pytest.mark.parametrize(
    ("numbers", "estimated", "verdict", "advised"),
    [
        ((0.1, 0.03, 0.2), 0.8, "adapt", "adapt"),
        ((0.01, 0.005, 0.015), 0.8, "don't adapt", "nothing"),
        ((0.0, -0.01, 0.02), 0.8, "don't adapt", "nothing"),
        ((0.0, -0.01, 0.02), 0.4, "don't adapt", "another method"),
        ((-0.2, -0.3, -0.1), 0.8, "don't adapt", "another method"),
        ((0.0, -0.2, 0.2), 0.8, "uncertain", "label"),
    ],
)
def test_verdict_and_what_follows(
    numbers: tuple[float, float, float], estimated: float, verdict: str, advised: str
) -> None:
    said = advice(*numbers)
    assert verdict_of(said) == verdict
    estimate = Estimate(name="MOVAL", own=0.85, before=estimated, after=estimated)
    assert module.advised_by(verdict_of(said), said, [estimate]) == advised


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


def test_windows_are_cut_at_the_scale_of_their_own_domain() -> None:
    """A source at half the scale: twice as large an area of it is in each window."""
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8)[None, :, None], (4, 128, 128, 1))
    domain = Domain("ramp", "segmentation", ("a", "b"), ramp, rng.integers(0, 2, (4, 128, 128)), list("0123"))
    net = networks.build("unet", classes=2, channels=1, size=64, width=2, depth=1)
    method = find("source-only")(net, tasks.build("segmentation", ("a", "b")), Plan())
    model = Model(method, Preprocess(channels=1, crop=(64, 64), scale=(0.5, 1.0)), torch.device("cpu"))
    size = module._size(domain, domain, model)
    assert size == (64, 64)
    spans = [module._cut(domain, role, model, 4, size, 0).x[:, :, :, [0, -1]] for role in ("source", "target")]
    source, target = ((span[..., 1] - span[..., 0]).mean().item() * 255 for span in spans)
    assert source == pytest.approx(2 * target, rel=0.03)
