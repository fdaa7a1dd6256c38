"""What ``report.json`` holds: the published schema, from which the page is drawn and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic

from acclimate.errors import DataError
from acclimate.files import read_json

SCHEMA: Literal[1] = 1
Role = Literal["baseline", "method", "oracle"]


class Part(pydantic.BaseModel):
    """Base of all parts: no key that the schema does not name."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


Twin = TypeVar("Twin", bound=Part)


class Score(Part):
    """A share in [0, 1] (or a difference of two) over the seeds; the deviation is the sample's, None for one seed."""

    mean: float
    deviation: float | None
    values: list[float | None]  # one per seed; None where it could not be taken


class Player(Part):
    """One row of the table; a score that was not taken is None."""

    name: str
    label: str
    title: str
    role: Role
    source_test: Score | None
    target_test: Score | None
    interval: tuple[float, float] | None  # 95 %, over target test images; the ends are averaged over seeds
    difference: Score | None  # of the target test from source-only, seed by seed
    changed: float | None  # share of target predictions that differ from source-only's, first seed
    confidence: Score  # mean largest probability on the target
    minutes: float  # mean over seeds
    reads: str | None = None  # what it reads of the target's labels, where it is no oracle: "few target labels"
    seeds: list[int] = []  # of its values
    baseline: str | None = None  # the source-only of its own run, from which the difference is taken

    @property
    def called(self) -> str:
        """Its label, marked if it reads target labels."""
        mark = "oracle" if self.role == "oracle" else self.reads
        return f"{self.label} ({mark})" if mark else self.label


class Warned(Part):
    """Something that looks wrong."""

    player: str
    seeds: list[int]
    text: str


class Prediction(Part):
    """What one player says of one image; of a segmented image only the shares."""

    player: str
    label: str | None
    confidence: float
    right: float | None  # classification: 1 or 0; segmentation: share of pixels; None without a true label
    changed: float | None  # share that differs from source-only; None for source-only itself


class Became(Part):
    """Segmentation: shares of all pixels that the compared player changed, by what became of them."""

    corrected: float
    newly_wrong: float
    still_wrong: float  # as another class
    not_labelled: float


class Example(Part):
    """One target image."""

    name: str
    alt: str
    truth: str | None
    predictions: list[Prediction]
    became: Became | None = None


class Examples(Part):
    """Target images, the largest disagreement with source-only first."""

    compared: str  # the player whose disagreement orders them
    reference: str = "source-only"  # the player from which predictions differ
    looked_at: int
    changed: int  # how many of those looked at differ at all (segmentation: in more than 1 % of the pixels)
    items: list[Example]
    became: Became | None = None  # mean over all images looked at


class Line(Part):
    """One seed's course of a loss term or metric."""

    seed: int
    steps: list[int]  # counted over all stages
    values: list[float | None]


class Curve(Part):
    """A loss term or metric of one player."""

    name: str
    alt: str
    lines: list[Line]
    last: float | None  # mean over seeds


class StageEnd(Part):
    """Where a training stage ends, in steps counted over all stages."""

    name: str
    end: int


class Curves(Part):
    """All curves of a player."""

    player: str
    stages: list[StageEnd]
    panels: list[Curve]


class Embedding(Part):
    """Features of a player in two dimensions: PCA to 50, then t-SNE."""

    player: str
    alt: str
    points: list[tuple[float, float]]
    domains: list[Literal["source", "target"]]
    classes: list[str | None] | None  # source: the label; target: the prediction; None for segmentation
    separability: float | None  # how often a linear classifier names the domain of unseen points; 0.5: it cannot


class Translated(Part):
    """Source images as a player redraws them."""

    player: str
    alt: str
    names: list[str]
    change: list[float | None]  # mean over pixels, of 255 grey levels; None where the size changed too


class Generated(Part):
    """Images that a player draws itself, one row per class."""

    player: str
    alt: str
    classes: list[str]  # of the rows
    columns: int
    oracle: str | None  # the player that was asked what it sees
    fidelity: float | None  # share of drawn images in which it sees the class asked for, over all classes
    by_class: list[float] | None  # of the rows
    judged: int | None  # images of each class that it saw


class Shares(Part):
    """How often each class occurs."""

    alt: str
    source: list[float] | None  # labels of the source
    truth: list[float] | None  # labels of the target test images
    players: dict[str, list[float]]  # predictions on the target, mean over seeds


class Confusion(Part):
    """Rows: truth; columns: prediction; all seeds together."""

    player: str
    alt: str
    counts: list[list[int]]
    shares: list[list[float | None]]  # of each row


class PerClass(Part):
    """One score per class and player, mean over seeds; None where a class does not occur."""

    score: Literal["recall", "IoU"]
    players: dict[str, list[float | None]]


class DomainFacts(Part):
    """A domain as it was used."""

    role: str
    name: str
    images: int
    facts: dict[str, Any]


class Resolved(Part):
    """All settings of a player, defaults included."""

    player: str
    title: str
    paper: str
    deviations: list[str]
    settings: dict[str, Any]
    found: list[dict[str, Any]] = []  # what the method itself reports, one row each; of the first seed


class Absent(Part):
    """A player or a cell of a table that has no result."""

    label: str
    why: str


class Run(Part):
    """A run, or a table's task, of a report over several."""

    folder: str
    source: str
    players: list[str]
    seeds: list[int]
    command: str | None  # that repeats it, where it is known


class Report(Part):
    """The whole report."""

    schema_version: Literal[1]
    acclimate: str
    title: str
    verdict: str
    advice: str | None
    next_command: str | None
    warnings: list[Warned]
    task: str
    classes: list[str]
    primary: str
    scored: bool
    seeds: list[int]
    players: list[Player]
    examples: Examples
    curves: list[Curves]
    embeddings: list[Embedding]
    pixels: list[Embedding] = []  # segmentation: single positions
    generated: list[Generated] = []
    translated: list[Translated] = []
    shares: Shares
    confusions: list[Confusion]
    per_class: PerClass | None
    domains: list[DomainFacts]
    settings: list[Resolved]
    versions: dict[str, str]
    command: str
    notes: list[str]
    runs: list[Run] = []  # of a report over several
    absent: list[Absent] = []
    left_out: list[str] = []  # players that are in no picture

    def player(self, name: str) -> Player:
        """The player called ``name``."""
        return next(player for player in self.players if player.name == name)

    def baseline(self, player: Player) -> Player | None:
        """The source-only of a player's own run, where it is on the page."""
        return next((other for other in self.players if other.name == player.baseline), None)


def load(path: Path) -> Report:
    """Read and check a ``report.json``. Raises :class:`DataError` for another schema version or a damaged file."""
    return checked(Report, path, SCHEMA, "run: acclimate report")


def checked(kind: type[Twin], path: Path, version: int, advice: str) -> Twin:
    """The JSON at ``path`` as ``kind``. Raises :class:`DataError` for another schema version or a damaged file."""
    found = read_json(path)
    check_version(found, path, "schema_version", version)
    try:
        return kind.model_validate(found)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} does not fit its schema ({where}: {first['msg']}); {advice}") from error


def check_version(found: Any, path: Path, field: str, *known: int) -> None:
    """Raise :class:`DataError` unless ``found[field]`` is a version that this release reads."""
    version = found.get(field) if isinstance(found, dict) else None
    if version not in known:
        raise DataError(
            f"{path} has {field} {version!r}; this release reads {listed([str(v) for v in known])}. "
            "Use the release that wrote it, or repeat the run"
        )


def listed(words: Sequence[str]) -> str:
    """``"a, b and c"``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
