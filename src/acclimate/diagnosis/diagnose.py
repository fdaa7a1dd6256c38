"""What moved between two domains, where in the network, whether it matters, and whether adaptation will help."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pydantic
from torch import Tensor

from acclimate import __version__
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis.advisor import LEAST, NOTHING, Advice, Advisor, Trial, images_to_label, trial
from acclimate.diagnosis.behaviour import Behaviour, Reference, State, behaviour, quality, reference
from acclimate.diagnosis.checks import Check, by_image, moved, moved_cloud
from acclimate.diagnosis.properties import PROPERTIES, measured
from acclimate.diagnosis.windows import Windows, cut
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.networks.statistics import batch_norms, recommended_prior
from acclimate.random import key
from acclimate.transforms.shifts import draw

SCHEMA: Literal[1] = 1
WINDOWS, SIDE = 32, 96  # of a trial and of the target; pixels
REFERENCE = 64  # windows of the source that say what is usual
BUDGET = 240.0  # seconds
MOST_TRIALS = 120
FEW = 32  # target images, below which mixing with the source's statistics is worth a thought
Verdict = Literal["adapt", "don't adapt", "uncertain"]
Progress = Callable[[int, int], None]


class Part(pydantic.BaseModel):
    """Base of all parts: no key that the schema does not name."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Moved(Part):
    """A check of :mod:`acclimate.diagnosis.checks`."""

    name: str
    kind: Literal["image", "prediction"]
    source: float
    target: float
    effect: float
    floor: float
    p: float
    fires: bool


class LayerFact(Part):
    """How far the target is from the source at a BatchNorm layer (Frechet distance in a basis whitened by the source)."""

    layer: str
    null: float  # of one half of the source from the other: what a finite sample alone gives
    null_quantile: float  # 95 %
    before: float
    after: float
    p: float  # that the layer saw nothing new, before adaptation
    fires: bool


class Estimate(Part):
    """A score estimated without target labels; ``own`` is the same estimate on the source's held-out images."""

    name: str
    own: float
    before: float
    after: float


class Tried(Part):
    """A synthetic target: what was done to the source's images, and what adaptation changed."""

    shifts: str
    before: float
    after: float
    predicted: float  # by an advisor that had seen no shift of these kinds


class Gain(Part):
    """What adaptation is predicted to change, and how good such predictions were."""

    predicted: float
    low: float
    high: float
    level: float
    error: float  # mean absolute, on shifts of kinds that were left out
    correlation: float | None


class Diagnosis(Part):
    """Everything that the diagnosis found."""

    schema_version: Literal[1] = SCHEMA
    acclimate: str
    source: str
    target: str
    model: str | None
    task: str
    primary: str | None
    source_images: int
    target_images: int
    moved: list[Moved]
    layers: list[LayerFact]
    own_score: float | None  # on labelled held-out windows of the source
    estimates: list[Estimate]
    gain: Gain | None
    tried: list[Tried]
    verdict: Verdict | None
    sentence: str
    reasons: list[str]
    label: int | None  # images worth labelling where the verdict is uncertain
    seconds: float


def diagnose(
    source: Domain,
    target: Domain,
    model: Model | None = None,
    *,
    names: tuple[str, str, str | None] | None = None,
    budget: float = BUDGET,
    trials: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Compare two domains, and ask whether a model of the one should adapt its BatchNorm statistics to the other.

    Args:
        source: labelled, where a model is given; best images that the model was not trained on.
        target: its labels are not read.
        model: trained on the source. Without one only the images are compared.
        budget: seconds for the whole; it decides how many synthetic shifts are tried, and fewer make the interval wider.
        trials: that many shifts instead, whatever they cost; the result is then a function of the seed.
        progress: called with (trials done, trials wanted).

    Raises :class:`UsageError` for a model without BatchNorm or a source without labels, :class:`DataError` for domains
    that are too small.
    """
    begun = time.monotonic()
    target = target.unlabelled()
    names = names or (source.name, target.name, None)
    shared: dict[str, Any] = {
        "acclimate": __version__,
        "source": names[0],
        "target": names[1],
        "model": names[2],
        "source_images": len(source),
        "target_images": len(target),
    }
    if model is None:
        return _images_only(source, target, shared, seed, begun)
    net, task, preprocess = model.method.net, model.method.task, model.preprocess
    if not batch_norms(net):
        raise UsageError(
            "this model has no BatchNorm, so re-estimating its statistics is no choice; compare the images without --model, "
            "and adapt with a method that trains (acclimate methods)"
        )
    if source.labels is None or source.classes != task.classes:
        raise UsageError(f"{source.name} needs labels of the model's classes: {', '.join(task.classes)}")
    if len(source) < 4 or len(target) < 2:
        raise DataError(
            f"{len(source)} source and {len(target)} target images are too few; give at least 4 and 2, better 30 of each"
        )
    net.eval()
    looked, kept = source.holdout(0.5, seed)
    usual = reference(net, task, preprocess, _cut(looked, model, REFERENCE, seed), seed)
    pool = _cut(kept, model, 3 * WINDOWS, seed + 1)
    there = _cut(target, model, WINDOWS, seed + 2)
    found = behaviour(usual, there, seed)
    tried = _try(usual, pool, budget - (time.monotonic() - begun), trials, seed, progress, begun)
    advice = Advisor(tried, seed).ask(found.facts)
    layers = _layers(usual, found, there.images, seed)
    checks = [*_image_checks(usual.windows, there, seed), *_prediction_checks(usual, found.before, there.images, seed)]
    verdict = verdict_of(advice)
    label = images_to_label(tried) if verdict == "uncertain" else None
    own = quality(usual, usual.state)
    estimates = [
        Estimate(
            name=name,
            own=own[fact],
            before=found.facts[f"{fact} before"],
            after=found.facts[f"{fact} after"],
        )
        for name, fact in ESTIMATES.items()
    ]
    return Diagnosis(
        **shared,
        task=task.name,
        primary=task.primary,
        moved=checks,
        layers=layers,
        own_score=usual.score,
        estimates=estimates,
        gain=Gain(
            predicted=advice.predicted,
            low=advice.low,
            high=advice.high,
            level=advice.level,
            error=advice.error,
            correlation=advice.correlation,
        ),
        tried=[
            Tried(shifts=words(one), before=one.before, after=one.after, predicted=guess)
            for one, guess in zip(tried, advice.left_out)
        ],
        verdict=verdict,
        sentence=_sentence(verdict, advice, task.primary, label),
        reasons=_reasons(advice, checks, layers, estimates, usual.score, found, len(target)),
        label=label,
        seconds=time.monotonic() - begun,
    )


ESTIMATES = {
    "calibrated confidence, class by class (MOVAL)": "calibrated score",
    "difference of confidence (DoC)": "confidence difference",
    "average thresholded confidence (ATC)": "thresholded confidence",
}


def _cut(domain: Domain, model: Model, count: int, seed: int) -> Windows:
    return cut(domain, model.method.task.name, model.preprocess, count, SIDE, seed)


def _try(
    usual: Reference,
    pool: Windows,
    budget: float,
    trials: int | None,
    seed: int,
    progress: Progress | None,
    begun: float,
) -> list[Trial]:
    """Synthetic targets until the time is up, at least :data:`LEAST` of them."""
    wanted = trials or MOST_TRIALS
    # Drawn in blocks, each balanced over the kinds of shift, so that stopping early leaves a balanced set.
    shifts = [
        by
        for block in range(-(-wanted // LEAST))
        for by in draw(LEAST, key("diagnosis", seed, block), channels=pool.x.shape[1])
    ]
    done: list[Trial] = []
    for number, by in enumerate(shifts[:wanted]):
        started = time.monotonic()
        done.append(trial(usual, pool, by, key("trial", seed, number) % 2**31, WINDOWS))
        budget -= time.monotonic() - started
        if progress is not None:
            progress(number + 1, wanted)
        if trials is None and number + 1 >= LEAST and budget < 2 * (time.monotonic() - started):
            break
    return done


def _image_checks(source: Windows, target: Windows, seed: int) -> list[Moved]:
    here, there = measured(source.x), measured(target.x)
    found = []
    for name in PROPERTIES:
        if name in ("saturation", "warmth") and not float(here[name].abs().max() + there[name].abs().max()):
            continue  # grey images have no colour
        found.append(
            _as_moved(
                moved(name, by_image(here[name], source.images), by_image(there[name], target.images), seed), "image"
            )
        )
    return found


def _prediction_checks(usual: Reference, state: State, images: Tensor, seed: int) -> list[Moved]:
    """What the model says of source and target: how sure it is, and how much of it is each class."""
    k = len(usual.task.classes)

    def facts(one: State) -> dict[str, Tensor]:
        confidence = (
            one.logits.softmax(1).amax(1).flatten(1).mean(1) if one.logits.ndim == 4 else one.logits.softmax(1).amax(1)
        )
        return {"confidence": confidence} | (
            {f"share of {usual.task.classes[-1]}": (one.predicted == k - 1).double().flatten(1).mean(1)}
            if k == 2 and one.logits.ndim == 4
            else {}
        )

    here, there = facts(usual.state), facts(state)
    return [
        _as_moved(
            moved(name, by_image(here[name], usual.windows.images), by_image(there[name], images), seed), "prediction"
        )
        for name in here
    ]


def _as_moved(check: Check, kind: Literal["image", "prediction"]) -> Moved:
    return Moved(
        name=check.name,
        kind=kind,
        source=check.source,
        target=check.target,
        effect=check.effect,
        floor=check.floor,
        p=check.p,
        fires=check.fires,
    )


def _layers(usual: Reference, found: Behaviour, images: Tensor, seed: int) -> list[LayerFact]:
    facts = []
    for name, distance in found.distances.items():
        here, there = usual.state.layers[name], found.before.layers[name]
        check = moved_cloud(
            name,
            by_image(here.values, usual.windows.images[here.images]),
            by_image(there.values, images[there.images]),
            seed,
        )
        facts.append(
            LayerFact(
                layer=name.removeprefix("module."),
                null=distance["null"],
                null_quantile=distance["null quantile"],
                before=distance["before"],
                after=distance["after"],
                p=check.p,
                fires=check.fires,
            )
        )
    return facts


def _images_only(source: Domain, target: Domain, shared: dict[str, Any], seed: int, begun: float) -> Diagnosis:
    """Without a model: only what can be seen in the images."""
    channels: Literal[1, 3] = 3 if any(domain.images[0].shape[-1] == 3 for domain in (source, target)) else 1
    # Any network's size would do; one size is needed to compare sharpness and grain.
    windows = [
        cut(domain.unlabelled(), "segmentation", Preprocess(channels=channels), REFERENCE, SIDE, seed + i)
        for i, domain in enumerate((source, target))
    ]
    checks = _image_checks(windows[0], windows[1], seed)
    fired = [check for check in checks if check.fires]
    sentence = (
        f"The images differ in {_listed([described(check) for check in _largest(fired)])}."
        if fired
        else "The images differ in nothing that was measured by more than chance explains."
    )
    return Diagnosis(
        **shared,
        task=source.task or "none",
        primary=None,
        moved=checks,
        layers=[],
        own_score=None,
        estimates=[],
        gain=None,
        tried=[],
        verdict=None,
        sentence=sentence,
        reasons=["Whether that matters depends on the model: give one with --model."],
        label=None,
        seconds=time.monotonic() - begun,
    )


# -- words ------------------------------------------------------------------------------------------------------------


def verdict_of(advice: Advice) -> Verdict:
    """Adapt where the whole interval is a gain, don't where none of it is worth the trouble, else uncertain."""
    if advice.low > 0:
        return "adapt"
    return "don't adapt" if advice.high <= NOTHING else "uncertain"


def _sentence(verdict: Verdict, advice: Advice, primary: str, label: int | None) -> str:
    said = (
        f"re-estimating the BatchNorm statistics is predicted to change {primary} on the target by "
        f"{_points(advice.predicted)} points ({advice.level:.0%} interval {_points(advice.low)} to {_points(advice.high)})"
    )
    if verdict == "adapt":
        return f"Adapt: {said}."
    if verdict == "don't adapt":
        return f"Don't adapt: {said}."
    return f"Uncertain: {said}; label about {label} target images and score both models on them."


def _reasons(
    advice: Advice,
    checks: Sequence[Moved],
    layers: Sequence[LayerFact],
    estimates: Sequence[Estimate],
    own: float,
    found: Behaviour,
    target_images: int,
) -> list[str]:
    """The evidence behind the verdict, one sentence each, from what moved to what follows."""
    fired = [check for check in checks if check.fires and check.kind == "image"]
    reasons = [
        f"The images differ in {_listed([described(check) for check in _largest(fired)])}."
        if fired
        else "The images differ in nothing that was measured by more than chance explains."
    ]
    strange = [layer for layer in layers if layer.fires]
    if strange:
        worst = max(layers, key=lambda layer: layer.before / max(layer.null, 1e-9))
        left = worst.after / max(worst.null, 1e-9)
        reasons.append(
            f"{len(strange)} of {len(layers)} BatchNorm layers see something new; most at {worst.layer}: "
            f"{worst.before / max(worst.null, 1e-9):.1f} times the distance between halves of the source, "
            f"{left:.1f} times after adaptation."
        )
    else:
        reasons.append("No BatchNorm layer sees more than chance explains.")
    first = estimates[0]
    reasons.append(
        f"On its own images the model scores {100 * own:.1f} %; on the target its calibrated confidence suggests "
        f"{100 * first.before:.1f} %, after adaptation {100 * first.after:.1f} %. Confidence cannot see inverted contrast."
    )
    quality = "" if advice.correlation is None else f", rank correlation {advice.correlation:.2f}"
    reasons.append(
        f"The prediction was learnt from {advice.trials} shifts of the source's own images, each really adapted and scored; on "
        f"kinds of shift it had not seen it was off by {100 * advice.error:.1f} points on average{quality}."
    )
    if (largest := found.facts["largest share after"]) > 0.98:
        reasons.append(f"After adaptation {largest:.0%} of the predictions are one class: it may have collapsed.")
    elif abs(found.facts["last share after"]) > math.log(2) and found.facts["shares after"] > 0.02:
        reasons.append(
            "After adaptation the classes are predicted in other proportions than on the source. If the target really holds "
            "other proportions, re-estimated statistics are biased."
        )
    if target_images < FEW:
        prior = recommended_prior(found.changes, target_images)
        reasons.append(
            f"{target_images} target images are few for statistics"
            + (f"; mixing with the source's may be better: --set adabn.prior={prior:g}." if prior else ".")
        )
    return reasons


UNITS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("more contrast", "less contrast"),
    "skew": ("bright details on dark ground", "dark details on bright ground"),
    "noise": ("more noise", "less noise"),
    "sharpness": ("sharper", "smoother"),
    "grain": ("coarser structures", "finer structures"),
    "vignette": ("a brighter middle", "a darker middle"),
    "saturation": ("more colour", "less colour"),
    "warmth": ("redder", "bluer"),
}


def described(check: Moved) -> str:
    """``brightness (brighter by 2.1 deviations)``."""
    return f"{check.name} ({UNITS[check.name][0 if check.effect > 0 else 1]}, {abs(check.effect):.1f} deviations)"


def _largest(checks: Sequence[Moved]) -> list[Moved]:
    return sorted(checks, key=lambda check: -abs(check.effect))[:3]


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def words(one: Trial) -> str:
    """``brightness +0.40, then blur +0.90``."""
    return ", then ".join(f"{by.family} {by.amount:+.2f}" for by in one.shifts) or "no shift"
