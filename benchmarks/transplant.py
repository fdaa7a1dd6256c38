"""A translator learnt with one segmentation network, transplanted into the training of another.

    ACCLIMATE_DATA=... python benchmarks/transplant.py [--pairs lucchi-to-vnc] [--network erfnet] [--seeds 0 1]

SUIT is trained with a recipe's own network, plainly and with averaged weights. Its translated source images, beside the source
itself, then train another network, which never meets the translator's critic. All rows are scored on the target's test
images, those of source-only also with re-estimated BatchNorm statistics (adabn), which every other row has too. Resumable:
a run goes on from its checkpoints, and the results, ``results/transplant.json``, are replaced whenever one is finished.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from acclimate import __version__, recipes
from acclimate.benchmark.cell import Clock
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Batch
from acclimate.engine.adapt import adapt
from acclimate.engine.evaluate import evaluate
from acclimate.engine.model import Model
from acclimate.engine.translate import translate
from acclimate.experiment import Domains, Experiment, fresh_network, open_domains
from acclimate.files import read_json, write_json
from acclimate.methods import Method
from acclimate.methods.averaging import Averaging
from acclimate.methods.base import Progress, Stage, Sweep
from acclimate.networks.contract import Network
from acclimate.networks.norm import batch_norms, restat
from acclimate.plan import Plan

REPOSITORY = Path(__file__).parents[1]
PAIRS = ("lucchi-to-vnc", "vnc-to-lucchi")  # recipes
NETWORKS: dict[str, dict[str, Any]] = {"erfnet": {}, "deeplab-v3": {"depth": 18}}  # with settings for quick runs
AVERAGED = {"average": "swa"}  # Avg.W; in some hundred steps a running mean of a thousand would not have moved
SUIT = {"generator_lr": 1e-3, "critic_lr": 1e-3}  # some hundred steps, where the default is for thousands


class Transplanted(Averaging):
    """Source-only on the given images, min_theta E CE(f(x), y), perhaps averaged, then with the target's statistics."""

    name = "transplanted"

    def stages(self) -> Sequence[Stage]:
        last = [Sweep("statistics", "statistics", ("target",))] if batch_norms(self.net) else []
        return [*self.averaged("learn", ("source",)), *last]

    def learn(self, source: Batch, at: Progress) -> dict[str, Tensor]:
        self.update({"supervised": self.task.loss(self.net(source.x).logits, source.y)}, "net")
        return {}

    def statistics(self, target: Iterator[Batch]) -> None:
        restat(self.net, (batch.x for batch in target), self.total)


@dataclasses.dataclass(frozen=True)
class Row:
    """What is trained: a method, its settings, on the source or on the source with its translation, from which row's net."""

    name: str
    method: str | type[Method]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    of: str | None = None  # the row whose trained network it starts from
    halved: bool = False  # its batch, because each step sees every source image twice
    translated: bool = False


LEARNT = (
    Row("source-only", "source-only"),
    Row("adabn", "adabn", of="source-only"),
    Row("suit", "suit", SUIT, halved=True),
    Row("suit averaged", "suit", SUIT | AVERAGED, halved=True),
)
GIVEN = (
    Row("source-only", "source-only"),
    Row("adabn", "adabn", of="source-only"),
    Row("transplanted", Transplanted, translated=True),
    Row("transplanted averaged", Transplanted, AVERAGED, translated=True),
)


def rows(
    network: tuple[Network, Preprocess],
    domains: Domains,
    listed: Sequence[Row],
    plan: Plan,
    folder: Path,
    translated: Domain | None = None,
) -> Iterator[tuple[dict[str, Any], Model]]:
    """Train and score the listed rows with one network; those that ask for it on the source joined with ``translated``."""
    fresh, preprocess = network
    assert domains.source is not None
    assert domains.target_test is not None
    task = domains.task()
    trained: dict[str, Model] = {}
    for row in listed:
        source = domains.source.joined(translated) if row.translated and translated is not None else domains.source
        place = folder / row.name.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        clock = Clock(place / "seconds.json")  # of all sittings
        done = adapt(
            trained[row.of].method.net if row.of else fresh,
            source,
            domains.target,
            row.method,
            plan=plan.replace(batch=max(1, plan.batch // 2)) if row.halved else plan,
            preprocess=preprocess,
            task=task,
            folder=place / "run",
            device="cpu",
            observer=lambda report, clock=clock: clock.tick(),  # type: ignore[misc]
            **row.settings,
        )
        clock.stop()
        trained[row.name] = done.model
        path = place / "score.json"
        if not path.exists():
            found = evaluate(done.model, domains.target_test)
            write_json(path, {"score": found.value, "interval": found.interval, "seconds": clock.seconds})
        yield {"row": row.name, **read_json(path)}, done.model


def pair(
    experiment: Experiment, name: str, network: str, settings: dict[str, Any], seed: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """All rows of one pair and seed: first those of the experiment's network, then those of ``network``."""
    domains = open_domains(experiment, None, score=True)
    assert domains.source is not None
    task = domains.task()
    plan = experiment.plan.replace(seed=seed)
    place = folder / name / f"seed-{seed}"
    same = {"pair": name, "seed": seed, "primary": task.primary, "acclimate": __version__}
    own, other = experiment.network or "unet", experiment.replace(network=network, network_settings=settings)
    models = {}
    for facts, model in rows(fresh_network(experiment, domains, task, seed), domains, LEARNT, plan, place / "learnt"):
        models[facts["row"]] = model
        yield {**same, "network": own, "generator": own if "suit" in facts["row"] else None, **facts}
    translated = translate(models["suit"], domains.source)
    fresh = fresh_network(other, domains, task, seed)
    for facts, _ in rows(fresh, domains, GIVEN, plan, place / f"given-{network}", translated):
        learnt_with = own if "transplanted" in facts["row"] else None
        yield {**same, "network": network, "generator": learnt_with, **facts}


def add(path: Path, row: dict[str, Any]) -> None:
    """Put a row in its place among those of ``path``."""
    key = ("pair", "seed", "network", "row")
    kept = [old for old in (read_json(path) if path.exists() else []) if any(old[k] != row[k] for k in key)]
    write_json(path, sorted([*kept, row], key=lambda found: [str(found[k]) for k in key]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), help="recipes for segmentation")
    parser.add_argument(
        "--network", choices=NETWORKS, default="erfnet", help="the network that is given the translator"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".cache" / "transplant")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results" / "transplant.json")
    chosen = parser.parse_args()
    for seed in chosen.seeds:
        for name in chosen.pairs:
            experiment = recipes.load(name).experiment()
            settings = NETWORKS[chosen.network]
            for row in pair(experiment, name, chosen.network, settings, seed, chosen.out):
                add(chosen.results, row)
                text = f"{row['network']:12} {row['row']:24}"
                print(f"{name:16} seed {seed} {text} {row['primary']} {row['score']:.3f}", flush=True)


if __name__ == "__main__":
    main()
