"""Charts: round ticks, marks inside the frame, escaped words."""

from __future__ import annotations

import re

import pytest

from acclimate.report import figures
from acclimate.report.schema import Curve, Embedding, Line, StageEnd


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0, 0.25, 0.5, 0.75, 1]), (0.59, 0.78, [0.55, 0.6, 0.65, 0.7, 0.75, 0.8]), (3.0, 3.0, [3.0, 4.0])],
)
def test_ticks_are_round_and_span_the_values(low, high, expected):
    assert figures.ticks(low, high) == pytest.approx(expected)


def test_lines_stay_inside_and_names_are_escaped():
    curve = Curve(
        name="a<b",
        alt='"quoted" <alt>',
        lines=[Line(seed=0, steps=[1, 2, 3], values=[5.0, None, -5.0])],
        last=-5.0,
    )
    drawn = str(figures.line_chart(curve, [StageEnd(name="<one>", end=1), StageEnd(name="<two>", end=3)], "p0"))
    assert "<one>" not in drawn
    assert "&lt;two&gt;" in drawn
    assert "&#34;quoted&#34; &lt;alt&gt;" in drawn
    assert drawn.count("boundary") == 1
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    assert [0 <= float(v) <= 280 for v in re.split("[ ,]", points)] == [True] * 4


def test_a_curve_of_one_value_is_a_mark():
    curve = Curve(name="x", alt="one", lines=[Line(seed=0, steps=[1], values=[0.5])], last=0.5)
    drawn = figures.line_chart(curve, [StageEnd(name="s", end=2)], "p0")
    assert drawn.count("<circle") == 1
    two = curve.model_copy(update={"lines": [Line(seed=0, steps=[1, 2], values=[0.5, 1.0])]})
    assert "<circle" not in figures.line_chart(two, [StageEnd(name="s", end=2)], "p0")


def test_a_curve_without_a_value_is_an_empty_chart():
    curve = Curve(name="x", alt="nothing", lines=[Line(seed=0, steps=[1], values=[None])], last=None)
    assert "polyline" not in figures.line_chart(curve, [StageEnd(name="s", end=1)], "p0")


def test_classes_are_numerals_where_names_are_long():
    embedding = Embedding(
        player="dann",
        alt="points",
        points=[(0.0, 0.0), (1.0, 1.0)],
        domains=["source", "target"],
        classes=["cat", "dog"],
        separability=None,
    )
    drawn = figures.class_scatter(embedding, ["cat", "dog"], "Single pixels by class.")
    assert 'aria-label="Single pixels by class. points"' in drawn
    assert re.findall(r"<text[^>]*>(\w+)</text>", drawn) == ["1"]
    assert figures.numeral(1, ["3", "7"]) == "7"
