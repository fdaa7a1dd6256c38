"""What moved between two domains, where in the network, whether it matters, and whether adaptation will help."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pydantic
import torch
from torch import Tensor

from acclimate import __version__
from acclimate.data.domain import Domain
from acclimate.data.folder import match_classes
from acclimate.data.preprocess import Preprocess
from acclimate.diagnosis.advisor import LEAST, NOTHING, Advice, Advisor, Trial, images_to_label, trial, windows_of
from acclimate.diagnosis.behaviour import Behaviour, Reference, State, behaviour, reference
from acclimate.diagnosis.checks import LEVEL, Check, by_image, moved, moved_cloud
from acclimate.diagnosis.properties import FINE, PROPERTIES, measured
from acclimate.diagnosis.windows import Windows, alike, cut, ordinals, reduced, window_size
from acclimate.engine.model import Model
from acclimate.errors import DataError, UsageError
from acclimate.networks.statistics import batch_norms
from acclimate.random import generator, key
from acclimate.transforms.shifts import draw

SCHEMA: Literal[1] = 1
SIDE = 96  # pixels of a window
COMPARED = 64  # windows of either domain without a model
BUDGET = 240.0  # seconds
MOST_TRIALS = 120
LEAST_SOURCE, LEAST_TARGET = 8, 2  # images
FEW = 32  # target images, below which statistics are taken with a pinch of salt
TESTED = 40  # layers whose tests are taken together: 999 deals cannot tell more of them from chance
LOSS = 0.1  # of the estimated score, from which on a model is at a loss
COLLAPSED = 0.1  # of what the source leaves to the other classes
PROPORTIONS = 0.02  # bits between class shares, from which on they are worth a word
Verdict = Literal["adapt", "don't adapt", "uncertain"]
Advised = Literal["adapt", "label", "nothing", "another method"]
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
    fires: bool  # p <= 5 %, for this row alone
    named: bool  # also after Holm's correction over all rows of this table


class LayerFact(Part):
    """How far the target is from the source at a BatchNorm layer (Frechet distance in a basis whitened by the source)."""

    layer: str
    null: float  # of one half of the source from the other: what a finite sample alone gives
    null_quantile: float  # 95 %
    before: float
    after: float
    p: float  # that the layer saw nothing new, before adaptation
    fires: bool  # p <= 5 %, for this layer alone
    named: bool  # also after Holm's correction; of more than 40 layers, every second, third, ... takes part


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


class Looked(Part):
    """How much the diagnosis looked at: windows, and the images they were cut from."""

    size: tuple[int, int]  # of a window: height, width
    source: int  # windows that say what is usual
    source_images: int
    target: int
    target_images: int
    trial: int  # windows of a synthetic target; 0 without a model
    trial_images: int


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
    looked: Looked
    moved: list[Moved]
    layers: list[LayerFact]
    own_score: float | None  # on labelled held-out windows of the source
    estimates: list[Estimate]
    gain: Gain | None
    tried: list[Tried]
    interrupted: bool  # before the time was up
    verdict: Verdict | None
    advised: Advised | None
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

    Windows of one size are cut from both domains; synthetic targets have as many images, and windows of each, as the
    windows of the target.

    Args:
        source: labelled, where a model is given; best images that the model was not trained on. Its classes are matched
            with the model's by name.
        target: its labels are not read.
        model: trained on the source. Without one only the images are compared.
        budget: seconds for the whole; it decides how many synthetic shifts are tried, and fewer make the interval wider.
        trials: that many shifts instead, whatever they cost; the result is then a function of the seed.
        progress: called with (trials done, trials wanted).

    Ctrl-C ends the trials; where 24 of them are done the verdict is given from these (``interrupted`` is then true).

    Raises :class:`UsageError` for a model without BatchNorm or a source without labels, :class:`DataError` for domains
    that are too small, labels of other classes or none but "ignore", and weights that are not finite.
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
    source = _fitting(source, target, model)
    net.eval()
    halves = source.holdout(0.5, seed)
    size = _size(source, target, model)
    usual_windows = _cut(halves[0], "source", model, 2 * windows_of(*size), size, seed)
    chosen, there, pool = _equally(target, halves[1], model, size, seed)
    for windows in (usual_windows, pool):
        assert windows.y is not None
        if not bool((windows.y >= 0).any()):
            raise DataError(f"{source.name}: every label that was looked at is 'ignore'; nothing can be scored on it")
    usual = reference(net, task, preprocess, usual_windows, seed)
    found = behaviour(usual, there, seed)
    tried, interrupted = _try(usual, pool, there, budget - (time.monotonic() - begun), trials, seed, progress)
    advice = Advisor(tried, seed).ask(found.facts)
    layers = _layers(usual, found, there.images, seed)
    checks = _named(
        [
            *_image_checks((halves[0], usual.windows), (chosen, there), preprocess, task.name, seed),
            *_prediction_checks(usual, found.before, there.images, seed),
        ]
    )
    verdict = verdict_of(advice)
    label = min(images_to_label(tried), len(target)) if verdict == "uncertain" else None
    estimates = [
        Estimate(
            name=name,
            own=usual.own[fact],
            before=found.facts[f"{fact} before"],
            after=found.facts[f"{fact} after"],
        )
        for name, fact in ESTIMATES.items()
    ]
    advised = advised_by(verdict, advice, estimates)
    return Diagnosis(
        **shared,
        looked=Looked(
            size=size,
            source=len(usual.windows),
            source_images=len(usual.windows.images.unique()),
            target=len(there),
            target_images=len(there.images.unique()),
            trial=len(there),
            trial_images=len(there.images.unique()),
        ),
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
        interrupted=interrupted,
        verdict=verdict,
        advised=advised,
        sentence=_sentence(verdict, advised, advice, task.primary, label, [*checks, *layers]),
        reasons=_reasons(advice, checks, layers, estimates, usual, found, there.images, len(target), seed),
        label=label,
        seconds=time.monotonic() - begun,
    )


ESTIMATES = {
    "calibrated confidence, class by class (MOVAL)": "calibrated score",
    "difference of confidence (DoC)": "confidence difference",
    "average thresholded confidence (ATC)": "thresholded confidence",
}


# -- what is looked at ------------------------------------------------------------------------------------------------


def _fitting(source: Domain, target: Domain, model: Model) -> Domain:
    """The source with its labels counted in the model's classes, once all is there that the diagnosis needs."""
    net, task = model.method.net, model.method.task
    if not batch_norms(net):
        raise UsageError(
            "this model has no BatchNorm, so re-estimating its statistics is no choice; compare the images without --model, "
            "and adapt with a method that trains (acclimate methods)"
        )
    if not all(bool(value.isfinite().all()) for value in net.state_dict().values()):
        raise DataError("the model has weights that are not finite numbers; its training diverged, train it again")
    if source.labels is None:
        raise UsageError(f"{source.name} needs labels of the model's classes: {', '.join(task.classes)}")
    if len(source) < LEAST_SOURCE or len(target) < LEAST_TARGET:
        raise DataError(
            f"{len(source)} source and {len(target)} target images are too few; "
            f"give at least {LEAST_SOURCE} and {LEAST_TARGET}, better 30 of each"
        )
    known = dataclasses.replace(source, name="the model", task=task.name, classes=task.classes, labels=None)
    return match_classes(known, source)


def _size(source: Domain, target: Domain, model: Model) -> tuple[int, int]:
    """One size of window for both domains."""
    if model.method.task.name == "classification":
        assert model.preprocess.size is not None
        return model.preprocess.size
    sides = [
        window_size(model.preprocess.scale_of(role), SIDE, domain)
        for role, domain in (("source", source), ("target", target))
    ]
    return min(side[0] for side in sides), min(side[1] for side in sides)


def _cut(domain: Domain, role: str, model: Model, count: int, size: tuple[int, int], seed: int) -> Windows:
    """Windows of the source or of the target at the scale of its own."""
    return cut(domain, model.method.task.name, model.preprocess.of(role), count, size, seed)


def _some(domain: Domain, count: int, seed: object) -> Domain:
    """At most ``count`` images, drawn at random."""
    order = torch.randperm(len(domain), generator=generator("images of a diagnosis", seed))[:count]
    return domain.subset(sorted(order.tolist()))


def _equally(
    target: Domain, source: Domain, model: Model, size: tuple[int, int], seed: int
) -> tuple[Domain, Windows, Windows]:
    """The images looked at of the target, their windows, and the source's windows of which trials are made.

    Both sides have as many images as either can give, and equally many windows of each; the source three times as many
    images where it has them.
    """
    count = windows_of(*size)
    images = min(count, len(source), len(target))
    if model.method.task.name == "classification":
        count = images
    chosen = _some(target, images, ("target", seed))
    of_trials = _some(source, 3 * images, ("trials", seed))
    pool = _cut(of_trials, "source", model, -(-count // images) * len(of_trials), size, seed + 1)
    return chosen, _cut(chosen, "target", model, count, size, seed + 2), pool


def like(pool: Windows, images: int, count: int, seed: int) -> Windows:
    """``count`` windows of so many images of a pool, drawn at random, as evenly as a target's windows are spread."""
    known = pool.images.unique()
    chosen = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:images]]
    found = pool[torch.isin(pool.images, chosen)]
    return found[ordinals(found.images).argsort(stable=True)[:count]]


def _try(
    usual: Reference,
    pool: Windows,
    target: Windows,
    budget: float,
    trials: int | None,
    seed: int,
    progress: Progress | None,
) -> tuple[list[Trial], bool]:
    """Synthetic targets until the time is up, at least :data:`LEAST` of them; and whether Ctrl-C ended it."""
    wanted = trials or MOST_TRIALS
    # Drawn in blocks, each balanced over the kinds of shift, so that stopping early leaves a balanced set.
    shifts = [
        by
        for block in range(-(-wanted // LEAST))
        for by in draw(LEAST, key("diagnosis", seed, block), channels=pool.x.shape[1])
    ]
    images, count = len(target.images.unique()), len(target)
    done: list[Trial] = []
    try:
        for number, by in enumerate(shifts[:wanted]):
            started = time.monotonic()
            own = key("trial", seed, number) % 2**31
            done.append(trial(usual, like(pool, images, count, own), by, own, count))
            if progress is not None:
                progress(number + 1, wanted)
            took = time.monotonic() - started
            budget -= took
            if trials is None and number + 1 >= LEAST and budget < 2 * took:
                break
    except KeyboardInterrupt:
        if len(done) < LEAST:
            raise
        return done, True
    return done, False


# -- checks -----------------------------------------------------------------------------------------------------------


def holm(p: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of many hypotheses fall, with a chance of ``level`` that any of them does wrongly.

    In ascending order the i-th of n (from 0) is held against level / (n - i), up to the first that stands
    (Holm, Scandinavian Journal of Statistics, 1979).
    """
    found = [False] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] > level / (len(p) - rank):
            break
        found[i] = True
    return found


def _named(checks: Sequence[Moved]) -> list[Moved]:
    return [
        check.model_copy(update={"named": named}) for check, named in zip(checks, holm([check.p for check in checks]))
    ]


def _image_checks(
    source: tuple[Domain, Windows], target: tuple[Domain, Windows], preprocess: Preprocess, task: str, seed: int
) -> list[Moved]:
    """Brightness, contrast and colour of whole images, fine detail of equally many windows of each image."""
    sides = []
    for (domain, windows), kept in zip((source, target), alike(source[1].images, target[1].images)):
        fine = measured(windows.x[kept])
        values = {name: by_image(fine[name], windows.images[kept]) for name in PROPERTIES}
        if task != "classification":  # whose windows are whole images
            whole = [measured(x) for x in reduced(domain, preprocess, windows.images.unique())]
            values |= {
                name: torch.cat([one[name] for one in whole]).double() for name in PROPERTIES if name not in FINE
            }
        sides.append(values)
    here, there = sides
    return [
        _as_moved(moved(name, here[name], there[name], seed), "image")
        for name in PROPERTIES
        # Grey images have no colour.
        if name not in ("saturation", "warmth") or float(here[name].abs().max() + there[name].abs().max())
    ]


def _prediction_checks(usual: Reference, state: State, images: Tensor, seed: int) -> list[Moved]:
    """What the model says of source and target: how sure it is, and of two classes how much is the second."""
    sides = []
    for one, of, kept in zip((usual.state, state), (usual.windows.images, images), alike(usual.windows.images, images)):
        confidence = one.logits[kept].softmax(1).amax(1)
        values = {
            "confidence": by_image(confidence.flatten(1).mean(1) if confidence.ndim > 1 else confidence, of[kept])
        }
        if len(usual.task.classes) == 2 and one.logits.ndim == 4:
            share = (one.predicted[kept] == 1).double().flatten(1).mean(1)
            values[f"share of {usual.task.classes[1]}"] = by_image(share, of[kept])
        sides.append(values)
    here, there = sides
    return [_as_moved(moved(name, here[name], there[name], seed), "prediction") for name in here]


def _proportions(usual: Reference, state: State, images: Tensor, seed: int) -> Check:
    """Whether the classes are predicted in other proportions than on the source, all classes together."""
    sides = []
    for one, of, kept in zip((usual.state, state), (usual.windows.images, images), alike(usual.windows.images, images)):
        predicted = one.predicted[kept].flatten(1) if one.predicted.ndim > 1 else one.predicted[kept][:, None]
        shares = torch.stack([(predicted == k).double().mean(1) for k in range(len(usual.task.classes))], 1)
        sides.append(by_image(shares, of[kept]))
    return moved_cloud("class proportions", sides[0], sides[1], seed)


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
        named=check.fires,
    )


def layer_checks(usual: Reference, state: State, images: Tensor, seed: int) -> list[Check]:
    """At every BatchNorm layer, whether the target's images differ from the source's in any way."""
    kept = alike(usual.windows.images, images)
    checks = []
    for name in usual.layers:
        # Rows are in the order of the windows, the same number of each.
        here, there = (
            by_image(
                one.layers[name].values.reshape(len(of), -1, one.layers[name].values.shape[1]).mean(1)[rows], of[rows]
            )
            for one, of, rows in zip((usual.state, state), (usual.windows.images, images), kept)
        )
        checks.append(moved_cloud(name, here, there, seed))
    return checks


def _layers(usual: Reference, found: Behaviour, images: Tensor, seed: int) -> list[LayerFact]:
    checks = layer_checks(usual, found.before, images, seed)
    step = max(1, -(-len(checks) // TESTED))
    named = holm([check.p for check in checks[::step]])
    return [
        LayerFact(
            layer=check.name.removeprefix("module."),
            null=found.distances[check.name]["null"],
            null_quantile=found.distances[check.name]["null quantile"],
            before=found.distances[check.name]["before"],
            after=found.distances[check.name]["after"],
            p=check.p,
            fires=check.fires,
            named=number % step == 0 and named[number // step],
        )
        for number, check in enumerate(checks)
    ]


def _images_only(source: Domain, target: Domain, shared: dict[str, Any], seed: int, begun: float) -> Diagnosis:
    """Without a model: only what can be seen in the images."""
    channels: Literal[1, 3] = 3 if any(domain.images[0].shape[-1] == 3 for domain in (source, target)) else 1
    preprocess = Preprocess(channels=channels)
    source, target = source.unlabelled(), target.unlabelled()
    size = window_size(1.0, SIDE, source, target)  # any network's would do; one size is needed to compare fine detail
    here, there = (
        cut(domain, "segmentation", preprocess, COMPARED, size, seed + i) for i, domain in enumerate((source, target))
    )
    checks = _named(_image_checks((source, here), (target, there), preprocess, "segmentation", seed))
    return Diagnosis(
        **shared,
        looked=Looked(
            size=size,
            source=len(here),
            source_images=len(here.images.unique()),
            target=len(there),
            target_images=len(there.images.unique()),
            trial=0,
            trial_images=0,
        ),
        task=source.task or "none",
        primary=None,
        moved=checks,
        layers=[],
        own_score=None,
        estimates=[],
        gain=None,
        tried=[],
        interrupted=False,
        verdict=None,
        advised=None,
        sentence=_differ(checks),
        reasons=["Whether that matters depends on the model: give one with --model."],
        label=None,
        seconds=time.monotonic() - begun,
    )


# -- words ------------------------------------------------------------------------------------------------------------


def verdict_of(advice: Advice) -> Verdict:
    """Don't adapt where no gain in the interval is worth the trouble, adapt where all of it is a gain, else uncertain."""
    if advice.high <= NOTHING:
        return "don't adapt"
    return "adapt" if advice.low > 0 else "uncertain"


def advised_by(verdict: Verdict, advice: Advice, estimates: Sequence[Estimate]) -> Advised:
    """What to do next: of a model that should not be adapted, whether it serves as it is or another method may help."""
    if verdict != "don't adapt":
        return "adapt" if verdict == "adapt" else "label"
    at_a_loss = bool(estimates) and estimates[0].own - estimates[0].before > LOSS
    return "another method" if at_a_loss or advice.predicted < -NOTHING else "nothing"


def _sentence(
    verdict: Verdict,
    advised: Advised,
    advice: Advice,
    primary: str,
    label: int | None,
    checks: Sequence[Moved | LayerFact],
) -> str:
    said = (
        f"re-estimating the BatchNorm statistics is predicted to change {primary} on the target by "
        f"{_points(advice.predicted)} points ({advice.level:.0%} interval {_points(advice.low)} to {_points(advice.high)})"
    )
    if verdict == "adapt":
        return f"Adapt: {said}."
    if verdict == "uncertain":
        return f"Uncertain: {said}; label about {label} target images and score both models on them."
    if advised == "nothing":
        why = (
            "nothing to gain" if any(check.named for check in checks) else "no need, nothing moved and nothing to gain"
        )
    else:
        why = "it would harm" if advice.predicted < -NOTHING else "the model is at a loss, and this is no remedy"
    return f"Don't adapt: {why}; {said}."


def _differ(checks: Sequence[Moved]) -> str:
    """What the images differ in, corrected for the number of properties."""
    named = [check for check in checks if check.named and check.kind == "image"]
    if not named:
        return "The images differ in nothing that was measured by more than chance explains."
    return f"The images differ in {_listed([described(check) for check in _largest(named)])}."


def _reasons(
    advice: Advice,
    checks: Sequence[Moved],
    layers: Sequence[LayerFact],
    estimates: Sequence[Estimate],
    usual: Reference,
    found: Behaviour,
    images: Tensor,
    target_images: int,
    seed: int,
) -> list[str]:
    """The evidence behind the verdict, one sentence each, from what moved to what follows."""
    reasons = [_differ(checks)]
    tested = len(layers[:: max(1, -(-len(layers) // TESTED))])
    strange = [layer for layer in layers if layer.named]
    if strange:
        worst = max(strange, key=lambda layer: layer.before / max(layer.null, 1e-9))
        left = worst.after / max(worst.null, 1e-9)
        reasons.append(
            f"{len(strange)} of {tested} BatchNorm layers see something new; most at {worst.layer}: "
            f"{worst.before / max(worst.null, 1e-9):.1f} times the distance between halves of the source, "
            f"{left:.1f} times after adaptation."
        )
    else:
        reasons.append("No BatchNorm layer sees more than chance explains.")
    first = estimates[0]
    reasons.append(
        f"On its own images the model scores {100 * usual.score:.1f} %; on the target its calibrated confidence suggests "
        f"{100 * first.before:.1f} %, after adaptation {100 * first.after:.1f} %. Confidence cannot see inverted contrast."
    )
    quality = "" if advice.correlation is None else f", rank correlation {advice.correlation:.2f}"
    reasons.append(
        f"The prediction was learnt from {advice.trials} shifts of the source's own images, each really adapted and scored; on "
        f"kinds of shift it had not seen it was off by {100 * advice.error:.1f} points on average{quality}."
    )
    largest, usually = found.facts["largest share after"], usual.shares.max().item()
    if largest > usually and 1 - largest < COLLAPSED * (1 - usually):
        reasons.append(
            f"After adaptation {100 * largest:.1f} % of the predictions are one class, on the source at most "
            f"{100 * usually:.1f} %: it may have collapsed."
        )
    elif found.facts["shares after"] > PROPORTIONS and _proportions(usual, found.after, images, seed).fires:
        reasons.append(
            "After adaptation the classes are predicted in other proportions than on the source. If the target really holds "
            "other proportions, re-estimated statistics are biased."
        )
    if target_images < FEW:
        reasons.append(f"{target_images} target images are few for statistics; {FEW} or more are safer.")
    return reasons


UNITS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("more contrast", "less contrast"),
    "skew": ("towards few bright pixels on dark ground", "towards few dark pixels on bright ground"),
    "noise": ("more fine detail or noise", "less fine detail or noise"),
    "sharpness": ("more fine detail or noise for its contrast", "less fine detail or noise for its contrast"),
    "grain": ("coarser structures or less noise", "finer structures or more noise"),
    "vignette": ("towards a brighter middle", "towards a darker middle"),
    "saturation": ("more colour", "less colour"),
    "warmth": ("redder", "bluer"),
}
FAR = 100  # deviations, beyond which their number says nothing: the source hardly varies


def described(check: Moved) -> str:
    """``brightness (brighter, 2.1 deviations)``."""
    how_far = f"{abs(check.effect):.1f}" if abs(check.effect) <= FAR else f"more than {FAR}"
    return f"{check.name} ({UNITS[check.name][0 if check.effect > 0 else 1]}, {how_far} deviations)"


def _largest(checks: Sequence[Moved]) -> list[Moved]:
    return sorted(checks, key=lambda check: -abs(check.effect))[:3]


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def words(one: Trial) -> str:
    """``brightness +0.40, then blur +0.90``."""
    return ", then ".join(f"{by.family} {by.amount:+.2f}" for by in one.shifts) or "no shift"
