"""What do a domain critic and its reversed gradient do? The four questions of a student's practical work, by experiment.

One small network, a labelled source and an unlabelled target: without adaptation, with a critic whom the features help,
and with one whom they fool (DANN); weights and schedules of the reversal; and pseudo-labels from three starts. Target
labels are opened to score, along the steps too, and for what is named oracle; nothing is chosen by them. Every cell of
the experiment is one file renamed into place, so that a rerun goes on where the last one stopped.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from acclimate import networks, registry, tasks
from acclimate.data import open_splits
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Stream
from acclimate.engine.adapt import adapt, build_streams, default_device
from acclimate.engine.code import code_files, code_hash
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.engine.run import Report, Run
from acclimate.errors import Interrupted, NumericError, UsageError
from acclimate.experiment import Listener
from acclimate.methods import Method, find
from acclimate.methods.dann import DANN
from acclimate.methods.self_training import SelfTraining
from acclimate.networks.contract import Network
from acclimate.networks.digits import dann_mnist
from acclimate.plan import Optimiser, Plan
from acclimate.random import generator, key
from acclimate.settings import Settings
from acclimate.studies.bn import packed
from acclimate.studies.cells import CellFolder
from acclimate.transforms.confidence import confidence_level

PAPER, BUNDLED = ("mnist", "mnist-m"), ("digits-handwritten", "digits-blended")
NETWORK = "dann-mnist"
NONE, HELPED, FOOLED = "no adaptation", "no reversal", "DANN"
CENTRAL: Mapping[str, Mapping[str, Any]] = {NONE: {"weight": 0.0}, HELPED: {"reversal": False}, FOOLED: {}}
"""The three networks that the study is about, as settings of DANN. With weight 0 the critic looks on, and the features
learn what source-only learns."""
Kind = TypeVar("Kind", bound=Method)
STARTS = ("source-only", "AdaBN", FOOLED)
CONTROL = "not learnt"  # self-training whose pseudo-labels weigh nothing
CERTAIN = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
SHARES = tuple(round(0.05 * n, 2) for n in range(1, 21))


class DANNStudy(Settings):
    """All that decides the numbers of the study."""

    pair: tuple[str, str] | None = None  # source, target; None: MNIST to MNIST-M where both are there, else bundled
    side: int = Field(28, ge=16)
    steps: int = Field(2000, ge=1)
    batch: int = Field(64, ge=2)  # of each domain
    lr: float = Field(0.01, gt=0)
    precision: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    looks: int = Field(20, ge=1)  # how often a net is scored on its way
    looked_at: int = Field(1000, ge=2)  # test images of each domain for that; at the end all are scored
    compared: int = Field(300, ge=20)  # test images of each domain whose features are compared and drawn
    weights: tuple[float, ...] = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
    weight_seeds: int = Field(1, ge=1)
    schedule_seeds: int = Field(1, ge=1)
    pseudo_seeds: int = Field(1, ge=1)
    pseudo_images: int = Field(10_000, ge=20)  # target images that are labelled by the nets themselves
    pseudo_steps: int = Field(600, ge=1)
    rounds: int = Field(3, ge=1)
    portion: float = Field(0.2, gt=0, le=1)  # of each class's predictions that become labels, in every round
    portions: tuple[float, ...] = (0.05, 0.5, 1.0)  # others, tried from source-only

    def resolved(self) -> DANNStudy:
        """With the pair that is there."""
        if self.pair is not None:
            return self
        there = all(registry.load("datasets", name).present for name in PAPER)
        return self.replace(pair=PAPER if there else BUNDLED)

    def identity(self) -> str:
        """A short name of these settings and of the code that measures, which every cell carries."""
        return f"{key(self.model_dump_json(), code()):016x}"


SIZES = {
    "small": DANNStudy(),
    "paper": DANNStudy(
        steps=10_000, weight_seeds=3, schedule_seeds=3, pseudo_seeds=3, pseudo_images=100_000, pseudo_steps=3000
    ),
}
"""By name: ``small`` for one CPU core (half an hour), ``paper`` for a GPU."""


@dataclasses.dataclass(frozen=True)
class Game:
    """One training with a critic."""

    name: str
    settings: Mapping[str, Any]
    schedule: Literal["dann", "constant"] = "dann"  # of the learning rate


def central() -> list[Game]:
    """No adaptation, no reversal, DANN."""
    return [Game(name, settings) for name, settings in CENTRAL.items()]


def weighted(weight: float, ramp: bool) -> Game:
    """A weight of the reversal, reached by the ramp or there from the first step; the central ones by their own names."""
    if weight == 0:
        return central()[0]
    if weight == 1 and ramp:
        return central()[2]
    return Game(f"weight {weight:g}{'' if ramp else ', no ramp'}", {"weight": weight, "ramp": ramp})


def scheduled(ramp: bool, annealed: bool) -> Game:
    """DANN with and without the ramp of its weight and the annealing of its learning rate."""
    if annealed:
        return weighted(1.0, ramp)
    return Game(f"constant rate{'' if ramp else ', no ramp'}", {"ramp": ramp}, "constant")


@dataclasses.dataclass
class Cells:
    """Everything that was measured."""

    study: DANNStudy  # resolved
    seeds: list[int]
    facts: dict[str, Any]  # of the data, with some images
    runs: dict[tuple[int, str], dict[str, Any]]  # by seed and game
    starts: dict[tuple[int, str], dict[str, Any]]  # by seed and start
    pseudo: dict[tuple[int, str], dict[str, Any]]  # by seed and kind of self-training


def measure(
    study: DANNStudy,
    folder: Path,
    *,
    seeds: int = 3,
    device: torch.device | str | None = None,
    listener: Listener | None = None,
    force: bool = False,
) -> Cells:
    """Train, score and label whatever ``folder`` does not hold yet.

    Args:
        seeds: of the three central networks: 0, 1, ...
        listener: hears of each cell.
        force: measure again what was measured with other settings or by other code.

    Raises :class:`UsageError` if ``folder`` holds cells of other settings or code, :class:`Interrupted` after a signal: what
    is finished is kept.
    """
    if seeds < 1:
        raise UsageError(f"the study needs at least one seed, not {seeds}")
    study = study.resolved()
    kept = CellFolder(folder, study.model_dump(mode="json"), code(), study.identity(), listener, force)
    bench = _Bench(study, kept, torch.device(device) if device is not None else default_device())
    plays = [(seed, game) for seed in range(seeds) for game in central()]
    for ramp in (True, False):
        plays += [(s, weighted(w, ramp)) for s in range(study.weight_seeds) for w in study.weights]
        plays += [(s, scheduled(ramp, annealed)) for s in range(study.schedule_seeds) for annealed in (True, False)]
    plays += [(s, game) for s in range(study.pseudo_seeds) for game in central() if game.name != HELPED]
    plays.sort(key=lambda play: play[0])  # streams belong to a seed
    unique = {(seed, game.name): game for seed, game in plays}
    schools = [(s, name) for s in range(study.pseudo_seeds) for name in bench.schools()]
    starts = [(s, name) for s in range(study.pseudo_seeds) for name in STARTS]
    kept.total = 1 + len(unique) + len(starts) + len(schools)
    try:
        return Cells(
            study,
            list(range(seeds)),
            bench.facts(),
            {(seed, name): bench.run(seed, game) for (seed, name), game in unique.items()},
            {(seed, name): bench.start(seed, name) for seed, name in starts},
            {(seed, name): bench.self_train(seed, name) for seed, name in schools},
        )
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(
            f"interrupted; {kept.done} of {kept.total} cells are kept: run the same command to continue"
        ) from error


@functools.cache
def code() -> str:
    """A hash of what says what is trained, drawn and compared: the code of files, and functions of files that many share."""
    from acclimate.distances import classifier_two_sample

    files = {Path(__file__)}.union(
        *(code_files(find(name)) for name in ("dann", "source-only", "adabn", "self-training"))
    )
    written = [inspect.getsource(function) for function in (dann_mnist, classifier_two_sample)]
    return f"{key([code_hash(file) for file in sorted(files)], written):016x}"


@dataclasses.dataclass(frozen=True)
class _Seen:
    """Images as the network's input, and their labels."""

    x: Tensor
    y: Tensor


class _Bench:
    """Makes cells. Data are opened when the first cell has to be made, and streams are shared by the games of a seed."""

    def __init__(self, study: DANNStudy, kept: CellFolder, device: torch.device) -> None:
        self.study, self.kept, self.device = study, kept, device
        self.preprocess = Preprocess(size=(study.side, study.side), fit="centre")
        self._streams: tuple[int, dict[str, Stream]] | None = None

    # -- cells ----------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Numbers of images, and ten of each domain."""
        return self.kept.cell("data", "data", self._facts)

    def run(self, seed: int, game: Game) -> dict[str, Any]:
        """One training: curves, final scores, and how well a fresh classifier tells the domains apart."""
        return self.kept.cell(_path(seed, game.name), game.name, lambda: self._run(seed, game), seed)

    def start(self, seed: int, name: str) -> dict[str, Any]:
        """What a net would label rightly before it learns from its own labels (an oracle's figures)."""
        return self.kept.cell(_path(seed, f"start {name}"), f"start {name}", lambda: self._start(seed, name), seed)

    def self_train(self, seed: int, name: str) -> dict[str, Any]:
        """Self-training from one start: what is kept, how much of it is right, and what becomes of the wrong."""
        make = functools.partial(self._self_train, seed, *self.schools()[name])
        return self.kept.cell(_path(seed, f"self-training {name}"), f"self-training {name}", make, seed)

    def schools(self) -> dict[str, tuple[str, float, float]]:
        """Self-trainings by name: the start, the portion, and the weight of the pseudo-labels."""
        some = {name: (name, self.study.portion, 1.0) for name in STARTS}
        some[CONTROL] = (STARTS[0], self.study.portion, 0.0)
        return some | {f"portion {portion:g}": (STARTS[0], portion, 1.0) for portion in self.study.portions}

    # -- data -----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def domains(self) -> dict[str, Domain]:
        """Training and test images of both, decoded once."""
        assert self.study.pair is not None
        (source, source_test), (target, target_test) = map(open_splits, self.study.pair)
        if source.classes != target.classes:
            raise UsageError(f"{source.name} and {target.name} have other classes; choose a pair with the same ones")
        found = {"source": source, "source test": source_test, "target": target, "target test": target_test}
        return {role: _decoded(domain) for role, domain in found.items()}

    @functools.cached_property
    def task(self) -> tasks.Task:
        return tasks.build("classification", self.domains["source"].classes)

    @functools.cached_property
    def labelled(self) -> Domain:
        """The target images that nets label themselves."""
        target = self.domains["target"]
        count = min(self.study.pseudo_images, len(target))
        order = torch.randperm(len(target), generator=generator("dann study", "labelled"))[:count]
        return target.subset(sorted(order.tolist()))

    @functools.cached_property
    def seen(self) -> dict[str, _Seen]:
        """Test images of both domains for the looks on the way."""
        return {
            role: self._seen(some(self.domains[f"{role} test"], self.study.looked_at)) for role in ("source", "target")
        }

    def _seen(self, domain: Domain) -> _Seen:
        x = torch.cat([x for _, x in self._pictures(domain)])
        return _Seen(x, truth(domain).to(self.device))

    def _pictures(self, domain: Domain) -> Iterator[tuple[list[int], Tensor]]:
        stream = Stream(
            domain.unlabelled(), "study", self.task.name, self.preprocess, batch=1, device=self.device, workers=0
        )
        return stream.pictures(range(len(domain)))

    def _streams_of(self, seed: int, plan: Plan) -> dict[str, Stream]:
        if self._streams is None or self._streams[0] != seed:
            made = build_streams(
                DANN,
                {"source": self.domains["source"], "target": self.domains["target"]},
                self.task,
                plan,
                self.preprocess,
                self.device,
            )
            self._streams = seed, dict(made)
        return self._streams[1]

    # -- the library at work --------------------------------------------------------------------------------------

    def _plan(self, seed: int, steps: int, log_every: int, optimiser: Optimiser | None) -> Plan:
        s = self.study
        return Plan(
            steps=steps,
            batch=s.batch,
            seed=seed,
            precision=s.precision,
            log_every=max(1, log_every),
            optimiser=optimiser,
        )

    def _net(self, seed: int, norm: str = "none") -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key("dann study", seed, "network"))
            size = (self.study.side, self.study.side)
            return networks.build(NETWORK, classes=len(self.task.classes), channels=3, size=size, norm=norm)

    def _method(self, kind: type[Kind], net: Network, plan: Plan, **settings: Any) -> tuple[Kind, Model]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(plan.seed, "parts of the method"))
            method = kind(copy.deepcopy(net), self.task, plan, **settings).to(self.device)
        return method, Model(method, self.preprocess, self.device)

    @torch.no_grad()
    def _look(self, method: Method) -> dict[str, float]:
        """Accuracy on some test images of both domains; the method goes on as it was."""
        training = method.training
        method.eval()
        found = {
            role: float((method.predict(seen.x).argmax(1) == seen.y).float().mean()) for role, seen in self.seen.items()
        }
        method.train(training)
        return found

    def _scores(self, model: Model) -> dict[str, float]:
        """Accuracy on all test images of both domains."""
        return {role: evaluate(model, self.domains[f"{role} test"], resamples=0).value for role in ("source", "target")}

    # -- what the cells hold --------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        domains = self.domains
        images = {}
        for role in ("source", "target"):
            domain = domains[f"{role} test"]
            labels = truth(domain).tolist()
            chosen = [labels.index(k) for k in range(len(domain.classes)) if k in labels]
            pixels = [np.rint(255 * (0.5 + 0.5 * x[0].cpu().numpy())) for _, x in self._one_by_one(domain, chosen)]
            images[role] = packed(np.stack(pixels).transpose(0, 2, 3, 1).astype(np.uint8))
        return {
            "classes": list(self.task.classes),
            "images": {role: len(domain) for role, domain in domains.items()},
            "names": {role: domain.name for role, domain in domains.items()},
            "shown": images,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
        }

    def _one_by_one(self, domain: Domain, chosen: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        for index in chosen:
            yield from self._pictures(domain.subset([index]))

    def _run(self, seed: int, game: Game) -> dict[str, Any]:
        study = self.study
        optimiser = Optimiser(lr=study.lr, schedule=game.schedule)
        plan = self._plan(seed, study.steps, study.steps // study.looks, optimiser)
        method, model = self._method(DANN, self._net(seed), plan, **game.settings)
        curve: list[dict[str, float]] = []

        def hear(report: Report) -> None:
            if report.means is not None:
                curve.append({"step": report.step, **report.means, **self._look(method)})

        run = Run(method, self._streams_of(seed, plan), device=self.device, observer=hear)
        diverged = carried_out(run)
        found: dict[str, Any] = {"settings of the method": dict(game.settings), "schedule": game.schedule}
        found |= {"curve": curve, "diverged": diverged}
        if diverged is not None:
            return {**found, "final": None, "area": None}
        values = {role: self._features(method, role) for role in ("source", "target")}
        found |= {"final": self._scores(model), "area": told_apart(values["source"], values["target"])}
        if game.name in CENTRAL:
            model.save(self.kept.folder / _path(seed, game.name))
            if seed == 0:
                found["map"] = self._map(values)
        return found

    @torch.no_grad()
    def _features(self, method: Method, role: str) -> Tensor:
        """``(n, C)`` of some test images, in float32."""
        method.eval()
        return method.net.features(self.seen[role].x[: self.study.compared]).float().cpu()

    def _map(self, values: Mapping[str, Tensor]) -> dict[str, Any]:
        """Features of both domains in the plane, by t-SNE as in the paper's figure 5."""
        from sklearn.manifold import TSNE

        together = torch.cat(list(values.values())).numpy()
        near = min(30.0, (len(together) - 1) / 3)
        places = TSNE(perplexity=near, init="pca", random_state=0).fit_transform(together)
        classes = torch.cat([self.seen[role].y[: len(some)].cpu() for role, some in values.items()])
        return {
            "places": np.round(places.astype(float), 2).tolist(),
            "domain": [role for role, some in values.items() for _ in some],
            "class": classes.tolist(),
        }

    def _started(self, seed: int, name: str) -> Model:
        """The model with which self-training begins."""
        if name != "AdaBN":
            place = self.kept.folder / _path(seed, NONE if name == STARTS[0] else name)
            return Model.load(place, self.device)
        optimiser = Optimiser(lr=self.study.lr, schedule="dann")
        plan = self._plan(seed, self.study.steps, self.study.steps, optimiser)
        shared: dict[str, Any] = {"plan": plan, "preprocess": self.preprocess, "task": self.task, "device": self.device}
        source, target = self.domains["source"], self.labelled.unlabelled()
        trained = adapt(self._net(seed, "batch"), source, None, "source-only", **shared).model
        return adapt(trained.method.net, None, target, "adabn", **shared).model

    def _start(self, seed: int, name: str) -> dict[str, Any]:
        model = self._started(seed, name)
        if name == "AdaBN":
            model.save(self.kept.folder / _path(seed, f"start {name}"))
        said = self._said(model)
        return {"scores": self._scores(model), **trusted(said.right, said.sure)}

    def _said(self, model: Model) -> _Said:
        logits = torch.cat([out.cpu() for _, out in model.logits(self.labelled)])
        label, level = confidence_level(logits)
        return _Said(label.long(), sure(level), truth(self.labelled))

    def _self_train(self, seed: int, start: str, portion: float, weight: float) -> dict[str, Any]:
        study = self.study
        folder = f"start {start}" if start == "AdaBN" else NONE if start == STARTS[0] else start
        before = Model.load(self.kept.folder / _path(seed, folder), self.device)
        plan = self._plan(seed, study.pseudo_steps, study.pseudo_steps // study.rounds, None)
        settings = {"rounds": study.rounds, "portion": portion, "growth": 0.0, "portion_max": portion}
        method, model = self._method(SelfTraining, before.method.net, plan, **settings, weight=weight, restat=False)
        streams = build_streams(
            type(method),
            {"source": self.domains["source"], "target": self.labelled},
            self.task,
            plan,
            self.preprocess,
            self.device,
        )
        right_labels = truth(self.labelled)
        rounds: list[dict[str, Any]] = []
        labels: list[tuple[Tensor, Tensor, Tensor]] = []

        def hear(report: Report) -> None:
            if report.means is None or report.step < report.steps:
                return
            label, level = (streams["target"].columns[name].whole().long() for name in ("label", "level"))
            kept = level >= method.thresholds.cpu()[label]
            labels.append((label, level, kept))
            counts = torch.bincount(label[kept], minlength=len(self.task.classes))
            rounds.append(
                {
                    "kept": float(kept.float().mean()),
                    "right among the kept": float((label == right_labels)[kept].float().mean()),
                    "right": float((label == right_labels).float().mean()),
                    "kept by class": counts.tolist(),
                    **self._look(method),
                }
            )

        diverged = carried_out(Run(method, streams, device=self.device, observer=hear))
        found = {"start": start, "portion": portion, "weight": weight, "rounds": rounds, "diverged": diverged}
        if diverged is not None:
            return {**found, "final": None, "after": None, "wrong": None}
        label, level, kept = labels[0]
        after = self._said(model)
        return {
            **found,
            "final": self._scores(model),
            "after": trusted(after.right, after.sure),
            "wrong": what_became(label, sure(level), kept, after),
        }


@dataclasses.dataclass(frozen=True)
class _Said:
    """What a net says of the labelled images ``(n,)``."""

    label: Tensor
    sure: Tensor  # the largest probability
    truth: Tensor

    @property
    def right(self) -> Tensor:
        return self.label == self.truth


def carried_out(run: Run) -> int | None:
    """Carry out a run; the step at which it diverged, or None."""
    try:
        run()
    except NumericError:
        return int(run.updater.first[0])
    return None


def sure(level: Tensor) -> Tensor:
    """The largest probability from a level of :func:`~acclimate.transforms.confidence.confidence_level`."""
    return ((level.double() + 0.5) / 64 - 16).sigmoid()


def told_apart(source: Tensor, target: Tensor) -> float:
    """Area under the ROC curve of a fresh linear classifier of the domain, cross-validated; 0.5: it cannot tell."""
    from acclimate.distances import classifier_two_sample

    return classifier_two_sample(source, target)


def trusted(right: Tensor, certain: Tensor) -> dict[str, Any]:
    """How much is right among the most confident shares, and above thresholds of the probability."""
    order = certain.argsort(descending=True, stable=True)
    rising = right[order].double().cumsum(0)
    n = len(right)
    shares = [max(1, round(share * n)) for share in SHARES]
    above = [(threshold, certain > threshold) for threshold in CERTAIN]
    return {
        "right": float(right.double().mean()),
        "confidence": float(certain.mean()),
        "shares": [{"share": share, "right": float(rising[k - 1] / k)} for share, k in zip(SHARES, shares)],
        "thresholds": [
            {
                "threshold": threshold,
                "kept": float(which.double().mean()),
                "right": _mean(right[which]),
            }
            for threshold, which in above
        ],
    }


def what_became(label: Tensor, certain: Tensor, kept: Tensor, after: _Said) -> dict[str, Any]:
    """Of the labels that were wrong in the first round: how many the net says again at the end, and how surely."""
    found: dict[str, Any] = {}
    for name, which in (("kept", kept), ("not kept", ~kept)):
        wrong = which & (label != after.truth)
        values = {
            "said again": after.label == label,
            "corrected": after.right,
            "sure before": certain,
            "sure after": after.sure,
        }
        found[name] = {"count": int(wrong.sum()), **{what: _mean(all_[wrong]) for what, all_ in values.items()}}
    return found


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if len(values) else None


def truth(domain: Domain) -> Tensor:
    """The labels ``(n,)`` of a domain that has them."""
    assert domain.labels is not None
    return torch.tensor([int(label) for label in domain.labels])


def some(domain: Domain, count: int) -> Domain:
    """Up to ``count`` images, the same ones each time."""
    if len(domain) <= count:
        return domain
    order = torch.randperm(len(domain), generator=generator("dann study", "looked at"))[:count]
    return domain.subset(sorted(order.tolist()))


def _decoded(domain: Domain) -> Domain:
    """The same domain with its images and labels in memory."""
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(lambda i: np.asarray(domain.images[i]), range(len(domain))))
    return dataclasses.replace(domain, images=images, labels=truth(domain).tolist())


def _path(seed: int, name: str) -> str:
    return f"seed-{seed}/{name.replace(',', '').replace(' ', '-').lower()}"
