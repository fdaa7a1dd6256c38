"""Charts as inline SVG: from numbers to marks, coloured by the style sheet so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from acclimate.report.schema import Curve, Embedding, Player, StageEnd

MARKS = {
    "circle": "M-4,0a4,4 0 1 0 8,0a4,4 0 1 0 -8,0z",
    "triangle": "M0,-4.8L4.6,3.6H-4.6z",
    "square": "M-3.7,-3.7h7.4v7.4h-7.4z",
    "diamond": "M0,-5.2L5.2,0L0,5.2L-5.2,0z",
    "down": "M0,4.8L4.6,-3.6H-4.6z",
    "cross": "M-4,-4L4,4M-4,4L4,-4",
}
MARK_NAMES = tuple(MARKS)
MOST_NUMBERED = 20  # classes that numerals still tell apart


def style(players: Sequence[Player]) -> dict[str, tuple[str, str]]:
    """Each player's CSS class and mark, the same in all figures."""
    found: dict[str, tuple[str, str]] = {}
    for place, player in enumerate(players):
        kind = {"baseline": "p-base", "oracle": "p-oracle"}.get(player.role, f"p{(place - 1) % 6}")
        turn = place // len(MARK_NAMES)  # of many players the marks move on against the six colours
        found[player.name] = kind, MARK_NAMES[(place + turn) % len(MARK_NAMES)]
    return found


def mark(name: str, css: str, x: str = "50%", y: str = "50%") -> Markup:
    """One mark at a place of an SVG."""
    path = Markup('<path class="mark {}" d="{}"/>').format(css, MARKS[name])
    return Markup('<svg x="{}" y="{}" overflow="visible">{}</svg>').format(x, y, path)


def icon(name: str, css: str) -> Markup:
    """A mark for a legend or beside a word."""
    path = Markup('<path class="mark {}" d="{}"/>').format(css, MARKS[name])
    return Markup('<svg class="icon" viewBox="-7 -7 14 14" aria-hidden="true">{}</svg>').format(path)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that span ``low`` to ``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def score_axis(players: Iterable[Player]) -> list[float]:
    """Ticks that hold every target score and interval."""
    values = [
        value
        for player in players
        if player.target_test
        for value in (*(v for v in player.target_test.values if v is not None), *(player.interval or ()))
    ]
    return [tick for tick in ticks(min(values), max(values)) if -1e-9 <= tick <= 1 + 1e-9]


def across(value: float, axis: Sequence[float]) -> str:
    """The place of a value on a horizontal axis, in per cent of its width."""
    return f"{100 * (value - axis[0]) / (axis[-1] - axis[0]):.2f}%"


def score_track(player: Player, baseline: Player | None, axis: Sequence[float], css: str, shape: str) -> Markup:
    """One row of the score chart: interval, single seeds, mean, and where source-only stands."""
    assert player.target_test is not None
    parts = _upright(axis)
    if baseline is not None and baseline.target_test is not None:
        x = across(baseline.target_test.mean, axis)
        parts.append(Markup('<line class="reference" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(x))
    if player.interval is not None:
        low, high = (across(value, axis) for value in player.interval)
        parts.append(Markup('<line class="interval {}" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(css, low, high))
    if len(player.target_test.values) > 1:
        for value in player.target_test.values:
            if value is not None:
                x = across(value, axis)
                parts.append(Markup('<line class="seed {1}" x1="{0}" x2="{0}" y1="24%" y2="76%"/>').format(x, css))
    parts.append(mark(shape, css, across(player.target_test.mean, axis)))
    return _track(parts)


def share_track(
    source: float | None, truth: float | None, players: Sequence[tuple[float, str, str]], axis: Sequence[float]
) -> Markup:
    """One class of the share chart: a bar for the source's labels, a stroke for the target's, a mark per player."""
    parts = _upright(axis)
    if source is not None:
        parts.append(Markup('<rect class="bar" x="0" y="28%" height="44%" width="{}"/>').format(across(source, axis)))
    if truth is not None:
        parts.append(Markup('<line class="truth" x1="{0}" x2="{0}" y1="10%" y2="90%"/>').format(across(truth, axis)))
    parts += [mark(shape, css, across(value, axis)) for value, css, shape in players]
    return _track(parts)


def _upright(axis: Sequence[float]) -> list[Markup]:
    line = Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="100%"/>')
    return [line.format(across(tick, axis)) for tick in axis]


def _track(parts: Sequence[Markup]) -> Markup:
    inner = Markup("").join(parts)
    return Markup('<svg class="track" width="100%" height="100%" aria-hidden="true">{}</svg>').format(inner)


def line_chart(curve: Curve, stages: Sequence[StageEnd], css: str) -> Markup:
    """One small multiple: a line per seed, stage boundaries dashed."""
    width, height, left, right, top, bottom = 280, 150, 38, 8, 18, 20
    known = [value for line in curve.lines for value in line.values if value is not None]
    if not known:
        return Markup('<svg viewBox="0 0 280 150" role="img" aria-label="{}"></svg>').format(curve.alt)
    end = max(stage.end for stage in stages)
    levels = ticks(min(known), max(known), 3)

    def place(step: float, value: float) -> tuple[float, float]:
        return (
            round(left + (width - left - right) * step / end, 1),
            round(height - bottom - (height - top - bottom) * (value - levels[0]) / (levels[-1] - levels[0]), 1),
        )

    across_all = Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
    boundary = Markup('<line class="boundary" x1="{0}" x2="{0}" y1="6" y2="{1}"/>')
    ending = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>')
    parts = []
    for level in levels:
        y = place(0, level)[1]
        parts.append(across_all.format(left, width - right, y=y))
        parts.append(ending.format(left - 5, y + 3.5, f"{level:g}"))
    begin = 0
    for stage in stages:
        x0, x1 = place(begin, levels[0])[0], place(stage.end, levels[0])[0]
        if stage.end != end:
            parts.append(boundary.format(x1, height - bottom))
        if len(stage.name) * 5.5 <= x1 - x0 - 4:
            parts.append(Markup('<text x="{}" y="12">{}</text>').format(x0 + 4, stage.name))
        begin = stage.end
    parts.append(Markup('<text x="{}" y="{}">0</text>').format(left, height - 6))
    parts.append(ending.format(width - right, height - 6, f"{end:,} steps"))
    for line in curve.lines:
        points = [place(s, v) for s, v in zip(line.steps, line.values) if v is not None]
        if len(points) == 1:  # a line of one point is nothing
            parts.append(Markup('<circle class="lone {}" cx="{}" cy="{}" r="3"/>').format(css, *points[0]))
        path = " ".join(f"{x},{y}" for x, y in points)
        parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(css, path))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, curve.alt, Markup("").join(parts)
    )


def domain_scatter(embedding: Embedding) -> Markup:
    """Source as dots, target as triangles."""
    shapes = {"source": "h0", "target": "m0,-3l2.6,4.6h-5.2z"}
    parts = [
        Markup('<path class="points {}" d="{}"/>').format(
            name, "".join(f"M{x},{y}{shape}" for x, y, d in _placed(embedding) if d == name)
        )
        for name, shape in shapes.items()
    ]
    return _square(embedding.alt, parts)


def class_scatter(embedding: Embedding, classes: Sequence[str], said: str) -> Markup:
    """Target as numerals of the predicted class, source as dots, both in the class's colour; ``said`` begins its words."""
    assert embedding.classes is not None
    parts = []
    for index, name in enumerate(classes):
        mine = [point for point, found in zip(_placed(embedding), embedding.classes) if found == name]
        dots = "".join(f"M{x},{y}h0" for x, y, domain in mine if domain == "source")
        numerals = [
            Markup('<text x="{}" y="{}">{}</text>').format(x, round(y + 2.8, 1), numeral(index, classes))
            for x, y, domain in mine
            if domain == "target"
        ]
        parts.append(
            Markup('<g class="k k{}"><path class="points faint" d="{}"/>{}</g>').format(
                index % 12, dots, Markup("").join(numerals)
            )
        )
    return _square(f"{said} {embedding.alt}", parts)


def numeral(index: int, classes: Sequence[str]) -> str:
    """What stands for a class in a crowded figure: its name where all are single characters, else its number."""
    return classes[index] if all(len(name) == 1 for name in classes) else str(index)


def _placed(embedding: Embedding) -> list[tuple[float, float, str]]:
    return [
        (round(10 + 280 * x, 1), round(290 - 280 * y, 1), domain)
        for (x, y), domain in zip(embedding.points, embedding.domains)
    ]


def _square(alt: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart scatter" viewBox="0 0 300 300" role="img" aria-label="{}">{}</svg>').format(
        alt, Markup("").join(parts)
    )
