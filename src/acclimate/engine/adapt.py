"""From two domains and a network to an adapted model: builds the streams that a method needs, and no other."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from acclimate import tasks
from acclimate.data.domain import Domain
from acclimate.data.preprocess import Preprocess
from acclimate.data.streams import Stream
from acclimate.engine.model import Model
from acclimate.engine.run import Observer, Run
from acclimate.engine.world import World
from acclimate.errors import UsageError
from acclimate.methods import Method, Need, find
from acclimate.networks.contract import Network
from acclimate.plan import Plan
from acclimate.random import key
from acclimate.tasks import Task


@dataclasses.dataclass
class Adapted:
    """What a run leaves: the model, its losses and metrics at each log interval, and what looked wrong."""

    model: Model
    history: list[dict[str, Any]]
    warnings: list[str]
    seconds: float  # of this process, since the last resume


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    World.current()  # each process takes its own device
    return torch.device("cuda", torch.cuda.current_device())  # with a number: threads do not inherit the current one


def default_preprocess(net: Network, task: Task) -> Preprocess:
    """The size, channels and normalisation that the network was made for."""
    channels, height, width = net.input_shape
    mean, std = (value[0] if len(set(value)) == 1 else value for value in net.normalisation)
    shared: dict[str, Any] = {"channels": channels, "mean": mean, "std": std}
    return Preprocess(**shared, **({"size" if task.name == "classification" else "crop": (height, width)}))


def check_network(net: Network, task: Task) -> None:
    """Raise :class:`UsageError` if a network that predicts images is to predict pixels, or the other way round."""
    maps = len(net.shapes["logits"]) == 3
    if maps != (task.name == "segmentation"):
        name = net.recipe["name"] if net.recipe else type(net.module).__name__
        what = "a class for each pixel" if maps else "one class for an image"
        raise UsageError(f"{name} gives {what}; for {task.name} choose another network (acclimate networks)")


def adapt(
    net: Network,
    source: Domain | None,
    target: Domain | None,
    method: str | type[Method] = "dann",
    *,
    labelled: Domain | None = None,
    plan: Plan | None = None,
    preprocess: Preprocess | None = None,
    task: Task | None = None,
    folder: Path | str | None = None,
    device: torch.device | str | None = None,
    observer: Observer | None = None,
    force: bool = False,
    **settings: Any,
) -> Adapted:
    """Adapt ``net`` from ``source`` to ``target``; target labels, if there are any, are not used.

    Args:
        net: trained on the source for methods that need a source model, else freshly made. It is copied, not changed.
        method: a registered name or a class of your own.
        labelled: a few labelled target images, for methods that ask for them (``memory-bank-few``).
        task: taken from the source (or, without one, from the target) where not given.
        folder: keeps checkpoints, from which the same call resumes.
        settings: the method's own.

    Raises :class:`UsageError` if a domain that the method needs is missing.
    """
    kind = find(method) if isinstance(method, str) else method
    plan = plan or Plan()
    if task is None:
        known = source if source is not None else target
        if known is None or known.task is None:
            raise UsageError("what is to be predicted? Give a labelled source, or task=")
        task = tasks.build(known.task, known.classes)
    check_network(net, task)
    preprocess = preprocess or default_preprocess(net, task)
    device = torch.device(device) if device is not None else default_device()
    given = {"source": source, "target": target, "labelled": labelled}
    streams = build_streams(kind, given, task, plan, preprocess, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(plan.seed, "parts of the method"))
        made = kind(copy.deepcopy(net), task, plan, **settings)
    facts = {"network": net.recipe, "preprocess": preprocess.model_dump(mode="json"), "classes": list(task.classes)}
    run = Run(
        made,
        streams,
        device=device,
        folder=None if folder is None else Path(folder),
        facts=facts,
        observer=observer,
        force=force,
    )
    begun = time.perf_counter()
    run()
    return Adapted(Model(made, preprocess, device), run.history, run.warnings, time.perf_counter() - begun)


STREAMS = {"source": Need.SOURCE, "target": Need.TARGET, "labelled": Need.FEW_TARGET_LABELS}
WANTED = {
    "source": "a labelled source",
    "target": "a target domain",
    "labelled": "a few labelled target images: give them with labelled= (--labelled FOLDER)",
}


def build_streams(
    method: type[Method],
    given: Mapping[str, Domain | None],
    task: Task,
    plan: Plan,
    preprocess: Preprocess,
    device: torch.device,
) -> Mapping[str, Stream]:
    """One stream for each domain that the method's ``needs`` name; the target's without labels unless an oracle asks."""
    world = World.current()
    domains: dict[str, Domain] = {}
    for name, need in STREAMS.items():
        if need in method.needs:
            domain = given[name]
            if domain is None:
                raise UsageError(f"{method.name} needs {WANTED[name]}")
            domains[name] = domain
    if "target" in domains and Need.TARGET_LABELS not in method.needs:
        domains["target"] = domains["target"].unlabelled()
    for name, domain in domains.items():
        if name == "target" and Need.TARGET_LABELS not in method.needs:
            continue
        if domain.labels is None or domain.classes != task.classes:
            raise UsageError(
                f"{method.name} reads {name} labels: {domain.name} needs labels of the classes {', '.join(task.classes)}"
            )
    return {
        name: Stream(
            domain,
            name,
            task.name,
            preprocess,
            batch=plan.batch,
            seed=plan.seed,
            device=device,
            rank=world.rank,
            world=world.size,
            memory_budget=plan.memory_budget,
            workers=plan.workers,
        )
        for name, domain in domains.items()
    }
