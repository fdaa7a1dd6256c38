"""When does BatchNorm adaptation work? Segmentation under controlled changes of brightness and contrast.

Images are white noise of mean mu1 inside an object and mu2 outside. A U-Net is trained on each source (mu1, mu2) and
tested on each target, without and with the target's BatchNorm statistics. Every cell of the experiment is one file
renamed into place, so that a rerun goes on where the last one stopped.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from acclimate import networks, tasks
from acclimate.data.domain import Domain
from acclimate.data.perlin import scenes
from acclimate.data.streams import Stream
from acclimate.engine.adapt import adapt, default_device
from acclimate.engine.evaluate import Evaluation, evaluate
from acclimate.engine.model import Model
from acclimate.errors import Interrupted, UsageError
from acclimate.experiment import Listener
from acclimate.files import read_json, sha256, write_json
from acclimate.networks.activations import Activations, activations
from acclimate.networks.contract import Network
from acclimate.networks.norm import batch_norms
from acclimate.plan import Optimiser, Plan
from acclimate.random import generator, key
from acclimate.settings import Settings
from acclimate.studies.cells import CellFolder

CLASSES = ("background", "object")
Pair = tuple[float, float]
GRID = (0.3, 0.4, 0.5, 0.6, 0.7)  # four standard deviations of the noise from black and from white
ALL = tuple((inside, outside) for inside in GRID for outside in GRID if inside != outside)
BINS = 48


class Irregular(Settings):
    """Changes of the plan that make a training irregular."""

    steps: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=2)
    lr: float | None = Field(None, gt=0)


class BNStudy(Settings):
    """All that decides the numbers of the study; pairs are (mu1 of the object, mu2 of the background)."""

    sources: tuple[Pair, ...] = ((0.4, 0.3), (0.7, 0.6), (0.6, 0.4), (0.4, 0.6), (0.55, 0.45), (0.7, 0.3))
    targets: tuple[Pair, ...] = ALL  # the sources are targets too
    dark_bright: tuple[Pair, Pair] = ((0.4, 0.3), (0.7, 0.6))  # the two sources shown against each other
    regular: Pair = (0.6, 0.4)  # the source on which theory and irregular training are tested
    moved: Pair = (0.7, 0.5)  # its target of another brightness
    sigma: float = Field(0.075, gt=0)
    share: Pair = (0.3, 0.5)  # of the object in each image, uniform between the two
    side: int = Field(64, ge=8)
    width: int = Field(8, ge=1)
    depth: int = Field(3, ge=1)
    images: int = Field(200, ge=2)  # of a source, for training
    target_images: int = Field(96, ge=8)  # to adapt with, and as many others to score on
    steps: int = Field(300, ge=1)
    batch: int = Field(16, ge=2)
    lr: float = Field(2e-3, gt=0)
    precision: Literal["bfloat16", "float32", "float16"] = "float32"
    decay: float = Field(1e-3, gt=0)  # weight decay of the net that shows the artefact
    positions: int = Field(3, ge=1)  # of each image at each layer, for the distances
    distances: tuple[str, ...] = (
        "frechet",
        "frechet-shrunk",
        "frechet-diagonal",
        "sliced-wasserstein",
        "max-sliced-wasserstein",
        "sliced-energy",
        "bhattacharyya",
        "bhattacharyya-full",
        "bhattacharyya-histogram",
        "mmd",
        "classifier",
    )
    at_bottleneck: tuple[str, ...] = ("classifier",)  # distances too slow to be taken at every layer
    null_repeats: int = Field(8, ge=2)
    irregular_seeds: int = Field(3, ge=1)
    irregular: dict[str, Irregular] = {
        "regular": Irregular(),
        "5 steps": Irregular(steps=5),
        "12 steps": Irregular(steps=12),
        "high rate": Irregular(lr=0.1),
        "batch of 2": Irregular(batch=2),
    }

    @pydantic.model_validator(mode="after")
    def _sources_are_there(self) -> BNStudy:
        for wanted in (*self.dark_bright, self.regular):
            if wanted not in self.sources:
                raise ValueError(f"{wanted} is shown, so it must be one of the sources")
        return self

    def tested(self) -> tuple[Pair, ...]:
        """All targets: those asked for, then the sources."""
        return tuple(dict.fromkeys((*self.targets, *self.sources)))

    def identity(self) -> str:
        """A short name of these settings and of the code that measures, which every cell carries."""
        return f"{key(self.model_dump_json(), code()):016x}"


SIZES = {
    "small": BNStudy(),
    "paper": BNStudy(
        sources=ALL,
        side=128,
        width=64,
        depth=4,
        images=10_000,
        target_images=256,
        steps=5000,
        lr=1e-3,
        precision="bfloat16",
        positions=16,
        null_repeats=20,
    ),
}
"""By name: ``small`` for two CPU cores, ``paper`` for a GPU (bottleneck of 1,024 channels)."""


@dataclasses.dataclass
class Cells:
    """Everything that was measured, by seed."""

    study: BNStudy
    seeds: list[int]
    sources: dict[tuple[int, Pair], dict[str, Any]]
    pairs: dict[tuple[int, Pair, Pair], dict[str, Any]]
    theory: dict[int, list[dict[str, Any]]]
    irregular: dict[tuple[int, str], dict[str, Any]]
    latent: dict[str, Any]


def measure(
    study: BNStudy,
    folder: Path,
    *,
    seeds: int = 1,
    device: torch.device | str | None = None,
    listener: Listener | None = None,
    force: bool = False,
) -> Cells:
    """Train, adapt, score and compare whatever ``folder`` does not hold yet.

    Args:
        seeds: the grid and the theory are repeated for seeds 0, 1, ...
        listener: hears of each cell.
        force: measure again what was measured with other settings or by other code.

    Raises :class:`UsageError` if ``folder`` holds cells of other settings or code, :class:`Interrupted` after a signal: what is
    finished is kept.
    """
    if seeds < 1:
        raise UsageError(f"the study needs at least one seed, not {seeds}")
    kept = CellFolder(folder, study.model_dump(mode="json"), code(), study.identity(), listener, force)
    bench = _Bench(study, kept, torch.device(device) if device is not None else default_device())
    numbers = range(seeds)
    kept.total = seeds * (len(study.sources) * (1 + len(study.tested())) + 1)
    kept.total += study.irregular_seeds * len(study.irregular) + 1
    try:
        cells = Cells(study, list(numbers), {}, {}, {}, {}, bench.latent())
        for seed in numbers:
            for source in study.sources:
                cells.sources[seed, source] = bench.source(seed, source)
                for target in study.tested():
                    cells.pairs[seed, source, target] = bench.pair(seed, source, target)
            cells.theory[seed] = bench.theory(seed)
        for seed in range(study.irregular_seeds):
            for kind in study.irregular:
                cells.irregular[seed, kind] = bench.irregular(seed, kind)
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(
            f"interrupted; {kept.done} of {kept.total} cells are kept: run the same command to continue"
        ) from error
    return cells


@functools.cache
def code() -> str:
    """A hash of the files that say what is drawn, adapted, read and compared."""
    root = Path(__file__).parents[1]
    places = ("studies/bn.py", "data/perlin.py", "methods/adabn.py", "networks/activations.py")
    files = [*(root / place for place in places), *sorted((root / "distances").glob("*.py"))]
    return f"{key([sha256(file) for file in files]):016x}"


def short(pair: Pair) -> str:
    """``(0.7, 0.3)`` as ``.7-.3``, for files."""
    return "-".join(f"{value:g}" for value in pair)


def pictures(study: BNStudy, seed: int, pair: Pair, count: int, role: str = "score", **look: Any) -> Domain:
    """Images and masks of a pair; the same for the same arguments, and other ones for each seed, pair and role."""
    inside, outside = pair
    settings = {"sigma": study.sigma, "share": study.share, **look}
    draw = generator("bn study", seed, role, *pair, *sorted(look.items()))
    images, masks = scenes(count, study.side, inside=inside, outside=outside, generator=draw, **settings)
    names = [f"{role} {number}" for number in range(count)]
    labels = masks.numpy().astype(np.int16)
    name = f"mu1 {inside:g}, mu2 {outside:g}"
    return Domain(name, "segmentation", CLASSES, list(images.numpy()), list(labels), names)


def packed(values: NDArray[np.uint8]) -> dict[str, Any]:
    """Bytes as JSON."""
    return {"shape": list(values.shape), "base64": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()}


def unpacked(found: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The array that :func:`packed` was given."""
    return np.frombuffer(base64.b64decode(found["base64"]), np.uint8).reshape(found["shape"])


def block_layers(net: Network) -> dict[str, str]:
    """The last BatchNorm of each block by a short name: ``down 1`` ... ``bottleneck``, ``up 1`` ..., in order."""
    blocks: dict[str, str] = {}
    for layer, _ in batch_norms(net):
        place = layer.removeprefix("module.").split(".")[:-1]
        blocks[place[0] if len(place) == 1 else f"{place[0]} {int(place[1]) + 1}"] = layer
    return blocks


class _Bench:
    """Makes cells and remembers the source at work, so that its pairs need not load it again."""

    def __init__(self, study: BNStudy, kept: CellFolder, device: torch.device) -> None:
        self.study, self.kept, self.device = study, kept, device
        self.task = tasks.build("segmentation", CLASSES)
        self._at_work: tuple[tuple[int, Pair], Model, dict[str, Activations]] | None = None

    # -- cells ----------------------------------------------------------------------------------------------------

    def _cell(self, name: str, seed: int, stage: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return self.kept.cell(f"seed-{seed}/{name}", stage, make, seed)

    def source(self, seed: int, source: Pair) -> dict[str, Any]:
        """One trained net: its score at home, and what each distance says where nothing has changed."""
        return self._cell(
            f"{short(source)}/source", seed, f"source {short(source)}", lambda: self._source(seed, source)
        )

    def pair(self, seed: int, source: Pair, target: Pair) -> dict[str, Any]:
        """One source against one target, without and with adaptation."""
        name = f"{short(source)}/to-{short(target)}"
        return self._cell(name, seed, f"source {short(source)}", lambda: self._pair(seed, source, target))

    def theory(self, seed: int) -> list[dict[str, Any]]:
        """The four predictions for two-class white noise, each on its targets."""
        return self._cell("theory", seed, "theory", lambda: {"rows": self._theory(seed)})["rows"]

    def irregular(self, seed: int, kind: str) -> dict[str, Any]:
        """One net whose training was irregular, with statistics estimated anew."""
        name = f"irregular/{kind.replace(' ', '-')}"
        return self._cell(name, seed, "irregular training", lambda: self._irregular(seed, kind))

    def latent(self) -> dict[str, Any]:
        """The bottleneck of two nets, with and without weight decay, after and before the ReLU."""
        return self._cell("latent", 0, "latent space", self._latent)

    # -- the library at work --------------------------------------------------------------------------------------

    def _train(self, seed: int, source: Pair, name: str, decay: float = 0.0, **changes: Any) -> Model:
        """A U-Net trained on a source; kept beside its cell, and resumed after an interruption."""
        study = self.study
        folder = self.kept.folder / f"seed-{seed}" / name
        finished = folder / "trained.json"
        if finished.exists() and read_json(finished).get("settings") == study.identity():
            return Model.load(folder, self.device)
        finished.unlink(missing_ok=True)  # before the weights that it vouches for change
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key("bn study", seed, "network"))
            net = networks.build("unet", classes=2, channels=1, size=study.side, width=study.width, depth=study.depth)
        adam = Optimiser(kind="adam", lr=changes.get("lr") or study.lr, weight_decay=decay)
        plan = Plan(
            steps=changes.get("steps") or study.steps,
            batch=changes.get("batch") or study.batch,
            seed=seed,
            optimiser=adam,
            precision=study.precision,
            save_every=250,
        )
        training = folder / f"training-{study.identity()}"
        adapted = adapt(
            net,
            pictures(study, seed, source, study.images, "train"),
            None,
            "source-only",
            plan=plan,
            task=self.task,
            folder=training,
            device=self.device,
            force=self.kept.force,
        )
        adapted.model.save(folder)
        write_json(finished, {"settings": study.identity()})
        shutil.rmtree(training)
        return adapted.model

    def _adapted(self, model: Model, domain: Domain) -> Model:
        """The same net with the BatchNorm statistics of ``domain``, whose labels stay closed."""
        net = model.method.net
        plan = Plan(precision="float32")
        done = adapt(
            net, None, domain, "adabn", plan=plan, task=self.task, preprocess=model.preprocess, device=self.device
        )
        return done.model

    def _batches(self, model: Model, domain: Domain) -> Iterator[Tensor]:
        stream = Stream(
            domain.unlabelled(), "study", self.task.name, model.preprocess, batch=1, seed=0, device=self.device
        )
        return (x for _, x in stream.pictures(range(len(domain))))

    def _look(self, model: Model, domain: Domain, seed: int) -> dict[str, Activations]:
        """Activations by the short name of the layer. Source and target see other positions."""
        layers = block_layers(model.method.net)
        found = activations(
            model.method.net,
            self._batches(model, domain),
            layers=list(layers.values()),
            positions=self.study.positions,
            seed=seed,
        )
        return {name: found[layer] for name, layer in layers.items()}

    def _source_at_work(self, seed: int, source: Pair) -> tuple[Model, dict[str, Activations]]:
        if self._at_work is None or self._at_work[0] != (seed, source):
            model = self._train(seed, source, short(source))
            home = pictures(self.study, seed, source, 2 * self.study.target_images, "home")
            self._at_work = ((seed, source), model, self._look(model, home, key(seed, "source")))
        return self._at_work[1:]

    def _distances_at(self, layer: str) -> tuple[str, ...]:
        slow = () if layer == "bottleneck" else self.study.at_bottleneck
        return tuple(name for name in self.study.distances if name not in slow)

    # -- what the cells hold --------------------------------------------------------------------------------------

    def _source(self, seed: int, source: Pair) -> dict[str, Any]:
        from acclimate.distances import source_null

        model, home = self._source_at_work(seed, source)
        null: dict[str, dict[str, Any]] = {name: {} for name in self.study.distances}
        for layer, (values, images) in standardised(home, home).items():
            for name in self._distances_at(layer):
                distance, grouped = distance_named(name)
                found = source_null(
                    distance, values, images, repeats=self.study.null_repeats, seed=seed, grouped=grouped
                )
                null[name][layer] = found._asdict()
        return {
            "source": source,
            "iou": _score(model, pictures(self.study, seed, source, self.study.target_images)).value,
            "layers": list(home),
            "channels": sum(found.values.shape[1] for found in home.values()),
            "unusable": sum(int((~usable(found.values)).sum()) for found in home.values()),
            "null": null,
        }

    def _pair(self, seed: int, source: Pair, target: Pair) -> dict[str, Any]:
        study = self.study
        model, home = self._source_at_work(seed, source)
        unlabelled = pictures(study, seed, target, study.target_images, "adapt").unlabelled()
        scored = pictures(study, seed, target, study.target_images)
        adapted = self._adapted(model, unlabelled)
        before, after = (
            standardised(self._look(which, unlabelled, key(seed, "target")), home) for which in (model, adapted)
        )
        distances: dict[str, dict[str, Any]] = {name: {} for name in study.distances}
        for layer, (values, images) in standardised(home, home).items():
            some = images < study.target_images  # as many images as the target has, and as either half of the null
            for name in self._distances_at(layer):
                distance, grouped = distance_named(name)
                distances[name][layer] = {
                    when: float(
                        distance(values[some], there.values, *((images[some], there.images) if grouped else ()))
                    )
                    for when, there in (("before", before[layer]), ("after", after[layer]))
                }
        return {
            "source": source,
            "target": target,
            "clipped": clipped(scored),
            "without": scores(_score(model, scored)) | self._first_mask(model, scored),
            "with": scores(_score(adapted, scored)) | self._first_mask(adapted, scored),
            "distances": distances,
        }

    def _first_mask(self, model: Model, domain: Domain) -> dict[str, Any]:
        _, logits = next(model.logits(domain.subset([0])))
        return {"mask": packed(logits.argmax(1)[0].to(torch.uint8).cpu().numpy())}

    def _theory(self, seed: int) -> list[dict[str, Any]]:
        study = self.study
        (inside, outside), sigma = study.regular, study.sigma
        model, _ = self._source_at_work(seed, study.regular)
        middle = sum(study.share) / 2

        def affine(a: float, b: float) -> dict[str, Any]:
            return {"pair": (a * inside + b, a * outside + b), "sigma": abs(a) * sigma}

        looks: list[tuple[str, str, dict[str, Any]]] = [
            ("none", "no change", {}),
            ("positive", "x → x + 0.1", affine(1.0, 0.1)),
            ("positive", "x → x / 2 + 0.25", affine(0.5, 0.25)),
            ("positive", "x → x / 2", affine(0.5, 0.0)),
            ("negative", "x → 1 − x", affine(-1.0, 1.0)),
            ("negative", "x → 0.75 − x / 2", affine(-0.5, 0.75)),
            ("proportion", "object 10 % of the image", {"share": 0.1}),
            ("proportion", f"object {100 * (1 - middle / 2):.0f} % of the image", {"share": 1 - middle / 2}),
            ("noise", "noise 1.5 times as strong", {"sigma": 1.5 * sigma}),
            ("noise", "noise twice as strong", {"sigma": 2 * sigma}),
        ]
        rows = []
        for prediction, name, look in looks:
            pair = look.get("pair", study.regular)
            rest = {setting: value for setting, value in look.items() if setting != "pair"}
            unlabelled = pictures(study, seed, pair, study.target_images, "adapt", **rest).unlabelled()
            scored = pictures(study, seed, pair, study.target_images, **rest)
            without, adapted = (scores(_score(m, scored)) for m in (model, self._adapted(model, unlabelled)))
            row = {"prediction": prediction, "name": name, "target": pair, "sigma": sigma, "share": study.share, **rest}
            rows.append(row | {"clipped": clipped(scored), "without": without, "with": adapted})
        return rows

    def _irregular(self, seed: int, kind: str) -> dict[str, Any]:
        study = self.study
        changes = study.irregular[kind].model_dump()
        own = f"irregular/{kind.replace(' ', '-')}" if any(changes.values()) else short(study.regular)  # the grid's net
        model = self._train(seed, study.regular, own, **changes)
        found: dict[str, Any] = {"kind": kind, "changes": changes}
        count = study.target_images
        training = pictures(study, seed, study.regular, study.images, "train").unlabelled()
        for name, pair in (("own", study.regular), ("moved", study.moved)):
            scored = pictures(study, seed, pair, count)
            fresh = pictures(study, seed, pair, count, "adapt").unlabelled()
            found[name] = {
                "without": _score(model, scored).value,
                "source statistics": _score(self._adapted(model, training), scored).value,
                "target statistics": _score(self._adapted(model, fresh), scored).value,
            }
        return found

    def _latent(self) -> dict[str, Any]:
        study = self.study
        source, target = study.dark_bright
        home = pictures(study, 0, source, study.target_images, "home")
        away = pictures(study, 0, target, study.target_images, "adapt").unlabelled()
        nets = {}
        for name, decay in (("weight decay", study.decay), ("no weight decay", 0.0)):
            # Without decay it is the net of the grid: the same file.
            model = self._train(0, source, short(source) if decay == 0 else "latent", decay)
            adapted = self._adapted(model, away)
            seen = {
                "source": self._look(model, home, key("source")),
                "target": self._look(model, away, key("target")),
                "adapted": self._look(adapted, away, key("target")),
            }
            raw = {role: found["bottleneck"].values for role, found in seen.items()}
            nets[name] = {
                "after the ReLU": latent_facts({role: values.relu() for role, values in raw.items()}),
                "before the ReLU": latent_facts(raw),
            }
        return {"source": source, "target": target, "decay": study.decay, "nets": nets}


def distance_named(name: str) -> tuple[Callable[..., Tensor | float], bool]:
    """A distance, and whether it is also given the image of each row."""
    from acclimate.distances import DISTANCES, classifier_two_sample

    return (classifier_two_sample, True) if name == "classifier" else (DISTANCES[name], False)


def usable(values: Tensor) -> Tensor:
    """``(C,)`` booleans: :func:`~acclimate.distances.usable_channels`, also where none is."""
    from acclimate.distances import usable_channels

    if bool((values == values[0]).all()):
        return torch.zeros(values.shape[1], dtype=torch.bool, device=values.device)
    return usable_channels(values)


def standardised(found: Mapping[str, Activations], source: Mapping[str, Activations]) -> dict[str, Activations]:
    """Activations in units of the source's standard deviation, without the channels that hardly vary on the source.

    So that a channel of large spread does not decide alone; distances without a unit stay as they are.
    """
    keep = {layer: usable(values) for layer, (values, _) in source.items()}
    return {
        layer: Activations(values[:, keep[layer]] / source[layer].values[:, keep[layer]].std(0), images)
        for layer, (values, images) in found.items()
    }


def clipped(domain: Domain) -> float:
    """The share of pixels that are black or white: all that were cut off, and the few that were rounded to it."""
    pixels = np.stack([np.asarray(image) for image in domain.images])
    return float(((pixels == 0) | (pixels == 255)).mean())


def _score(model: Model, domain: Domain) -> Evaluation:
    return evaluate(model, domain, resamples=0)


def scores(found: Evaluation) -> dict[str, float]:
    """IoU of the object, IoU against the complement of the truth, and the predicted share of the object."""
    (right_out, wrong_in), (wrong_out, right_in) = found.confusion
    truly_out = right_out + wrong_in
    complement = wrong_in / max(1, truly_out + right_in)  # predicted and background, over either
    total = truly_out + wrong_out + right_in
    return {
        "iou": found.value,
        "complement": complement,
        "share": (wrong_in + right_in) / total,
        "truth": (wrong_out + right_in) / total,
    }


def latent_facts(values: Mapping[str, Tensor], shown: int = 4) -> dict[str, Any]:
    """Histograms of the channels with the largest spread on the source, and how degenerate all channels are.

    Args:
        values: ``(n, C)`` of "source" and other roles.
    """
    source = values["source"].double()
    channels = []
    for channel in source.var(0).argsort(descending=True, stable=True)[:shown].tolist():
        columns = {role: found[:, channel].double() for role, found in values.items()}
        together = torch.cat(list(columns.values()))
        low, high = float(together.min()), float(together.max())
        edges = torch.linspace(low, high if high > low else low + 1, BINS + 1, dtype=torch.float64)
        counts = {role: torch.histogram(column.cpu(), edges)[0].long().tolist() for role, column in columns.items()}
        channels.append({"channel": channel, "edges": edges.tolist(), "counts": counts})
    return {
        "channels": int(source.shape[1]),
        "dead": float((~usable(source)).double().mean()),
        "at zero": {role: float((found == 0).double().mean()) for role, found in values.items()},
        "shown": channels,
    }
