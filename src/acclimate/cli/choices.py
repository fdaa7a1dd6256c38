"""From what was typed to settings: pairs, numbers, sizes, and what was left open chosen from the data."""

from __future__ import annotations

import json
import os
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acclimate.errors import DataError, UsageError, nearest, unknown

if TYPE_CHECKING:
    import torch

    from acclimate.data.domain import Domain
    from acclimate.engine.model import Model
    from acclimate.experiment import Domains, Experiment
    from acclimate.settings import Settings

BATCH = {"classification": 64, "segmentation": 8}
CROP, MULTIPLE = 192, 16  # a U-Net halves the sides four times
FLIPS = ("none", "horizontal", "dihedral")
LOOKED_AT = 20  # images of a domain whose size is read


def pairs(items: Iterable[str] | None, option: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping. Raises :class:`UsageError` for one without ``=`` or given twice."""
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise UsageError(f"{option} {item!r}: write KEY=VALUE")
        if name in found:
            raise UsageError(f"{option} {name}: given twice")
        found[name] = value
    return found


def typed(text: str) -> Any:
    """A number, a truth value, a list (``1,2``), or the text itself."""
    if "," in text and not text.startswith(("[", "{")):
        return [typed(part) for part in text.split(",")]
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


@contextmanager
def named(typed_: Mapping[str, str]) -> Iterator[None]:
    """What is wrong with a setting is said of what was typed: ``typed_`` holds it by setting, such as ``--overlap 1.5``."""
    try:
        yield
    except UsageError as error:
        import pydantic

        if not isinstance(error.__cause__, pydantic.ValidationError):
            raise
        first = error.__cause__.errors()[0]
        name = str(first["loc"][0])
        if name not in typed_:
            raise
        wrong = (
            first["msg"].removeprefix("Value error, ").replace("Input should be", "must be").partition(", unable")[0]
        )
        raise UsageError(f"{typed_[name]}: {wrong}") from error


def settings_of(kind: type[Settings], values: Mapping[str, str], owner: str = "") -> dict[str, Any]:
    """The values in the types that ``kind`` declares, as JSON.

    Raises :class:`UsageError`, which says what was typed (``--set OWNER.KEY=VALUE``) and names the nearest setting.
    """
    written = {name: f"--set {owner}.{name}={value}" for name, value in values.items()}
    for name in values:
        if name not in kind.model_fields:
            near = nearest(name, kind.model_fields)
            every = "" if near else f" (known: {', '.join(sorted(kind.model_fields)) or 'none'})"
            raise UsageError(f"{written[name]}: {owner} has no setting {name!r}{near}{every}")
    read = {name: typed(value) for name, value in values.items()}
    for name, field in kind.model_fields.items():
        if name in read and typing.get_origin(field.annotation) is tuple and not isinstance(read[name], list):
            read[name] = [read[name]]  # "--set dann.hidden=100"
    with named(written):
        made = kind(**read).model_dump(mode="json")
    return {name: made[name] for name in read}


def method_settings(items: Iterable[str] | None, methods: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``METHOD.KEY=VALUE`` by method, and ``plan.KEY=VALUE``.

    Raises :class:`UsageError` for a setting that does not exist or a method that takes no part.
    """
    from acclimate import registry
    from acclimate.methods import find
    from acclimate.plan import Plan

    grouped: dict[str, dict[str, str]] = {}
    for name, value in pairs(items, "--set").items():
        owner, dot, setting = name.rpartition(".")
        if not dot:
            kinds = {known: find(known).Settings for known in methods} | {"plan": Plan}
            owners = [f"{known}.{name}" for known, kind in kinds.items() if name in kind.model_fields]
            whose = " or ".join(owners) or "METHOD.KEY or plan.KEY"
            raise UsageError(f"--set {name}={value}: say whose setting it is: {whose}")
        if owner not in (*methods, "plan"):
            near = nearest(owner, (*methods, "plan"))
            other = (
                f"; add --method {owner}" if owner in registry.names("methods") else f" ({', '.join(methods)}, plan)"
            )
            raise UsageError(f"--set {name}={value}: {owner!r} takes no part here{near or other}")
        grouped.setdefault(owner, {})[setting] = value
    plan = settings_of(Plan, grouped.pop("plan", {}), "plan")
    return {name: settings_of(find(name).Settings, values, name) for name, values in grouped.items()}, plan


def side(text: str | None, option: str) -> list[int] | None:
    """``64`` or ``64x96`` (height x width) in pixels."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) <= 2 and all(part.isdecimal() for part in parts) and not all(int(part) for part in parts):
        raise UsageError(f"{option} {text}: a side must be at least 1 pixel")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"{option} {text!r}: write pixels, such as 64, or height x width, such as 64x96")
    numbers = [int(part) for part in parts]
    return numbers if len(numbers) == 2 else numbers * 2


def device(name: str | None) -> torch.device:
    """Raises :class:`UsageError` for a device that is not there."""
    import torch

    from acclimate.engine.adapt import default_device

    if name is None:
        return default_device()
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"unknown device {name!r}{nearest(name, ('cpu', 'cuda'))}; write cpu, cuda or cuda:1"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"there is no {name} here ({torch.cuda.device_count()} CUDA devices); leave out --device or write cpu"
        )
    return found


def default_folder(source: str, target: str) -> Path:
    """``runs/<source>-to-<target>``, named so that ``a/train`` and ``b/train`` do not meet."""
    return Path("runs") / f"{_short(source)}-to-{_short(target)}"


def _short(ref: str) -> str:
    from acclimate.data.folder import SPLITS

    path = Path(os.path.abspath(ref)) if Path(ref).exists() else Path(ref)
    name = f"{path.parent.name}-{path.name}" if path.name in (*SPLITS, "images") else path.name
    return name.replace(":", "-") or "root"


def model_at(run: Path, method: str | None, where: torch.device | str = "cpu") -> Model:
    """The model of a run's method (default: its last one that read no target label), or that in a folder of its own.

    Raises :class:`DataError` for a run that is not finished or a folder without a model.
    """
    from acclimate.engine.model import Model
    from acclimate.experiment import model_folder

    if not run.exists():
        raise DataError(f"{run}: there is no such folder; give the --out of acclimate adapt")
    players = players_of(run)
    if not players and next(run.glob("seed-*"), None):
        raise DataError(f"{run} is not finished; run the same acclimate adapt command again")
    if method is None:
        return Model.load(model_folder(run), where)
    if method not in players:
        raise unknown(f"method of {run}", method, players)
    return Model.load(players[method], where)


def others(run: Path, name: str) -> list[str]:
    """The other methods of a run, which ``--method`` chooses; none where ``run`` is a model."""
    known = players_of(run) if (run / "results.json").exists() else {}
    return [other for other in known if other != name]


def players_of(run: Path) -> dict[str, Path]:
    """The model folders of a run's first seed by method, in order; empty where ``run`` is no run.

    Where ``run`` is one method's folder inside a run, source-only beside it belongs to the answer.
    """
    from acclimate.experiment import BASELINE
    from acclimate.files import read_json

    if (run / "results.json").exists():
        results = read_json(run / "results.json")
        folders = {name: run / f"seed-{results['seeds'][0]}" / name for name in results["players"]}
        return {name: folder for name, folder in folders.items() if (folder / "model.json").exists()}
    beside = run.resolve().parent / BASELINE
    if run.resolve().parent.name.startswith("seed-") and (beside / "model.json").exists():
        return {BASELINE: beside, run.resolve().name: run}
    return {}


# -- what the data decide ---------------------------------------------------------------------------------------------


def sizes(domain: Domain) -> Counter[tuple[int, ...]]:
    """``(height, width)`` of up to 20 images; a broken one among them is an error that names it."""
    step = max(1, len(domain) // LOOKED_AT)
    return Counter(tuple(domain.images[i].shape[:2]) for i in range(0, len(domain), step))


def fitting_crop(*domains: Domain | None) -> int:
    """192 pixels, or less where the images are smaller: a multiple of 16."""
    smallest = min(min(size) for domain in domains if domain is not None for size in sizes(domain))
    return max(MULTIPLE, min(CROP, smallest) // MULTIPLE * MULTIPLE)


def found(role: str, domain: Domain, more: str) -> str:
    """One line on a domain: how many images, how large, which classes."""
    seen = sizes(domain)
    low, high = (tuple(pick(size[axis] for size in seen) for axis in (0, 1)) for pick in (min, max))
    size = f"{low[0]} x {low[1]}" if low == high else f"{low[0]} x {low[1]} to {high[0]} x {high[1]}"
    colour = "colour" if domain.images[0].shape[-1] == 3 else "grey"
    return f"{role:8} {domain.name}: {len(domain)} images, {size} pixels, {colour}; {more}"


def class_counts(domain: Domain) -> str:
    """``10 classes of 80 to 120 images``."""
    if domain.task != "classification" or domain.labels is None:
        return f"{len(domain.classes)} classes: {_listed(domain.classes)}"
    counts = Counter(int(label) for label in domain.labels)
    low, high = min(counts.values()), max(counts.values())
    spread = f"{low}" if low == high else f"{low} to {high}"
    return f"{len(domain.classes)} classes of {spread} images: {_listed(domain.classes)}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def plan_lines(
    experiment: Experiment, domains: Domains, task: str, net: Any, preprocess: Any, where: torch.device
) -> list[str]:
    """What was found and what was chosen, and why, in a few lines."""
    import torch

    from acclimate.data.preprocess import Preprocess

    chosen: Preprocess = preprocess
    lines = []
    if domains.source is not None:
        kept = f" ({len(domains.source_test)} more are kept for scoring)" if domains.source_test is not None else ""
        lines.append(found("source", domains.source, class_counts(domains.source)) + kept)
    labels = "labels used by trained-on-target (oracle) only" if experiment.oracle else "labels are not used"
    lines.append(found("target", domains.target, labels))
    if domains.labelled is not None:
        lines.append(found("labelled", domains.labelled, class_counts(domains.labelled)))
    weights = sum(parameter.numel() for parameter in net.parameters())
    if task == "classification":
        height, width = chosen.size or (0, 0)
        size = f"images resized to {height} x {width} (--size)"
    else:
        zooms = dict.fromkeys(chosen.scale_of(name) for name in ("source", "target"))
        scale = (
            f", images scaled by {' and '.join(f'{zoom:g}' for zoom in zooms)} (--scale)" if set(zooms) != {1} else ""
        )
        size = (
            f"crops of {chosen.crop[0]} x {chosen.crop[1]} (--crop){scale}" if chosen.crop else f"whole images{scale}"
        )
    colour = "grey" if chosen.channels == 1 else "colour"
    recipe = net.recipe["name"] if net.recipe else "given"
    lines.append(f"{'network':8} {recipe}, {weights / 1e6:.1f} M weights; {size}, {colour}")
    plan = experiment.plan
    players = ["trained-on-target"] if experiment.oracle else []
    first = "source-only, then " if experiment.model is None else "the given model beside "
    flips = chosen.geometry.flips
    count = torch.get_num_threads()
    threads = f" ({count} thread{'s' if count > 1 else ''})" if where.type == "cpu" else ""
    names = ", ".join([*experiment.methods, *players])
    lines.append(
        f"{'train':8} {first}{names}: up to {plan.steps} steps of {plan.batch} images "
        f"per domain, {plan.precision} on {where.type}{threads}, "
        + ("no flips (--augment)" if flips == "none" else f"{flips} flips")
    )
    if experiment.warm_start:
        lines.append(f"{'start':8} {', '.join(experiment.methods)} from source-only's network (--warm-start)")
    return lines
