"""Small finished runs of both tasks, scored and not, with their reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import several
import torch
import toys

from acclimate import experiment
from acclimate.data.domain import Domain
from acclimate.experiment import Domains, Experiment, Player, carry_out
from acclimate.methods import find
from acclimate.plan import Plan
from acclimate.report.evidence import gather
from acclimate.report.schema import Report
from acclimate.report.write import write

ODD = "<script>alert('ring')</script>"
KINDS = [(task, score) for task in ("classification", "segmentation") for score in (True, False)]
METHODS = {"classification": ("adabn", "dann"), "segmentation": ("adabn", "self-training")}


class Closed(Sequence[Any]):
    """Labels that must not be read."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("a target label was read")


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished run."""

    folder: Path
    results: dict[str, Any]
    domains: Domains
    players: list[Player]

    @property
    def html(self) -> str:
        return (self.folder / "report.html").read_text()


def odd(domain: Domain) -> Domain:
    """The same domain with a class and file names that are code."""
    classes = (*domain.classes[:-1], ODD)
    return dataclasses.replace(domain, classes=classes, names=[f"<b>{name}</b>&.png" for name in domain.names])


def draw(self: Any, labels: torch.Tensor) -> torch.Tensor:
    """The same grey image whatever is asked for: what the toy network takes for 128 of 255."""
    return torch.zeros(len(labels), 3, toys.SIDE, toys.SIDE)


def darker(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Half as bright: 0 of 255 is what the toy network takes for -1."""
    return (x - 1) / 2


def run(task: str, folder: Path, score: bool, seeds: Sequence[int]) -> Done:
    """Train for a moment, gather the evidence, write the report.

    In the scored classification run DANN draws images; in the segmentation run that is not scored AdaBN redraws them.
    """
    source, target, test = (odd(domain) for domain in toys.PAIRS[task](60 if task == "classification" else 20))
    closed = dataclasses.replace(target, labels=Closed(len(target)))
    kept: list[tuple[Domains, list[Player]]] = []

    def fresh(*_: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = toys.network(task)
        net.recipe = {"name": "toy", "settings": {}}
        return net, toys.PREPROCESS[task]

    def after(domains: Domains, players: list[Player]) -> None:
        kept.append((domains, players))
        gather(domains, players, folder)

    with pytest.MonkeyPatch.context() as patch:
        domains = Domains(source, source.subset(range(20)), target if score else closed, test if score else None)
        patch.setattr(experiment, "open_domains", lambda *_: domains)
        patch.setattr(experiment, "fresh_network", fresh)
        if score and task == "classification":
            patch.setattr(find("dann"), "generate", draw)
        if not score and task == "segmentation":
            patch.setattr(find("adabn"), "translate", darker)
        plan = Plan(steps=12, batch=16, log_every=2, precision="float32")
        asked = Experiment(source=f"toys/{ODD}", target="toys/target", methods=METHODS[task], oracle=score, plan=plan)
        results = carry_out(asked, folder, seeds=seeds, score=score, device="cpu", after=after)
    write(folder, "acclimate adapt --source 'a <b>' --target c")
    return Done(folder, results, *kept[0])


@pytest.fixture(scope="session", params=KINDS)
def done(request: pytest.FixtureRequest, runs: dict[tuple[str, bool], Done]) -> Done:
    """Each of the runs."""
    return runs[request.param]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Done]:
    """All runs by (task, scored)."""
    return {
        (task, score): run(task, tmp_path_factory.mktemp("run"), score, (0, 1) if score else (0,))
        for task, score in KINDS
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> several.Place:
    """Several runs of one target."""
    return several.finish(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="session")
def both(finished: several.Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    """One page over ``one``, ``two`` and the benchmark's task."""
    return finished.merged(tmp_path_factory.mktemp("both"), "one", "two", "cells/toy")
