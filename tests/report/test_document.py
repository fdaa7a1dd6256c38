"""The page of studies and diagnoses: escaped, offline, small, its words and numbers in the twin, its pictures inside."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import matplotlib
import pytest
from matplotlib.figure import Figure as Drawing

from acclimate.errors import DataError, UsageError
from acclimate.files import read_json, write_json
from acclimate.report.document import (
    Document,
    Figure,
    Section,
    Table,
    load_document,
    picture,
    write_document,
    written,
)

ODD = "<script>alert('a & b')</script>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags with their attributes and ancestors."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.found.append((tag, attributes, [name for _, name in self.open]))
        if tag not in VOID:
            self.open.append((tag, attributes.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag, f"</{tag}> closes nothing"


def example(**changes):
    table = Table(caption=ODD, header=["case", "gain"], rows=[[ODD, 0.25], ["blank", None], ["less", -3]])
    figure = Figure(name="curve", caption=ODD, alt=f'a "curve" {ODD}', data={"x": [0, 1], "y": [0.5, float("nan")]})
    section = Section(title=ODD, text=[ODD, "Gain of 3 %"], tables=[table], figures=[figure])
    facts = {"title": ODD, "verdict": ODD, "warnings": [ODD], "command": "acclimate study 'a <b>'", "notes": [ODD]}
    return Document(schema_version=1, acclimate="0.1.0", kind="study", **{**facts, "sections": [section], **changes})


def curve():
    drawing = Drawing(figsize=(4, 3))
    drawing.add_subplot().plot([0, 1], [0, 2], label="line")
    drawing.axes[0].set_title("Title kept as text")
    return drawing


def noise():
    drawing = Drawing(figsize=(4, 3))
    axes = drawing.add_subplot()
    for k in range(4000):
        axes.plot([k % 61], [k % 67], marker="o", color="k")
    return drawing


def test_page_and_twin_hold_the_same_and_nothing_is_markup(tmp_path):
    path = write_document(example(), {"curve": picture(curve())}, tmp_path)
    html = path.read_text()
    assert path == tmp_path / "report.html"
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "acclimate study &#39;a &lt;b&gt;&#39;" in html
    twin = read_json(tmp_path / "report.json")
    assert twin["schema_version"] == 1
    assert twin["sections"][0]["figures"][0]["data"] == {"x": [0, 1], "y": [0.5, None]}
    found = load_document(tmp_path / "report.json")
    assert found.sections[0].tables == example().sections[0].tables
    assert found.title == ODD


def test_nothing_is_loaded_from_elsewhere_and_every_figure_has_words(tmp_path):
    write_document(example(), {"curve": picture(curve())}, tmp_path, "other")
    html = (tmp_path / "other.html").read_text()
    assert "<code>other.json</code>" in html
    page = Page(html)
    assert page.open == []
    images = [(found, classes) for tag, found, classes in page.found if tag == "img"]
    assert [found["alt"] for found, _ in images] == [f'a "curve" {ODD}']
    assert all(found["src"].startswith("data:image/svg+xml;base64,") for found, _ in images)
    for tag, found, classes in page.found:
        assert not re.search(r"https?:", " ".join(value for name, value in found.items() if name != "src"))
        assert tag != "table" or "scroll" in classes  # wide tables move within their own box
    policies = [found["content"] for _, found, _ in page.found if found.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_numbers_stand_to_the_right_and_a_blank_stays_blank(tmp_path):
    html = write_document(example(), {"curve": PIXEL}, tmp_path).read_text()
    assert '<th scope="col" class="n">gain</th>' in html
    assert '<th scope="col">case</th>' in html
    assert '<td class="n">0.250</td>' in html
    assert '<th scope="row">blank</th><td></td>' in html
    assert '<td class="n">−3</td>' in html
    assert "data:image/png;base64," in html


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("1e-9", "1e-9"), (12345, "12,345"), (0.0, "0.000"), (-0.5, "−0.500"), (12.34, "12.3"),
     (1234.5, "1,234"), (0.00012, "1.2e−04"), (0, "0")],
)  # fmt: skip
def test_how_a_cell_is_written(value, text):
    assert written(value) == text


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'curve' has no picture"):
        write_document(example(), {}, tmp_path)
    with pytest.raises(UsageError, match="neither SVG nor PNG"):
        write_document(example(), {"curve": b"GIF89a"}, tmp_path)
    with pytest.raises(UsageError, match="more than 3"):
        write_document(example(), {"curve": PIXEL + bytes(2_400_000)}, tmp_path)
    twice = example(sections=[*example().sections, *example().sections])
    with pytest.raises(UsageError, match="same name"):
        write_document(twice, {"curve": PIXEL}, tmp_path)
    mute = example(sections=[Section(title="a", figures=[Figure(name="curve", caption="", alt=" ", data={})])])
    with pytest.raises(UsageError, match="fill alt"):
        write_document(mute, {"curve": PIXEL}, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="a row of 1 cells under a header of 2"):
        Table(caption="", header=["a", "b"], rows=[["a"]])


def test_another_schema_or_a_damaged_twin_is_refused(tmp_path):
    write_document(example(), {"curve": PIXEL}, tmp_path)
    raw = read_json(tmp_path / "report.json")
    for changed, message in (({"schema_version": 2}, "this release reads 1"), ({"kind": "poem"}, "does not fit")):
        write_json(tmp_path / "report.json", {**raw, **changed})
        with pytest.raises(DataError, match=message):
            load_document(tmp_path / "report.json")


def test_pictures_are_small_repeatable_and_leave_no_global_state():
    before = dict(matplotlib.rcParams)
    drawing = curve()
    first = picture(drawing)
    assert first.startswith(b"<?xml")
    assert b">Title kept as text</text>" in first
    assert b"system-ui" in first
    assert picture(curve()) == first
    assert drawing.axes == []
    assert dict(matplotlib.rcParams) == before
    many = picture(noise())
    assert many.startswith(b"\x89PNG")
    assert len(many) < 150_000
