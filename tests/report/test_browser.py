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


def chromium(page: Path, profile: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The page's document in the end on stdout, the console on stderr; no machine can be reached."""
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-quic", "--proxy-server=127.0.0.1:9"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", *more, "--dump-dom", page.as_uri()),
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except subprocess.TimeoutExpired:  # the page has no script that could hang: the machine is overloaded
        pytest.skip("Chromium did not start within a minute on this machine")


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
