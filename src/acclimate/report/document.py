"""A small self-contained page for studies and diagnoses, and its JSON twin."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jinja2
import pydantic
from markupsafe import Markup

from acclimate.errors import UsageError
from acclimate.files import write_bytes, write_json
from acclimate.report.compose import unbroken
from acclimate.report.schema import Part, checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SCHEMA: Literal[1] = 1
PAGE_BYTES = 3_000_000
SVG_BYTES = 150_000  # above, a picture is also tried as PNG, and the smaller one is kept
DPI = 144
MINUS = "\u2212"

Cell = str | float | int | None


class Table(Part):
    """Rows under a header; None is a blank."""

    caption: str
    header: list[str]
    rows: list[list[Cell]]

    @pydantic.model_validator(mode="after")
    def _rectangular(self) -> Table:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells under a header of {len(self.header)}")
        return self

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers and nothing else."""
        found = [row[column] for row in self.rows if row[column] is not None]
        return bool(found) and not any(isinstance(value, str) for value in found)


class Figure(Part):
    """A picture's words and every number drawn in it; the picture itself is only in the page."""

    name: str
    caption: str
    alt: str
    data: dict[str, Any]


class Section(Part):
    """Paragraphs, then tables, then figures."""

    title: str
    text: list[str] = []
    tables: list[Table] = []
    figures: list[Figure] = []


class Document(Part):
    """The whole page, without its pictures."""

    schema_version: Literal[1]
    acclimate: str
    kind: Literal["study", "diagnosis", "benchmark"]
    title: str
    verdict: str
    advice: str | None = None
    warnings: list[str] = []
    sections: list[Section]
    next_command: str | None = None
    command: str
    notes: list[str] = []

    def figures(self) -> list[Figure]:
        """The figures of all sections, in order."""
        return [figure for section in self.sections for figure in section.figures]


def write_document(document: Document, pictures: Mapping[str, bytes], folder: Path, stem: str = "report") -> Path:
    """``<stem>.html`` and ``<stem>.json`` in ``folder``; the path of the page.

    Args:
        document: the words and numbers.
        pictures: by the figure's name: SVG or PNG, as :func:`picture` gives them.

    Raises :class:`UsageError` if two figures share a name, a figure has no words or no picture, a picture is neither
    SVG nor PNG, or the page would be larger than 3 MB.
    """
    figures = document.figures()
    if len({figure.name for figure in figures}) < len(figures):
        raise UsageError("two figures have the same name; give each its own")
    for figure in figures:
        if figure.name not in pictures:
            raise UsageError(f"figure {figure.name!r} has no picture; add it to pictures")
        if not figure.alt.strip():
            raise UsageError(f"figure {figure.name!r} has no words for those who do not see it; fill alt")
    page = render(document, {figure.name: _uri(figure.name, pictures[figure.name]) for figure in figures}, stem)
    if len(page) > PAGE_BYTES:
        raise UsageError(f"the page would take {len(page) / 1e6:.1f} MB, more than 3; draw fewer or smaller pictures")
    write_json(folder / f"{stem}.json", document.model_dump(mode="json"))
    write_bytes(folder / f"{stem}.html", page)
    return folder / f"{stem}.html"


def load_document(path: Path | str) -> Document:
    """Read and check the JSON twin. Raises :class:`DataError` for another schema version or a damaged file."""
    return checked(Document, Path(path), SCHEMA, "make the page again")


def render(document: Document, uris: Mapping[str, str], stem: str = "report") -> bytes:
    """The page; ``uris`` hold each figure's picture."""
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"unbroken": unbroken, "written": written}
    css = Markup((here / "page.css").read_text())  # the package's own file
    return (
        environment.get_template("document.html.j2").render(document=document, uris=uris, css=css, stem=stem).encode()
    )


def written(value: Cell) -> str:
    """A cell's text: strings as given, numbers with about three significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    size = abs(value)
    if isinstance(value, int) or size >= 100:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size >= 0.001 or size == 0:
        text = f"{value:.3f}"
    else:
        text = f"{value:.1e}"
    return text.replace("-", MINUS)


def picture(figure: Drawing) -> bytes:
    """A drawing as compact SVG, or as PNG where that is smaller; the drawing is emptied.

    Its text stays text, in the page's fonts. The same drawing gives the same bytes.
    """
    import matplotlib

    # DejaVu comes with matplotlib, which measures with the first font; the others are for browsers without it.
    fonts = ["DejaVu Sans", "system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial"]
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "acclimate", "font.sans-serif": fonts}
    with matplotlib.rc_context(settings):
        drawn = _saved(figure, "svg", metadata={"Date": None, "Creator": None})
        if len(drawn) > SVG_BYTES:
            drawn = min(drawn, _saved(figure, "png", dpi=DPI, metadata={"Software": None}), key=len)
    figure.clear()
    return drawn


def _saved(figure: Drawing, kind: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, bbox_inches="tight", pad_inches=0.06, **how)
    return stream.getvalue()


def _uri(name: str, content: bytes) -> str:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "image/png"
    elif content.lstrip()[:5] in (b"<?xml", b"<svg ", b"<!DOC"):
        kind = "image/svg+xml"
    else:
        raise UsageError(f"the picture of figure {name!r} is neither SVG nor PNG; make it with picture()")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
