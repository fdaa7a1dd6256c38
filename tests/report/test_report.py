"""The page and its twin: escaped, offline, small, with every number in the JSON; honest with and without labels."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.engine.checkpoint import read_tensors
from acclimate.errors import DataError
from acclimate.files import read_json, write_json
from acclimate.report import compose
from acclimate.report.schema import Line, Report, StageEnd, load
from acclimate.report.write import render, write

ODD = "<script>alert('ring')</script>"  # one of the classes
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Attributes, and the text of everything but style and axes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.attributes.append((tag, found))
        if tag not in VOID:
            self.open.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag, f"</{tag}> closes nothing"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        hidden = any(tag in ("style", "svg") or found.get("class") == "axis" for tag, found in self.open)
        if not hidden:
            self.words.append(data)


def numbers_of(value: Any) -> set[str]:
    """Each number of a JSON value in every way in which the page may write it, and the numbers within its texts."""
    if isinstance(value, dict):
        return set().union(*(numbers_of(key) | numbers_of(inner) for key, inner in value.items()), set())
    if isinstance(value, list):
        return set().union(*map(numbers_of, value), {str(len(value))})
    if isinstance(value, str):
        return set(re.findall(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", value))
    if isinstance(value, bool) or value is None:
        return set()
    size = abs(value)
    ways = {f"{value:,}", str(size), f"{size:.3g}", f"{100 * size:.1f}", f"{100 * size:.0f}", compose.duration(size)}
    return {number for way in ways for number in numbers_of(way)}


def test_every_number_of_the_page_is_in_the_twin(done):
    twin = read_json(done.folder / "report.json")
    known = numbers_of(twin) | {"95", "1", "50", "1,000", "255"}  # "95 %", "<1", "50 % means ..." and the notes
    figures = {str(n) for n in range(1, 9)}  # Figure 1 ...
    more = {str(len(twin["examples"]["items"]) - first) for first in (4, 12)}  # "12 more images"
    shown = set(re.findall(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", " ".join(Page(done.html).words)))
    assert len(shown) > 50
    assert shown - known - figures - more == set()


def test_class_names_files_and_commands_are_escaped(done):
    html = done.html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<b>target" not in html
    assert "acclimate adapt <span>--source</span> &#39;a &lt;b&gt;&#39; <span>--target</span> c</pre>" in html
    assert ODD in read_json(done.folder / "report.json")["classes"]


def test_nothing_is_loaded_from_elsewhere(done):
    page = Page(done.html)
    for _, found in page.attributes:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert found.get(name, "data:").startswith(("data:", "#"))
        assert not re.search(r"https?:|url\(", found.get("style", ""))
    style = done.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policies = [found["content"] for tag, found in page.attributes if found.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_figure_has_words_for_those_who_do_not_see_it(done):
    page = Page(done.html)
    images = [found for tag, found in page.attributes if tag == "img"]
    drawings = [found for tag, found in page.attributes if tag == "svg" and found.get("aria-hidden") != "true"]
    outer = [found for tag, found in page.attributes if found.get("role") == "img"]
    assert images
    assert all(found["alt"].strip() for found in images)
    marks = [found for found in drawings if "x" in found]  # single marks inside a chart
    assert all(found["aria-label"].strip() for found in drawings if found not in marks)
    assert len(outer) >= 4
    assert all(len(found["aria-label"]) > 20 for found in outer)


def test_the_page_is_small_and_well_formed(done):
    assert (done.folder / "report.html").stat().st_size < 3_000_000
    assert [tag for tag, _ in Page(done.html).open] == []


def test_the_twin_fits_its_schema_and_another_version_is_refused(done, tmp_path):
    report = load(done.folder / "report.json")
    assert report.schema_version == 1
    assert "schema_version" in Report.model_json_schema()["required"]
    path = tmp_path / "report.json"
    raw = json.loads((done.folder / "report.json").read_text())
    for changed, message in (({"schema_version": 0}, "this release reads 1"), ({"seeds": "none"}, "does not fit")):
        write_json(path, {**raw, **changed})
        with pytest.raises(DataError, match=message):
            load(path)


def test_a_twin_from_before_pages_of_several_runs_loads(done, tmp_path):
    raw = read_json(done.folder / "report.json")
    for field in ("runs", "absent", "left_out"):
        assert raw.pop(field) == []
    assert raw["examples"].pop("reference") == "source-only"
    for player in raw["players"]:
        del player["seeds"], player["baseline"]
    write_json(tmp_path / "report.json", raw)
    report = load(tmp_path / "report.json")
    assert (report.runs, report.absent, report.examples.reference) == ([], [], "source-only")
    assert len(render(report, read_tensors(done.folder / "evidence.safetensors"))) > 10_000


def test_a_scored_run_says_what_was_gained(runs):
    found = runs["classification", True]
    report = load(found.folder / "report.json")
    dann = report.player("dann")
    before = found.results["players"]["source-only"]["summary"]["target_test"]["mean"]
    after = found.results["players"]["dann"]["summary"]["target_test"]["mean"]
    assert dann.difference.mean == pytest.approx(after - before)
    assert f"DANN {compose.percent(after)} %" in report.verdict
    assert f"({compose.points(after - before)} points)" in report.verdict
    assert "2 seeds" in report.verdict
    assert report.verdict.endswith("(oracle).")
    assert report.next_command is None
    counts = report.confusions[0].counts
    assert sum(map(sum, counts)) == 2 * len(found.domains.target_test)


def test_a_run_scored_on_what_it_adapted_to_says_so(runs, tmp_path):
    folder = _copy(runs["classification", True].folder, tmp_path)
    results = read_json(folder / "results.json")

    def notes() -> str:
        write_json(folder / "results.json", results)
        write(folder)
        return " ".join(load(folder / "report.json").notes)

    assert "took no part in training" in notes()
    results["experiment"]["holdout"] = 0
    assert "took no part in training" in notes()  # splits of their own: nothing is shared
    results["domains"]["target_test"] = results["domains"]["target"]
    assert "took no part in training" not in notes()
    assert "a transductive protocol" in notes()


def test_an_unscored_run_states_no_gain_and_no_target_score(runs):
    found = runs["classification", False]
    report = load(found.folder / "report.json")
    assert "no gain can be stated" in report.verdict
    assert "DANN changes" in report.verdict
    assert report.next_command.startswith("acclimate evaluate ")
    assert all(player.target_test is None and player.interval is None for player in report.players)
    assert report.confusions == []
    assert report.per_class is None
    text = " ".join(Page(found.html).words)
    for word in ("Target test", "Difference", "Confusion", "✓", "IoU of", "Recall"):
        assert word not in text
    assert "source-only" in text


def test_segmentation_reports_one_score_per_class(runs):
    report = load(runs["segmentation", True].folder / "report.json")
    assert report.per_class.score == "IoU"
    assert "foreground IoU" in report.verdict
    assert all(item.truth is None for item in report.examples.items)
    assert report.embeddings[0].classes is None


def test_segmentation_shows_where_predictions_changed(runs):
    for score in (True, False):
        found = runs["segmentation", score]
        report = load(found.folder / "report.json")
        drawn = [found["alt"] for tag, found in Page(found.html).attributes if "disagree" in found.get("alt", "")]
        shown = found.html.count('<div class="panels">')
        assert len(drawn) == shown > 0
        first = report.examples.items[0].became
        assert compose.spoken_became(first, score) in drawn[0]
        assert ("corrected" in drawn[0]) is score
        assert ("newly wrong</li>" in found.html) is score
        assert ("now &lt;script&gt;" in found.html) is not score
    assert "<b>changes</b>" not in runs["classification", True].html


def test_segmentation_shows_features_at_pixels_by_class(runs):
    report = load(runs["segmentation", True].folder / "report.json")
    assert [embedding.player for embedding in report.pixels] == ["source-only", "adabn", "self-training"]
    for embedding in report.pixels:
        assert len(embedding.points) == len(embedding.classes) == len(embedding.domains)
        assert set(embedding.classes) <= set(report.classes)
        assert embedding.domains == sorted(embedding.domains)
    assert "at single pixels" in runs["segmentation", True].html
    assert load(runs["classification", True].folder / "report.json").pixels == []


def test_the_words_of_the_pixel_figure_are_its_own(runs):
    labels = [found.get("aria-label", "") for _, found in Page(runs["segmentation", True].html).attributes]
    said = [words for words in labels if "pixels" in words]
    assert len(said) == 3
    assert all(words.startswith("Single pixels by class. t-SNE of") for words in said)
    labels = [found.get("aria-label", "") for _, found in Page(runs["classification", True].html).attributes]
    assert any(words.startswith("The same points by class. t-SNE of") for words in labels)


def many(report: Report, tensors: dict[str, torch.Tensor], count: int) -> tuple[Report, dict[str, torch.Tensor]]:
    """The report with its last method ``count`` times, three noisy images, and training curves of 1,200 points."""
    rng = np.random.default_rng(0)
    old, names = "self-training", [f"method-{k}" for k in range(count)]
    like = {
        field: {part.player: part for part in getattr(report, field)}[old]
        for field in ("curves", "embeddings", "pixels", "confusions", "settings")
        if any(part.player == old for part in getattr(report, field))
    }
    line = Line(seed=0, steps=list(range(1200)), values=rng.random(1200).tolist())
    panel = like["curves"].panels[0].model_copy(update={"lines": [line] * 3})
    stages = [StageEnd(name="all", end=1200)]
    like["curves"] = like["curves"].model_copy(update={"panels": [panel] * 5, "stages": stages})
    changed: dict[str, Any] = {
        field: [part.model_copy(update={"player": name}) for name in names] for field, part in like.items()
    }
    for field in ("embeddings", "pixels"):
        changed[field] = [*getattr(report, field)[:1], *changed[field]]
    changed["settings"] = [report.settings[0], *changed["settings"]]
    row = report.player(old)
    changed["players"] = [report.players[0], *(row.model_copy(update={"name": n, "label": n}) for n in names)]
    items = []
    for item in report.examples.items[:3]:
        said = {prediction.player: prediction for prediction in item.predictions}
        copies = [said[old].model_copy(update={"player": name}) for name in names]
        items.append(item.model_copy(update={"predictions": [said["source-only"], *copies]}))
    changed["examples"] = report.examples.model_copy(update={"items": items, "compared": names[-1]})
    players = {"source-only": report.shares.players["source-only"]} | dict.fromkeys(names, report.shares.players[old])
    changed["shares"] = report.shares.model_copy(update={"players": players})
    assert report.per_class is not None
    scores = {"source-only": report.per_class.players["source-only"]} | dict.fromkeys(
        names, report.per_class.players[old]
    )
    changed["per_class"] = report.per_class.model_copy(update={"players": scores})
    changed["warnings"] = []
    made = dict(tensors)
    for place in range(len(items)):
        made[f"image/{place}"] = torch.from_numpy(rng.integers(0, 256, (256, 256, 3), np.uint8))
        for name in ("source-only", *names):
            made[f"prediction/{name}/{place}"] = torch.from_numpy(
                rng.integers(0, 2, (2, 2)).repeat(128, 0).repeat(128, 1)
            )
        made[f"truth/{place}"] = torch.zeros(256, 256, dtype=torch.int16)
    return report.model_copy(update=changed), made


def test_a_page_of_many_players_stays_small(runs):
    folder = runs["segmentation", True].folder
    report, tensors = many(load(folder / "report.json"), read_tensors(folder / "evidence.safetensors"), 9)
    page = render(report, tensors)
    assert 1_000_000 < len(page.encode()) < 3_000_000
    assert page.count('<div class="panels">') > 0


def test_what_reads_target_labels_is_marked_and_no_headline(runs, tmp_path):
    """DANN's entry says that it reads a few; AdaBN's gain is the headline, and DANN stands behind with its mark."""
    folder = _copy(runs["classification", True].folder, tmp_path)
    results = read_json(folder / "results.json")
    results["players"]["dann"]["reads"] = "few target labels"
    results["domains"]["labelled"] = {"name": "few", "images": 3, "facts": {}}
    results["experiment"] |= {"labelled": "few", "warm_start": True}
    write_json(folder / "results.json", results)
    html = write(folder).read_text()
    report = load(folder / "report.json")
    assert report.player("dann").reads == "few target labels"
    assert report.player("adabn").reads is None
    assert re.match(r"On the target, AdaBN reaches [^;]*; with few target labels, DANN reaches", report.verdict)
    notes = " ".join(report.notes)
    assert "DANN read the labels of 3 target images" in notes
    assert "which no method here may read" not in notes
    assert "went on from source-only's network" in notes
    assert {domain.role: domain.images for domain in report.domains}["labelled target"] == 3
    for found in report.settings:
        assert (found.settings["experiment.labelled"], found.settings["experiment.warm_start"]) == ("few", True)
    assert html.count('DANN <span class="soft">(few target labels)</span>') == 2  # the table and the chart
    assert '<th class="n">DANN (few target labels)</th>' in html
    plain = load(runs["classification", True].folder / "report.json")
    assert "experiment.warm_start" not in plain.settings[0].settings
    del results["players"]["dann"]["reads"]  # as an earlier release wrote it
    write_json(folder / "results.json", results)
    write(folder)
    assert load(folder / "report.json").player("dann").reads is None


def test_translated_images_are_shown_in_pairs(runs):
    found = runs["segmentation", False]
    (translated,) = load(found.folder / "report.json").translated
    section = found.html.split('<div class="pairs"')[1].split("</section>")[0]
    assert section.count("<img") == 2 * len(translated.names) == 12
    assert "b&gt;&amp;.png" in section
    assert f"change {translated.change[0]:.3g}" in section
    assert 'class="pairs"' not in runs["segmentation", True].html


def test_warnings_stand_before_the_table(runs, tmp_path):
    folder = _copy(runs["classification", True].folder, tmp_path)
    results = read_json(folder / "results.json")
    results["players"]["dann"]["seeds"]["1"]["warnings"] = ["<i>collapsed</i>"]
    write_json(folder / "results.json", results)
    html = write(folder).read_text()
    assert "&lt;i&gt;collapsed&lt;/i&gt;" in html
    assert html.index("collapsed") < html.index("<table")
    warning = next(w for w in load(folder / "report.json").warnings if "collapsed" in w.text)
    assert (warning.player, warning.seeds) == ("dann", [1])


def test_scores_that_do_not_exist_are_blank(runs, tmp_path):
    folder = _copy(runs["segmentation", True].folder, tmp_path)
    results = read_json(folder / "results.json")
    for facts in results["players"]["adabn"]["seeds"].values():
        facts["target_test"]["value"] = float("nan")
        facts["source_test"] = None
    write_json(folder / "results.json", results)
    write(folder)
    player = load(folder / "report.json").player("adabn")
    assert player.target_test is None
    assert player.source_test is None
    assert player.difference is None
    assert "NaN" not in (folder / "report.json").read_text()


def test_the_command_is_kept_and_python_stands_in_where_there_is_none(runs, tmp_path):
    folder = _copy(runs["classification", True].folder, tmp_path)
    write(folder)
    assert load(folder / "report.json").command.startswith("acclimate adapt")
    (folder / "report.json").unlink()
    write(folder)
    command = load(folder / "report.json").command
    assert "carry_out(Experiment(**experiment)" in command
    compile(command, "command", "exec")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [("results.json", {"schema": 99}, "schema 99"), ("evidence.json", {"players": []}, "another run")],
)
def test_files_of_another_schema_or_run_are_refused(runs, tmp_path, name, change, message):
    folder = _copy(runs["classification", False].folder, tmp_path)
    write_json(folder / name, {**read_json(folder / name), **change})
    with pytest.raises(DataError, match=message):
        write(folder)


@pytest.mark.parametrize(
    ("difference", "interval", "expected"),
    [([0.1, 0.12], (0.65, 0.75), False), ([0.1, -0.08], (0.65, 0.75), True), ([0.02, 0.021], (0.55, 0.65), True)],
)
def test_a_difference_within_seeds_or_interval_is_called_unclear(runs, difference, interval, expected):
    """From 0.6 in both seeds."""
    report = load(runs["classification", True].folder / "report.json")
    scores = {"target_test": [0.6 + each for each in difference], "difference": difference}
    changes = {name: compose.score(values) for name, values in scores.items()}
    player = report.players[1].model_copy(update={**changes, "interval": interval})
    assert compose.unclear(player) is expected


def _copy(folder, to):
    for name in ("results.json", "evidence.json", "evidence.safetensors", "report.json"):
        shutil.copy(folder / name, to / name)
    return to


def test_times_are_seconds_below_two_minutes():
    assert [compose.duration(minutes) for minutes in (0.16, 1.9, 2.0, 0.005)] == ["10 s", "114 s", "2.0 min", "0.3 s"]


def test_a_command_breaks_at_spaces_only_and_loses_nothing():
    command = "acclimate adapt --set a.b=1 --out runs/x-to-y -f\nimport " + "long-" * 20
    pieces = compose.words(command)
    assert "".join(word for word, _ in pieces) == command
    assert [word for word, whole in pieces if whole] == ["--set", "--out", "runs/x-to-y", "-f"]


def test_masks_are_said_in_words():
    said = compose.mask_facts({"mask_values": {"255": -1, "0": 0, "254": 1}, "masks_without_image": 0})
    assert said == {"values of classes in masks": "0 and 254", "not scored": "255"}
    assert compose.mask_facts({"masks_without_image": 3}) == {"masks without an image": 3}
    assert compose.mask_facts({}) == {}


def test_markup_of_docstrings_is_no_text():
    assert compose.unmarked("as :class:`GIM`, :meth:`~a.b.gap` and ``weight``") == "as GIM, gap and weight"


def test_images_are_a_choice_only_where_some_are_left_out(runs, tmp_path):
    assert "All 20 target images, those first on which" in runs["segmentation", True].html
    assert "no random sample" not in runs["segmentation", True].html
    assert "The 24 target images on which" in runs["classification", False].html
    assert "no random sample" in runs["classification", False].html


def test_a_class_that_the_run_warned_of_is_not_named_twice(runs, tmp_path):
    folder = _copy(runs["segmentation", False].folder, tmp_path)
    results = read_json(folder / "results.json")
    facts = results["players"]["adabn"]["seeds"]["0"]
    names = list(facts["predicted shares"])
    facts["predicted shares"] = {names[0]: 0.99, names[1]: 0.0}
    for told, count in (([], 1), ([f"{names[1]!r} is predicted on 0 % of the target's pixels"], 0)):
        facts["warnings"] = told
        write_json(folder / "results.json", results)
        write(folder)
        texts = [w.text for w in load(folder / "report.json").warnings if w.player == "adabn"]
        assert sum("never predicted" in text for text in texts) == count
