"""The pages in headless Chromium: no complaint, no request, and readable on a phone."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMIT = 60.0  # seconds for a page
PHONE = 390  # pixels
SMALLEST = 10  # pixels of a letter
MEASURE = """
const inner = document.querySelector("iframe").contentWindow, page = inner.document, found = {sizes: {}, wide: []};
for (const details of page.querySelectorAll("details")) details.open = true;
found.width = inner.innerWidth;
found.scroll = page.documentElement.scrollWidth;
found.body = parseFloat(inner.getComputedStyle(page.body).fontSize);
const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.textContent.trim(), holder = walk.currentNode.parentElement;
  const box = holder.getBoundingClientRect(), svg = holder.closest("svg[viewBox]");
  if (!text || !box.width || inner.getComputedStyle(holder).visibility === "hidden") continue;
  const drawn = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
  const size = parseFloat(inner.getComputedStyle(holder).fontSize) * drawn;
  found.sizes[size.toFixed(1)] = text.slice(0, 40);
  if (!svg && !holder.closest(".scroll, .axis") && box.right > found.width + 0.5) found.wide.push(text.slice(0, 40));
}
document.body.textContent = JSON.stringify(found);
"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; install chromium to see the page rendered"
)


def chromium(page: Path, profile: Path, *more: str, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """The page's document in the end on stdout, the console on stderr; no machine can be reached.

    A page that takes longer than ``limit`` seconds fails, unless an empty one does too: then the machine is overloaded.
    """
    try:
        return loaded(page, profile, *more, limit=limit)
    except subprocess.TimeoutExpired:
        empty = profile.with_name(f"{profile.name}-empty.html")
        empty.write_text("<!doctype html>")
        try:
            loaded(empty, profile.with_name(f"{profile.name}-empty"), limit=limit)
        except subprocess.TimeoutExpired:
            pytest.skip(f"Chromium does not even show an empty page within {limit:g} s on this machine")
        pytest.fail(f"{page} is not shown within {limit:g} s, and an empty page is")


def loaded(page: Path, profile: Path, *more: str, limit: float) -> subprocess.CompletedProcess[str]:
    """One start of Chromium. Raises :class:`subprocess.TimeoutExpired` after ``limit`` seconds."""
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-quic", "--proxy-server=127.0.0.1:9"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", *more, "--dump-dom", page.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)


def requests(log: Path) -> list[str]:
    """Every address on the network that a page asked for; what the browser asks its maker for has no page's origin."""
    text = log.read_text()
    try:
        events = json.loads(text)["events"]
    except ValueError:  # a browser that was ended at once leaves the list open
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    urls = {each["url"] for each in asked if each["initiator"] != "not an origin"}
    return sorted(url for url in urls if url.startswith(("http:", "https:", "ws:", "wss:")))


def on_a_phone(page: str, folder: Path) -> dict[str, Any]:
    """Measures of a page in a frame as wide as a phone: headless windows are never that narrow."""
    frame = f'<iframe style="border:0;width:{PHONE}px;height:844px" srcdoc="{html.escape(page)}"></iframe>'
    path = folder / "phone.html"
    path.write_text(f'<!doctype html><meta charset="utf-8">{frame}<script>onload = () => {{{MEASURE}}}</script>')
    seen = chromium(path, folder / "phone-profile")
    found: dict[str, Any] = json.loads(html.unescape(seen.stdout.split("<body>")[1].split("</body>")[0]))
    return found


def assert_readable(found: dict[str, Any]) -> None:
    assert found["width"] == PHONE
    assert found["scroll"] <= PHONE
    assert found["wide"] == []
    assert found["body"] >= 16
    small = {size: text for size, text in found["sizes"].items() if float(size) < SMALLEST}
    assert small == {}
    assert len(found["sizes"]) > 3


def test_chromium_renders_it_without_a_complaint_and_without_a_request(done, tmp_path):
    log = tmp_path / "net.json"
    seen = chromium(done.folder / "report.html", tmp_path / "profile", f"--log-net-log={log}")
    assert "How to read the numbers" in seen.stdout
    assert "CONSOLE" not in seen.stderr
    assert requests(log) == []


@pytest.mark.parametrize(("hangs", "outcome"), [("page.html", "Failed"), ("", "Skipped")])
def test_a_page_that_hangs_fails_and_a_machine_that_does_is_a_skip(tmp_path, monkeypatch, hangs, outcome):
    def run(command, timeout, **_):
        if hangs in command[-1]:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    # Both are no Exception, so that nothing takes them for an error of the code.
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception)) as caught:
        chromium(tmp_path / "page.html", tmp_path / "profile")
    assert type(caught.value).__name__ == outcome


def test_a_request_would_be_noticed(tmp_path):
    page, log = tmp_path / "page.html", tmp_path / "net.json"
    page.write_text('<!doctype html><img src="http://example.org/pixel.png"><script>console.log("words")</script>')
    seen = chromium(page, tmp_path / "profile", f"--log-net-log={log}")
    assert requests(log) == ["http://example.org/pixel.png"]
    assert "CONSOLE" in seen.stderr


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_it_is_readable_on_a_phone(runs, tmp_path, task):
    assert_readable(on_a_phone(runs[task, True].html, tmp_path))


def test_a_page_over_several_runs_is_readable_on_a_phone(both, tmp_path):
    _, page = both
    assert_readable(on_a_phone(page, tmp_path))


def test_a_page_that_is_too_wide_would_be_noticed(tmp_path):
    found = on_a_phone('<!doctype html><body><p style="width:600px;font-size:7px">wide</p></body>', tmp_path)
    assert found["scroll"] >= 600
    assert (found["wide"], found["sizes"]) == (["wide"], {"7.0": "wide"})
