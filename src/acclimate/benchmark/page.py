"""The table as Markdown, CSV, JSON and one self-contained HTML file, from the cells that are found."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acclimate import __version__
from acclimate.benchmark.cell import SCHEMA, Bench, sections
from acclimate.benchmark.fidelity import fidelity
from acclimate.benchmark.statistics import Difference, Spread, paired, spread
from acclimate.benchmark.table import BASELINE, Cell, Published, Table
from acclimate.errors import UsageError
from acclimate.experiment import reads
from acclimate.files import write_bytes, write_json, write_text
from acclimate.methods import Need, find
from acclimate.report.document import Document, Figure, Section, render
from acclimate.report.document import Table as Grid

FAILED_WORDS = 80  # characters of a failure's message in a table
PICTURE_BYTES = 200_000  # larger ones stay beside their cell


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row on one task: all its seeds."""

    task: str
    row: str
    title: str
    oracle: bool
    reads: str | None  # of target labels, where it is no oracle
    scores: dict[int, float]  # per cent on the target's test, by seed
    source_scores: dict[int, float]
    difference: Difference | None  # from source-only
    minutes: float | None
    steps: int | None
    fidelity: Spread | None
    failures: dict[int, str]
    stale: tuple[int, ...]
    published: Published | None
    note: str | None

    @property
    def score(self) -> Spread | None:
        """Over seeds."""
        return spread(list(self.scores.values()))

    @property
    def tried(self) -> bool:
        """Whether any cell of it has been run, with whatever outcome."""
        return bool(self.scores or self.failures or self.stale)

    @property
    def source_score(self) -> Spread | None:
        """Over seeds, on the source's test."""
        return spread(list(self.source_scores.values()))


@dataclasses.dataclass(frozen=True)
class Part:
    """A section: one preset on one kind of device. Numbers of two sections never meet."""

    preset: str
    device: str
    seeds: tuple[int, ...]
    primary: dict[str, str]  # by task
    machines: tuple[str, ...]
    entries: dict[tuple[str, str], Entry]  # by task and row


def gather(table: Table, folder: Path, asked: dict[tuple[str, str], Sequence[int]]) -> list[Part]:
    """Everything that the folder holds, and blanks for what was asked for; ``asked``: seeds by preset and device."""
    found: dict[tuple[str, str], set[int]] = {where: set(seeds) for where, seeds in asked.items()}
    for where, seeds in sections(folder).items():
        if where[0] in table.presets:
            found.setdefault(where, set()).update(seeds)
    return [_part(table, folder, preset, device, sorted(seeds)) for (preset, device), seeds in found.items()]


def _part(table: Table, folder: Path, preset: str, device: str, seeds: Sequence[int]) -> Part:
    bench = Bench(table, folder, device)
    entries: dict[tuple[str, str], Entry] = {}
    primary: dict[str, str] = {}
    machines: set[str] = set()
    for task in table.tasks:
        base: dict[int, float] = {}
        for name in table.rows:
            if not table.runs(name, task):
                continue
            row = table.row(name, preset, task)
            cells = {seed: bench.found(Cell(task, name, preset, seed)) for seed in seeds}
            done = {seed: facts for seed, (state, facts) in cells.items() if state == "done" and facts is not None}
            scores = {seed: 100 * facts["target_test"]["value"] for seed, facts in done.items()}
            if name == BASELINE:
                base = scores
            for facts in done.values():
                primary[task] = facts["primary"]
                machines.add(facts["machine"])
            entries[task, name] = Entry(
                task,
                name,
                row.title or name,
                *_reads(row.kind),
                scores,
                {seed: 100 * facts["source_test"]["value"] for seed, facts in done.items() if facts["source_test"]},
                None if name == BASELINE else paired(scores, base),
                sum(facts["seconds"] for facts in done.values()) / 60 / len(done) if done else None,
                next((facts["steps"] for facts in done.values()), None),
                spread(
                    [
                        100 * share
                        for seed in done
                        if (share := fidelity(bench, Cell(task, name, preset, seed))) is not None
                    ]
                ),
                {
                    seed: facts["message"]
                    for seed, (state, facts) in cells.items()
                    if state == "failed" and facts is not None
                },
                tuple(seed for seed, (state, _) in cells.items() if state == "stale"),
                row.published.get(task),
                row.note,
            )
    return Part(preset, device, tuple(seeds), primary, tuple(sorted(machines)), entries)


def _reads(kind: str) -> tuple[bool, str | None]:
    """Whether a method is an oracle, and what it reads of target labels where it is none."""
    try:
        return Need.TARGET_LABELS in find(kind).needs, reads(kind)
    except UsageError:  # not installed here
        return False, None


# -- text -------------------------------------------------------------------------------------------------------------


def label(entry: Entry) -> str:
    """An oracle is always called one, and a method that reads a few target labels says so."""
    mark = "oracle" if entry.oracle else entry.reads
    return f"{entry.title} ({mark})" if mark and mark not in entry.title else entry.title


def score_text(found: Spread | None, asked: int) -> str:
    """``82.1 ± 0.5``, with the number of seeds where it is not what was asked for."""
    if found is None:
        return ""
    deviation = "" if found.deviation is None else f" ± {found.deviation:.1f}"
    return f"{found.mean:.1f}{deviation}" + ("" if found.n == asked else f" (n = {found.n})")


def cell_text(entry: Entry, asked: int) -> str:
    """Score, failure, or a blank that says why it is one."""
    parts = [score_text(entry.score, asked)]
    if entry.failures:
        message = next(iter(entry.failures.values())).splitlines()[0]
        short = message if len(message) <= FAILED_WORDS else message[: FAILED_WORDS - 1] + "…"
        parts.append(f"failed: {short}")
    if entry.stale and not entry.scores:
        parts.append("(stale)")
    return "; ".join(part for part in parts if part)


def difference_text(found: Difference | None) -> str:
    """``+3.2 [+1.0, +5.4]``."""
    if found is None:
        return ""
    between = "" if found.interval is None else " [{:+.1f}, {:+.1f}]".format(*found.interval)
    return f"{found.mean:+.1f}{between}"


def published_text(found: Published | None) -> str:
    """``85.1 ± 0.3``."""
    if found is None:
        return ""
    return f"{found.value:g}" + ("" if found.deviation is None else f" ± {found.deviation:g}")


HEADER = (
    "method",
    "target",
    "source",
    "gain over source-only [95 %]",
    "published",
    "steps",
    "minutes",
    "class fidelity (oracle)",
)


def detail(part: Part, task: str, notes: list[str]) -> tuple[list[str], list[list[str]]]:
    """All columns of one task; footnotes are added to ``notes``. Columns in which nothing stands are left out."""
    rows = []
    for (found, _), entry in part.entries.items():
        if found != task:
            continue
        published = published_text(entry.published)
        if entry.published is not None:
            published += f" [{_footnote(notes, entry.published.source)}]"
        name = label(entry) + (f" [{_footnote(notes, entry.note)}]" if entry.note else "")
        rows.append(
            [
                name,
                cell_text(entry, len(part.seeds)),
                score_text(entry.source_score, len(part.seeds)),
                difference_text(entry.difference),
                published,
                "" if entry.steps is None else f"{entry.steps}",
                "" if entry.minutes is None else f"{entry.minutes:.1f}",
                score_text(entry.fidelity, len(part.seeds)),
            ]
        )
    kept = [0, 1, *(i for i in range(2, len(HEADER)) if any(row[i] for row in rows))]
    return [HEADER[i] for i in kept], [[row[i] for i in kept] for row in rows]


def overview(table: Table, part: Part) -> tuple[list[str], list[list[str]]]:
    """Rows by tasks: the target's scores alone."""
    rows = []
    for name in table.rows:
        entries = [part.entries.get((task, name)) for task in table.tasks]
        first = next((entry for entry in entries if entry is not None), None)
        if first is not None:
            texts = ["" if entry is None else cell_text(entry, len(part.seeds)) for entry in entries]
            rows.append([label(first), *texts])
    return ["method", *(str(table.tasks[task]["title"]) for task in table.tasks)], rows


def _footnote(notes: list[str], text: str) -> int:
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def heading(part: Part) -> str:
    """``quick on cpu, seeds 0, 1, 2``."""
    seeds = ", ".join(map(str, part.seeds))
    return f"{part.preset} on {part.device}, seed{'s' if len(part.seeds) > 1 else ''} {seeds}"


READING = (
    "Per cent on the target's test images at the last training step; mean ± sample deviation over seeds. No step or seed was "
    "chosen by a target label; the settings are the table's, and how they were chosen is for its author to say. Gains are "
    "paired by seed, with Student's t interval over seeds. A row called an oracle was trained on target labels, one marked "
    "with few target labels on those of a few images too. A blank cell has not been run; (stale): it was, by other code or "
    "settings. Published numbers are as their footnotes say, with networks, steps and selection of their own."
)


def markdown(table: Table, parts: Sequence[Part]) -> str:
    """The page as Markdown."""
    lines = [f"# {table.title}", "", *([table.description, ""] if table.description else []), READING, ""]
    notes: list[str] = []
    for part in parts:
        lines += [f"## {heading(part)}", ""]
        if part.machines:
            lines += [f"Machine: {'; '.join(part.machines)}.", ""]
        if len(table.tasks) > 1:
            lines += [*_grid(*overview(table, part)), ""]
        for task in table.tasks:
            lines += [
                f"### {table.tasks[task]['title']}" + _primary(part, task),
                "",
                *_grid(*detail(part, task, notes)),
                "",
            ]
    lines += [f"[{number}] {text}  " for number, text in enumerate(notes, 1)]
    return "\n".join(lines).rstrip() + "\n"


def _primary(part: Part, task: str) -> str:
    return f" ({part.primary[task]}, %)" if task in part.primary else ""


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [row(header), "|" + "|".join(["---", *["--:"] * (len(header) - 1)]) + "|", *map(row, rows)]


# -- files ------------------------------------------------------------------------------------------------------------


def as_json(table: Table, parts: Sequence[Part]) -> dict[str, Any]:
    """Every number of the page."""
    return {
        "schema": SCHEMA,
        "acclimate": __version__,
        "table": table.name,
        "title": table.title,
        "description": table.description,
        "parts": [
            {
                **{name: getattr(part, name) for name in ("preset", "device", "seeds", "primary", "machines")},
                "rows": [
                    dataclasses.asdict(entry)
                    | {"published": None if entry.published is None else entry.published.model_dump()}
                    | {"score": _asdict(entry.score), "source_score": _asdict(entry.source_score)}
                    for entry in part.entries.values()
                ],
            }
            for part in parts
        ],
    }


def _asdict(found: Spread | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)


COLUMNS = (
    "preset", "device", "task", "method", "oracle", "reads", "n", "target_mean", "target_deviation", "source_mean",
    "source_deviation", "gain_mean", "gain_low", "gain_high", "published", "published_deviation", "published_source",
    "steps", "minutes", "fidelity_mean", "failed", "stale",
)  # fmt: skip


def as_csv(parts: Sequence[Part]) -> str:
    """One line per task and row."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for part in parts:
        for entry in part.entries.values():
            score, source, gain, known = entry.score, entry.source_score, entry.difference, entry.published
            writer.writerow(
                {
                    "preset": part.preset,
                    "device": part.device,
                    "task": entry.task,
                    "method": entry.row,
                    "oracle": int(entry.oracle),
                    "reads": entry.reads,
                    "n": len(entry.scores),
                    "target_mean": score and score.mean,
                    "target_deviation": score and score.deviation,
                    "source_mean": source and source.mean,
                    "source_deviation": source and source.deviation,
                    "gain_mean": gain and gain.mean,
                    "gain_low": gain and gain.interval and gain.interval[0],
                    "gain_high": gain and gain.interval and gain.interval[1],
                    "published": known and known.value,
                    "published_deviation": known and known.deviation,
                    "published_source": known and known.source,
                    "steps": entry.steps,
                    "minutes": entry.minutes,
                    "fidelity_mean": entry.fidelity and entry.fidelity.mean,
                    "failed": " / ".join(entry.failures.values()),
                    "stale": len(entry.stale),
                }
            )
    return stream.getvalue()


def as_document(table: Table, parts: Sequence[Part], folder: Path, command: str) -> tuple[Document, dict[str, bytes]]:
    """The page as a document, and the pictures that generative methods drew with the first seed."""
    notes: list[str] = []
    chapters, pictures = [], {}
    for part in parts:
        tables = [_table(f"{heading(part)}: target scores", overview(table, part))] if len(table.tasks) > 1 else []
        for task in table.tasks:
            title = f"{table.tasks[task]['title']}{_primary(part, task)}; {part.preset} on {part.device}"
            tables.append(_table(title, detail(part, task, notes)))
        figures = []
        for entry in part.entries.values():
            place = Bench(table, folder, part.device).place(Cell(entry.task, entry.row, part.preset, part.seeds[0]))
            picture = place / "generated.png"
            if (
                entry.scores.get(part.seeds[0]) is None
                or not picture.exists()
                or picture.stat().st_size > PICTURE_BYTES
            ):
                continue
            name = f"{part.preset}-{part.device}-{entry.task}-{entry.row}"
            pictures[name] = picture.read_bytes()
            words = f"{label(entry)}, {table.tasks[entry.task]['title']}: images it draws, a row per class"
            seen = entry.fidelity
            data = {"seed": part.seeds[0], "class fidelity (oracle), %": None if seen is None else seen.mean}
            figures.append(Figure(name=name, caption=words, alt=words, data=data))
        text = [f"Machine: {'; '.join(part.machines)}."] if part.machines else []
        chapters.append(Section(title=heading(part), text=text, tables=tables, figures=figures))
    document = Document(
        schema_version=1,
        acclimate=__version__,
        kind="benchmark",
        title=table.title,
        verdict=progress(parts),
        advice=table.description or None,
        sections=chapters,
        command=command,
        notes=[READING, *(f"[{number}] {text}" for number, text in enumerate(notes, 1))],
    )
    return document, pictures


def progress(parts: Sequence[Part]) -> str:
    """How much of the table there is."""
    entries = [(part, entry) for part in parts for entry in part.entries.values()]
    wanted = sum(len(part.seeds) for part, _ in entries)
    done, failed = (sum(len(found) for found in kind) for kind in zip(*((e.scores, e.failures) for _, e in entries)))
    return f"{done} of {wanted} cells are finished" + (f", {failed} failed." if failed else ".")


def _table(caption: str, found: tuple[list[str], list[list[str]]]) -> Grid:
    header, rows = found
    return Grid(caption=caption, header=header, rows=[[text or None for text in row] for row in rows])


def write_tables(table: Table, parts: Sequence[Part], folder: Path, command: str) -> list[Path]:
    """``table.md``, ``table.html``, ``table.csv`` and ``table.json``."""
    document, pictures = as_document(table, parts, folder, command)
    uris = {name: f"data:image/png;base64,{base64.b64encode(found).decode()}" for name, found in pictures.items()}
    write_text(folder / "table.md", markdown(table, parts))
    write_bytes(folder / "table.html", render(document, uris, "table"))
    write_text(folder / "table.csv", as_csv(parts))
    write_json(folder / "table.json", as_json(table, parts))
    return [folder / f"table.{kind}" for kind in ("md", "html", "csv", "json")]
