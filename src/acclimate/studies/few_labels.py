"""What are k labelled target images worth, beside adaptation without labels? Fine-tuning of finished models on k of them.

Every training is one file renamed into place, so that a rerun goes on where the last one stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from pydantic import Field

from acclimate.data.domain import Domain
from acclimate.data.folder import origin
from acclimate.engine.adapt import adapt, default_device
from acclimate.engine.code import code_files, code_hash
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.errors import Interrupted, NumericError, UsageError, unknown
from acclimate.experiment import BASELINE, Listener, score_facts
from acclimate.files import read_json, sha256, write_json
from acclimate.methods import Method
from acclimate.methods.fine_tune import FineTune
from acclimate.plan import Plan
from acclimate.random import key
from acclimate.settings import Settings
from acclimate.studies.cells import CellFolder

BATCH = {"classification": 16, "segmentation": 8}


class FewLabels(Settings):
    """All that decides the numbers, apart from models and images."""

    counts: tuple[int, ...] = (1, 2, 5, 10, 20)  # k, images in all
    draws: int = Field(3, ge=1)  # of which images are labelled
    steps: int = Field(200, ge=1)  # fixed: no label is left to stop by
    batch: int | None = Field(None, ge=1)  # None: 16, or 8 crops of masks
    lr: float | None = Field(None, gt=0)  # None: the method's own
    settings: dict[str, Any] = {}  # of the method
    held_out: float = Field(0.5, ge=0.5, lt=1)  # the share that is scored, where no test images are given

    @pydantic.field_validator("counts")
    @classmethod
    def _at_least_one(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if not counts or min(counts) < 1:
            raise ValueError("must be 1 labelled image or more (no label at all is what adaptation is for)")
        return counts


@dataclasses.dataclass(frozen=True)
class Images:
    """Which images may be drawn, which are scored, and which the model that is kept is trained on; none is in two roles
    but for the last."""

    pool: Domain
    test: Domain
    everything: Domain
    given: bool  # whether the test images were given apart, so that the kept model can be scored


@dataclasses.dataclass
class Cells:
    """Everything that was measured."""

    study: FewLabels
    task: str
    primary: str
    classes: tuple[str, ...]
    images: Images
    counts: list[int]  # of the study, those that can be drawn
    dropped: list[int]
    missing: list[str]  # classes without an image to draw; classification only
    adapted: str | None  # the method that stands for adaptation without labels
    lines: dict[str, dict[str, Any]]  # by player: its score without labels, and that of its network alone
    runs: dict[tuple[str, int, int], dict[str, Any]]  # by start, k and draw; without a score where training diverged
    kept: dict[str, Any]
    seconds: float

    @property
    def starts(self) -> list[str]:
        """The players that were fine-tuned."""
        return list(dict.fromkeys(start for start, _, _ in self.runs))

    @property
    def failed(self) -> list[str]:
        """Why trainings diverged, one text for each."""
        return [cell["why"] for cell in (*self.runs.values(), self.kept) if "why" in cell]


def images(labelled: Domain, test: Domain | None, held_out: float = 0.5) -> Images:
    """Split what was given, the same way each time; images of classification without a class are not drawn.

    Args:
        labelled, test: with labels, in the model's classes.
        held_out: the share of ``labelled`` that is scored where there is no ``test``.

    Raises :class:`UsageError` if a file is in both, :class:`DataError` if there is too little to split.
    """
    everything = _with_a_class(labelled)
    if test is None:
        pool, scored = everything.holdout(held_out)
        if len(scored) < held_out * len(everything):  # rounded down
            pool, scored = everything.holdout(math.ceil(held_out * len(everything)) / len(everything))
        return Images(pool, scored, everything, given=False)
    theirs = {_file(test, i) for i in range(len(test))}
    both = sum(_file(labelled, i) in theirs for i in range(len(labelled)))
    if both:
        raise UsageError(
            f"{both} images of {test.name} are among the labelled ones too: what is trained on cannot be scored; "
            "leave out --test, or give other images"
        )
    return Images(everything, test, everything, given=True)


def _file(domain: Domain, i: int) -> str:
    return origin(domain.images, i) or f"{domain.name}: {domain.names[i]}"


def _class_labels(domain: Domain) -> list[int]:
    """Of classification; label maps are not read here."""
    if domain.task != "classification" or domain.labels is None:
        return []
    return [int(label) for label in domain.labels]


def _with_a_class(domain: Domain) -> Domain:
    if domain.task != "classification":
        return domain
    known = [i for i, label in enumerate(_class_labels(domain)) if label >= 0]
    if not known:
        raise UsageError(f"{domain.name}: no image has one of the model's classes; say which is which with --map")
    return domain if len(known) == len(domain) else domain.subset(known)


def order(pool: Domain, draw: int) -> list[int]:
    """All images of ``pool`` in the order in which draw number ``draw`` labels them: k means the first k.

    Classification goes round the classes, so that k images are as alike per class as can be; segmentation is at random.
    """
    random = np.random.default_rng(key("few labels", draw))
    shuffled = random.permutation(len(pool))
    if pool.task != "classification":
        return shuffled.tolist()
    turn = random.permutation(len(pool.classes))
    labels = _class_labels(pool)
    seen = [0] * len(pool.classes)
    places = []
    for i in shuffled.tolist():
        label = labels[i]
        places.append((seen[label], int(turn[label]), i))
        seen[label] += 1
    return [i for _, _, i in sorted(places)]


def measure(
    study: FewLabels,
    folder: Path,
    players: Mapping[str, Path],
    given: Images,
    *,
    starts: Sequence[str] | None = None,
    adapted: str | None = None,
    keep_from: str | None = None,
    device: torch.device | str | None = None,
    listener: Listener | None = None,
    force: bool = False,
) -> Cells:
    """Score every player, fine-tune the starts on k images for each k and draw, and keep a model trained on all of them.

    Args:
        players: model folders by name, none of which has read a target label; the networks are where training begins.
        starts: the players that are fine-tuned; default: ``source-only`` and ``adapted``.
        adapted: the player that stands for adaptation; default: the last that is not ``source-only``, if there is one.
        keep_from: the start of the kept model; default: ``adapted``, else the last start.
        listener: hears of each training.
        force: measure again what was measured with other settings, images or code.

    A training that diverges is a cell without a score, and the others go on.

    Raises :class:`UsageError` for a start that is no player, if nothing can be drawn, or if ``folder`` holds another
    study; :class:`Interrupted` after a signal: what is finished is kept.
    """
    adapted = adapted or next((name for name in reversed(list(players)) if name != BASELINE), None)
    chosen = list(starts or [name for name in players if name in (BASELINE, adapted)])
    keep_from = keep_from or (adapted if adapted in chosen else chosen[-1])
    for name in (*chosen, keep_from):
        if name not in players:
            raise unknown("method to start from", name, players)
    counts = sorted({k for k in study.counts if k <= len(given.pool)})
    if not counts:
        raise UsageError(
            f"only {len(given.pool)} labelled images can be drawn ({len(given.test)} are held out to score); ask for "
            f"fewer, such as --k {_fewer(len(given.pool))}, or give the images to score with --test"
        )
    facts = study.model_dump(mode="json", exclude={"counts", "draws"})  # a longer list keeps what is there
    device = torch.device(device) if device is not None else default_device()
    facts |= {"labelled": given.everything.fingerprint(), "test": given.test.fingerprint(), "device": device.type}
    cells = CellFolder(folder, facts, code(), f"{key(facts, code()):016x}", listener, force)
    bench = _Bench(study, cells, players, given, device)
    cells.total = len(players) + len(chosen) * len(counts) * study.draws + 1
    lines, runs = {}, {}
    try:
        for name in players:
            lines[name] = bench.line(name)
        for start in chosen:
            for draw in range(study.draws):
                for k in counts:
                    runs[start, k, draw] = bench.run(start, k, draw)
        kept = bench.keep(keep_from)
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(
            f"interrupted; {cells.done} of {cells.total} cells are kept: run the same command to continue"
        ) from error
    task = bench.model(chosen[0]).method.task
    there = set(_class_labels(given.pool))
    return Cells(
        study,
        task.name,
        task.primary,
        tuple(task.classes),
        given,
        counts,
        sorted(set(study.counts) - set(counts)),
        [name for number, name in enumerate(task.classes) if number not in there] if there else [],
        adapted,
        lines,
        runs,
        kept,
        sum(cell["seconds"] for cell in (*lines.values(), *runs.values(), kept)),
    )


def _fewer(most: int) -> str:
    return ",".join(str(k) for k in (1, 2, 5, 10, 20) if k <= most)


@functools.cache
def code() -> str:
    """A hash of what says which images are drawn, and how they are learnt from."""
    return f"{key([code_hash(file) for file in (Path(__file__), *code_files(FineTune))]):016x}"


class _Bench:
    """Makes cells; models are loaded once, and only where something is missing."""

    def __init__(
        self, study: FewLabels, cells: CellFolder, players: Mapping[str, Path], given: Images, device: torch.device
    ) -> None:
        self.study, self.cells, self.players, self.given, self.device = study, cells, players, given, device
        self._models: dict[str, Model] = {}
        self._places = {name: f"{name}-{sha256(place / 'model.safetensors')[:12]}" for name, place in players.items()}

    def model(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = Model.load(self.players[name], self.device)
        return self._models[name]

    def line(self, name: str) -> dict[str, Any]:
        """A player as it is, with a bootstrap interval; ``net``: its network alone, from which fine-tuning begins."""

        def make() -> dict[str, Any]:
            model = self.model(name)
            score = net = score_facts(evaluate(model, self.given.test))
            if type(model.method).predict is not Method.predict:
                alone = FineTune(model.method.net, model.method.task, Plan())
                net = score_facts(evaluate(dataclasses.replace(model, method=alone), self.given.test, resamples=0))
            return {"score": score, "net": net}

        return self.cells.cell(f"cells/{self._places[name]}/0", f"{name}, no label", make)

    def run(self, start: str, k: int, draw: int) -> dict[str, Any]:
        """One training on k images."""

        called = f"{start}, {k} labels, draw {draw + 1}"

        def make() -> dict[str, Any]:
            drawn = self.given.pool.subset(order(self.given.pool, draw)[:k])
            facts = {"images": list(drawn.names)}
            try:
                tuned = self.tuned(start, drawn, draw)
            except NumericError as error:
                return facts | {"score": None, "why": _diverged(called, error)}
            return facts | {"score": score_facts(evaluate(tuned, self.given.test, resamples=0))}

        return self.cells.cell(f"cells/{self._places[start]}/{k}-{draw}", called, make)

    def keep(self, start: str) -> dict[str, Any]:
        """The model to take away: trained on all labelled images. Its score is known only where test images were given."""
        place = self.cells.folder / "model"
        of = {"start": start, "from": self._places[start]}
        told = self.cells.folder / "kept.json"
        whole = (place / "model.json").exists() and told.exists()
        if not whole or read_json(told).get("of") != of or read_json(told).get("settings") != self.cells.identity:
            told.unlink(missing_ok=True)
        called = f"{start}, all {len(self.given.everything)} labels"

        def make() -> dict[str, Any]:
            facts = {"of": of, "images": len(self.given.everything)}
            (place / "model.json").unlink(missing_ok=True)  # of another start: it is not what is kept now
            try:
                tuned = self.tuned(start, self.given.everything, 0)
            except NumericError as error:
                return facts | {"score": None, "why": _diverged(called, error)}
            tuned.save(place)
            return facts | {"score": score_facts(evaluate(tuned, self.given.test)) if self.given.given else None}

        return self.cells.cell("kept", called, make) | {"folder": str(place)}  # which may be moved

    def tuned(self, start: str, labelled: Domain, seed: int) -> Model:
        """The network of a start after its steps on ``labelled``. It alone predicts, under the start's ``inference``: what
        else a method predicts with, such as MCD's second head, is not there any more."""
        model, study = self.model(start), self.study
        task = model.method.task
        batch = study.batch or BATCH[task.name]
        if task.name == "classification":
            batch = min(batch, len(labelled))  # an image twice in a batch says nothing new; a crop does
        optimiser = FineTune.optimiser if study.lr is None else FineTune.optimiser.replace(lr=study.lr)
        done = adapt(
            model.method.net,
            None,
            None,
            FineTune,
            labelled=labelled,
            plan=Plan(steps=study.steps, batch=batch, seed=seed, optimiser=optimiser, log_every=study.steps),
            preprocess=model.preprocess,
            task=task,
            device=self.device,
            **study.settings,
        )
        return dataclasses.replace(done.model, inference=model.inference)


def _diverged(called: str, error: NumericError) -> str:
    """What became non-finite, without the engine's advice, which names options that are not here."""
    return f"{called}: {str(error).partition('. ')[0]}; choose a lower --lr, with another --out."


def summary(cells: Cells) -> dict[str, Any]:
    """What ``fine-tune.json`` holds, apart from the words: scores of all draws, their mean and sample deviation."""
    return {
        "task": cells.task,
        "primary": cells.primary,
        "settings": cells.study.model_dump(mode="json"),
        "labelled": {"name": cells.images.everything.name, "images": len(cells.images.everything)},
        "drawn from": len(cells.images.pool),
        "scored on": {"name": cells.images.test.name, "images": len(cells.images.test), "apart": cells.images.given},
        "k": cells.counts,
        "too many": cells.dropped,
        "classes without a labelled image": cells.missing,
        "adapted": cells.adapted,
        "without labels": {
            name: {
                **{what: cell["score"][what] for what in ("value", "interval")},
                "network alone": cell["net"]["value"],
            }
            for name, cell in cells.lines.items()
        },
        "fine-tuned": {
            start: [
                {"k": k, "mean": mean(found), "deviation": deviation(found), "values": found}
                for k in cells.counts
                if (found := values(cells, start, k))
            ]
            for start in cells.starts
        },
        "model": None
        if "why" in cells.kept
        else {
            "folder": cells.kept["folder"],
            "start": cells.kept["of"]["start"],
            "images": cells.kept["images"],
            "score": None
            if cells.kept["score"] is None
            else {what: cells.kept["score"][what] for what in ("value", "interval")},
        },
        "failed": cells.failed,
        "minutes": cells.seconds / 60,
    }


def values(cells: Cells, start: str, k: int) -> list[float]:
    """Scores of the draws whose training did not diverge."""
    return list(by_draw(cells, start, k).values())


def by_draw(cells: Cells, start: str, k: int) -> dict[int, float]:
    """The same by number of the draw."""
    found = {draw: cells.runs[start, k, draw]["score"] for draw in range(cells.study.draws)}
    return {draw: score["value"] for draw, score in found.items() if score is not None}


def mean(found: Sequence[float]) -> float:
    return sum(found) / len(found)


def deviation(found: Sequence[float]) -> float | None:
    """Of the sample; None of one value."""
    return float(np.std(found, ddof=1)) if len(found) > 1 else None


def beats_from(counts: Sequence[int], means: Sequence[float], level: float) -> int | None:
    """The smallest k from which on all means lie above ``level``; None where the last does not."""
    above = None
    for k, value in zip(reversed(counts), reversed(means)):
        if not value > level:
            break
        above = k
    return above


def write_result(cells: Cells, folder: Path, verdict: str, command: str) -> dict[str, Any]:
    """``fine-tune.json``; what it holds."""
    from acclimate import __version__

    result = {"schema_version": 1, "acclimate": __version__, "verdict": verdict, "command": command, **summary(cells)}
    write_json(folder / "fine-tune.json", result)
    return result
