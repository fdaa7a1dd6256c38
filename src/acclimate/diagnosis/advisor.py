"""Will re-estimating BatchNorm statistics help? Learnt from shifts of the user's own source, each really tried."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.diagnosis.behaviour import PIXELS, Reference, agreement, behaviour, score
from acclimate.diagnosis.windows import Windows
from acclimate.errors import DataError
from acclimate.tasks import Task
from acclimate.transforms.shifts import Shift, shift

LEAST = 24  # trials below which nothing is learnt
LEVEL = 0.9  # of the interval
NOTHING = 0.02  # a gain too small to be worth the trouble
FLOOR = 0.01  # of what adaptation changes, in the scale of the task's score
FAR = 2.5  # normal scores
RESAMPLES = 64
HALF_WIDTH = 0.05  # how well a labelled sample shall tell the gain
Array = NDArray[np.float64]


def windows_of(height: int, width: int) -> int:
    """How many windows of this size a trial takes: as many as fill the pixels of one batch, between 32 and 256."""
    return min(256, max(32, PIXELS // (height * width)))


@dataclasses.dataclass(frozen=True)
class Trial:
    """One synthetic target: how the model behaved there, and how right it was before and after adaptation."""

    shifts: tuple[Shift, ...]
    facts: dict[str, float]
    before: float
    after: float
    deviation: float  # of the gain between windows

    @property
    def gain(self) -> float:
        return self.after - self.before


@dataclasses.dataclass(frozen=True)
class Advice:
    """The predicted gain of adaptation, in the scale of the task's score."""

    predicted: float
    low: float
    high: float
    level: float
    trials: int
    left_out: list[float]  # each trial's gain as predicted from trials of other kinds
    error: float  # mean absolute, of these
    correlation: float | None  # Spearman's, of these with the true gains


def trial(source: Reference, pool: Windows, by: Sequence[Shift], seed: int, count: int) -> Trial:
    """Shift ``count`` labelled windows of the source, adapt to them without their labels, and score with them."""
    chosen = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:count]]
    assert chosen.y is not None
    x, y = shift(chosen.x, chosen.y, by, seed)
    found = behaviour(source, Windows(x, None, chosen.images[: len(x)]), seed)
    before, after = found.before.predicted, found.after.predicted
    # What changes is counted where the score counts, so that it bounds the gain.
    facts = {**found.facts, "agreement": agreement(source.task, before, after.masked_fill(y < 0, -1))}
    was, now = (score(source.task, labels, y) for labels in (before, after))
    return Trial(tuple(by), facts, was, now, gain_deviation(source.task, before, after, y, seed))


def gain_deviation(task: Task, before: torch.Tensor, after: torch.Tensor, y: torch.Tensor, seed: int) -> float:
    """The deviation of the gain between single windows: sqrt(n) times its bootstrap deviation over n windows."""
    n, k = len(y), len(task.classes)
    counts = torch.stack(
        [torch.stack([task.confusion(p[i : i + 1], y[i : i + 1]) for i in range(n)]) for p in (before, after)]
    ).double()
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    sums = torch.einsum("rn,snij->srij", torch.from_numpy(draws).double(), counts.view(2, n, k, k))
    values = [[task.scores(confusion)[task.primary] for confusion in side] for side in sums]
    gains = np.nan_to_num(np.array(values[1]) - np.array(values[0]))
    return float(gains.std(ddof=1) * math.sqrt(n))


class Learner:
    """Predicts the gain from the facts of a behaviour.

    gain = c r: c = 1 - agreement is what adaptation changes, measured in the task's own score, and r in [-1, 1] says how
    much of that is for the better. (1 - IoU and 1 - accuracy are metrics, so by the triangle inequality |gain| <= c
    whatever the truth is.) Only r is learnt, by the mean of extremely randomised trees (Geurts et al., 2006) and
    ridge regression on ranks, each trial weighing as much as it changes: trees find which kind of shift it is, the line
    orders shifts of one kind.
    """

    def __init__(self, facts: Sequence[Mapping[str, float]], gains: Sequence[float] | Array, seed: int = 0) -> None:
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.linear_model import RidgeCV
        from sklearn.preprocessing import QuantileTransformer

        x, c = table(facts), changed(facts)
        r = np.clip(np.asarray(gains) / c, -1.0, 1.0)
        self.ranks = QuantileTransformer(n_quantiles=min(50, len(x)), output_distribution="normal").fit(x)
        self.trees = ExtraTreesRegressor(100, min_samples_leaf=2, max_features=0.4, random_state=seed).fit(x, r, c)
        self.ridge = RidgeCV(np.logspace(0, 4, 20)).fit(self._ranked(x), r, c)

    def predict(self, facts: Sequence[Mapping[str, float]]) -> Array:
        """Gains ``(n,)``."""
        x = table(facts)
        line = np.clip(self.ridge.predict(self._ranked(x)), -1.0, 1.0)
        return (self.trees.predict(x) + line) / 2 * changed(facts)

    def _ranked(self, x: Array) -> Array:
        """Each fact as the normal score of its rank among the trials: beyond the last of them a line may not run on."""
        return np.clip(self.ranks.transform(x), -FAR, FAR)


def changed(facts: Sequence[Mapping[str, float]]) -> Array:
    """How much of the score can change at most: 1 - agreement of the predictions before and after, and a little."""
    return np.array([1 - one["agreement"] + FLOOR for one in facts])


def table(facts: Sequence[Mapping[str, float]]) -> Array:
    """Facts as columns ``(n, d)``: all of them, and for each that is known before and after the difference."""
    names = list(facts[0])
    pairs = [name.removesuffix(" after") for name in names if name.endswith(" after")]
    pairs = [name for name in pairs if f"{name} before" in facts[0]]
    return np.array(
        [
            [*(one[name] for name in names), *(one[f"{name} after"] - one[f"{name} before"] for name in pairs)]
            for one in facts
        ]
    )


def leave_kinds_out(trials: Sequence[Trial], seed: int = 0) -> Array:
    """Every trial's gain, predicted from the trials that share no kind of shift with it."""
    kinds = [frozenset(by.family for by in one.shifts) for one in trials]
    predicted = np.zeros(len(trials))
    for left in sorted(set(kinds), key=sorted):
        tested = [i for i, of in enumerate(kinds) if of == left]
        # Where nothing was shifted there is no kind to share: then the trial itself must not teach.
        rest = [one for one, of in zip(trials, kinds) if not of & left and of != left]
        if len(rest) < LEAST // 2:
            raise DataError(f"{len(trials)} shifts are too few to learn from; try at least {LEAST}, of several kinds")
        learner = Learner([one.facts for one in rest], [one.gain for one in rest], seed)
        predicted[tested] = learner.predict([trials[i].facts for i in tested])
    return predicted


class Advisor:
    """What was learnt from trials, and what it says of a target.

    Raises :class:`DataError` for too few trials.
    """

    def __init__(self, trials: Sequence[Trial], seed: int = 0) -> None:
        from scipy.stats import spearmanr

        facts, gains = [one.facts for one in trials], np.array([one.gain for one in trials])
        self.left_out = leave_kinds_out(trials, seed)
        self.learner = Learner(facts, gains, seed)
        self.residuals = np.sort(np.abs(gains - self.left_out) / changed(facts))
        self.error = float(np.abs(gains - self.left_out).mean())
        correlation = float(spearmanr(self.left_out, gains).statistic)
        self.correlation = correlation if math.isfinite(correlation) else None

    def ask(self, facts: Mapping[str, float]) -> Advice:
        """The predicted gain on a target, with an interval.

        Residuals of trials whose kinds were left out are divided by what adaptation changes there; the interval is the
        prediction plus and minus their quantile of rank ceil((n + 1) level), times what it changes on the target. The rank
        is that of split conformal prediction (Lei et al., JASA 2018), whose guarantee does not carry over: the residuals
        are those of learners that saw less, and a target need not resemble the trials.
        """
        predicted, here = float(self.learner.predict([facts])[0]), float(changed([facts])[0])
        low, high = interval(predicted, here, self.residuals)
        return Advice(
            predicted, low, high, LEVEL, len(self.residuals), self.left_out.tolist(), self.error, self.correlation
        )


def interval(predicted: float, here: float, residuals: Array) -> tuple[float, float]:
    """``predicted`` plus and minus the quantile of sorted relative ``residuals`` times ``here``, what adaptation changes."""
    rank = math.ceil((len(residuals) + 1) * LEVEL)
    reach = here * float(residuals[rank - 1]) if rank <= len(residuals) else 2 * here
    return max(predicted - reach, -here), min(predicted + reach, here)


def images_to_label(trials: Sequence[Trial]) -> int:
    """How many target images to label so that the gain is known to +-5 points with 95 % confidence.

    n = (1.96 s / .05)^2 with s the median deviation of the gain between images over the trials that changed anything;
    between 8 and 200.
    """
    deviations = [one.deviation for one in trials if one.deviation > 0] or [0.0]
    return int(min(200, max(8, math.ceil((1.96 * float(np.median(deviations)) / HALF_WIDTH) ** 2))))
