"""One page over several runs: who is held against whom, what did not run, what target labels may do, small in any size."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import folders
import pytest
from several import COMMAND, Place, asked

from acclimate.errors import DataError, UsageError
from acclimate.experiment import carry_out
from acclimate.files import read_json, write_json
from acclimate.report import merge
from acclimate.report.merge import write_merged
from acclimate.runs import Candidate


def test_each_player_is_held_against_the_source_only_of_its_own_run_and_seed(both):
    report, html = both
    assert [player.label for player in report.players] == [
        *("one/source-only", "one/AdaBN", "one/trained-on-target"),
        *("two/source-only", "two/AdaBN", "two/DANN"),
        *("toy/source-only", "toy/dann-wide"),
    ]
    assert [player.seeds for player in report.players] == [[0, 1]] * 3 + [[0]] * 5
    assert [player.role for player in report.players if player.role != "method"] == [
        *("baseline", "oracle", "baseline", "baseline")
    ]
    adabn = report.player("one/adabn")
    assert adabn.difference.values == pytest.approx([0.25 - 0.2, 0.5 - 0.3])
    assert adabn.baseline == "one/source-only"
    assert report.player("two/adabn").difference.values == pytest.approx([0.35 - 0.4])
    for name, baseline in (("two/dann", "two/source-only"), ("toy/dann-wide", "toy/source-only")):
        assert report.player(name).difference.values == pytest.approx([0.7 - 0.4])
        assert report.player(name).baseline == baseline
    assert report.player("toy/dann-wide").changed is None  # a table does not measure it
    assert report.verdict == (
        "Accuracy on the target, 1 to 2 seeds: 3 models of source-only reach 25.0 to 40.0 % (highest: two/source-only) and "
        "4 methods reach 35.0 to 70.0 % (highest: two/DANN); from source-only of the same run and seed methods differ by "
        "−5.0 to +30.0 points (most: two/DANN); trained on the target's labels the same network reaches 85.0 % (oracle)."
    )
    assert "the source-only of the same run" in " ".join(report.notes)
    assert "dashed: source-only of the same run." in html
    assert html.count("<span>· seeds 0, 1</span>") == 3


def test_a_run_without_source_only_has_no_difference(finished, tmp_path):
    report, _ = finished.merged(tmp_path, "one", "cells/toy/dann-wide")
    assert report.player("dann-wide").difference is None
    assert report.player("dann-wide").baseline is None
    assert report.player("adabn").difference is not None
    assert report.player("dann-wide").target_test is not None
    alone, _ = finished.merged(tmp_path / "alone", "cells/toy/dann-wide")
    assert alone.examples.reference == "dann-wide"
    assert "source-only" not in alone.verdict


def test_a_table_s_other_row_of_source_only_is_held_against_source_only(finished, tmp_path):
    """Its row, longer, is source-only too and comes first by name."""
    for row, method in (("longer", "source-only"), ("source-only", "source-only"), ("dann", "dann-wide")):
        cell = tmp_path / "cells" / "toy" / row / "quick-cpu-seed-0"
        shutil.copytree(finished.root / "cells" / "toy" / method / "quick-cpu-seed-0", cell)
        write_json(cell / "result.json", {**read_json(cell / "result.json"), "row": row})
    report, _ = Place(tmp_path).merged(tmp_path / "out", "cells")
    assert [(player.name, player.role, player.baseline) for player in report.players] == [
        ("source-only", "baseline", None),
        ("longer", "method", "source-only"),
        ("dann", "method", "source-only"),
    ]
    assert report.player("longer").difference.mean == 0
    assert report.examples.compared == "dann"


def test_what_did_not_run_is_said_with_its_reason(both):
    report, html = both
    assert [(each.label, each.why) for each in report.absent] == [("toy, mcd, seed 0", "failed: no GPU <b>here</b>")]
    assert "<h2>What did not run, and why</h2>" in html
    assert "no GPU &lt;b&gt;here&lt;/b&gt;" in html


def test_nothing_is_said_to_be_missing_where_nothing_is(finished, tmp_path):
    report, html = finished.merged(tmp_path, "one", "two")
    assert report.absent == []
    assert "What did not run" not in html


def test_a_run_that_is_not_finished_is_absent(finished, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(finished.root / "two" / "seed-0" / "source-only", half / "seed-0" / "source-only")
    report, _ = Place(tmp_path).merged(tmp_path / "out", str(finished.root / "two"), "half")
    (absent,) = report.absent
    assert absent.label == "half"
    assert "not finished" in absent.why
    with pytest.raises(DataError, match="nothing here can be reported: half: is not finished"):
        write_merged([half], tmp_path / "out", COMMAND)
    assert merge.unfinished(half) == "finished: source-only"


def test_trials_of_a_sweep_are_absent(finished, tmp_path):
    """A run's players stay; a sweep judges its trials otherwise, so a page has no number of them."""
    results = read_json(finished.root / "two" / "results.json")
    names = {"source-only": "source-only", "dann": "trial-000", "adabn": "trial-001"}
    for method, name in names.items():
        shutil.copytree(finished.root / "two" / "seed-0" / method, tmp_path / "sweep" / name)
    said = {
        "state": "finished",
        "reason": None,
        "predicted shares": {"bar": 1.0, "cross": 0.0, "ring": 0.0},
        "score": 0.5,
    }
    trials = [{"folder": name, **said} for name in ("trial-000", "trial-001")]
    facts = {"question": {"experiment": results["experiment"]}, "method": "dann", "trials": trials}
    write_json(tmp_path / "sweep" / "tune.json", facts)
    report, html = finished.merged(tmp_path / "out", "two", str(tmp_path / "sweep"))
    assert [player.name for player in report.players] == ["source-only", "adabn", "dann"]
    assert [each.label for each in report.absent] == ["sweep/source-only", "sweep/trial-000", "sweep/trial-001"]
    assert {each.why for each in report.absent} == {"a part of a sweep: acclimate compare looks at it"}
    assert "acclimate compare looks at it" in html
    refused = "nothing here can be reported: source-only, trial-000 and trial-001: a part of a sweep: acclimate compare"
    with pytest.raises(DataError, match=refused):
        write_merged([tmp_path / "sweep"], tmp_path / "out", COMMAND)


def test_the_interval_is_held_against_source_only_of_the_same_seeds(finished, tmp_path):
    """Seed 1: AdaBN 0.5, source-only 0.3, which lies in the interval; over both seeds source-only has 0.25, outside."""

    def one_seed(facts):
        seeds = facts["players"]["adabn"]["seeds"]
        del seeds["0"]
        seeds["1"]["target_test"]["interval"] = [0.28, 0.7]

    changed = _changed(finished.root / "one", tmp_path / "changed", one_seed)
    report, _ = finished.merged(tmp_path / "out", str(changed))
    assert report.player("adabn").difference.values == pytest.approx([0.2])
    assert report.players[0].target_test.mean == pytest.approx(0.25)
    assert "What AdaBN gains or loses is no larger" in report.advice


def test_a_transductive_protocol_is_said_of_those_that_have_it(finished, tmp_path):
    zero = _changed(finished.root / "two", tmp_path / "zero", lambda facts: facts["experiment"].update(holdout=0))
    runs = [str(zero), str(finished.root / "one")]
    for order in (runs, runs[::-1]):
        report, _ = finished.merged(tmp_path / "out", *order)
        (note,) = [text for text in report.notes if text.startswith("Target test images")]
        assert note == (
            "Target test images of zero/source-only, zero/AdaBN and zero/DANN are the very ones that were adapted to, without "
            "their labels: a transductive protocol; those of all others took no part in training."
        )
    report, _ = finished.merged(tmp_path / "out", str(zero))
    assert "Target test images are the very ones" in " ".join(report.notes)


def test_a_target_with_splits_of_its_own_is_not_transductive(tmp_path):
    for name in ("train", "test"):
        folders.classes(tmp_path / "split" / name, 6)
    folders.classes(tmp_path / "whole", 6)
    for target, expected in (("split", []), ("whole", ["adabn"])):
        found = Candidate("adabn", "adabn", tmp_path, asked(tmp_path, target, holdout=0), 0)
        assert merge.transductive([merge.Row("adabn", ("run",), [found])], "classification") == expected


def test_predictions_stand_side_by_side_and_say_what_they_differ_from(both):
    report, html = both
    assert report.examples.reference == "one/source-only"
    shown = [player.name for player in report.players]
    for item in report.examples.items:
        assert [said.player for said in item.predictions] == shown
    assert "differs from one/source-only" in html
    names = [embedding.player for embedding in report.embeddings]
    assert names == [name for name in shown if name != "one/trained-on-target"]
    assert {curves.player for curves in report.curves} == {n for n in shown if not n.endswith("adabn")}


def test_runs_and_their_commands_are_listed(finished, both, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(finished.root / name, tmp_path / name)
    twin = both[0].model_copy(update={"command": "acclimate adapt --of two"})
    (tmp_path / "two" / "report.json").write_text(twin.model_dump_json())
    report, html = finished.merged(tmp_path / "out", str(tmp_path / "one"), str(tmp_path / "two"), "cells/toy")
    one, two, table = report.runs
    assert (one.command, two.command) == (None, "acclimate adapt --of two")
    assert table.command == (
        "acclimate bench toys --tasks toy --methods source-only,dann-wide --seeds 1 --preset quick --device cpu "
        f"--out {finished.root}"
    )
    assert (one.seeds, two.players) == ([0, 1], ["two/source-only", "two/adabn", "two/dann"])
    assert report.command == COMMAND
    assert "--of</span> two</pre>" in html


def test_without_a_score_in_all_of_them_no_target_label_is_read(finished, tmp_path, monkeypatch):
    opened_with = []
    opened = merge.open_domains

    def watched(experiment, task, score):
        opened_with.append((experiment.oracle, score))
        return opened(experiment, task, score)

    monkeypatch.setattr(merge, "open_domains", watched)
    report, html = finished.merged(tmp_path, "one", "blind")
    assert opened_with == [(False, False)]
    assert not report.scored
    assert all(player.target_test is None and player.difference is None for player in report.players)
    assert report.shares.truth is None
    assert all(item.truth is None for item in report.examples.items)
    assert "no target score is shown" in " ".join(report.notes)
    assert report.next_command == f"acclimate compare {finished.root / 'one'} {finished.root / 'blind'}"
    assert "Target test" not in html
    assert "no gain can be stated" in report.verdict


def test_different_targets_are_refused_by_name(finished, tmp_path):
    root = finished.root
    other = _changed(root / "two", tmp_path / "other", lambda facts: facts["experiment"].update(target="usps"))
    with pytest.raises(UsageError, match=r"report them apart.*target: one/.*usps: other/source-only") as error:
        write_merged([root / "one", other], tmp_path / "out", COMMAND)
    assert "these have 2" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_catalog_s_name_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "mine"):
        (tmp_path / name).mkdir()
    assert merge.place("mnist") == "mnist"
    assert merge.place("mine") == merge.place("./mine") == str(tmp_path / "mine")
    assert merge.place("./mnist") == str(tmp_path / "mnist")


def test_different_classes_are_refused(finished, tmp_path):
    def renamed(facts):
        for entry in facts["players"].values():
            for seed in entry["seeds"].values():
                seed["predicted shares"] = {"bar": 0.5, "plus": 0.5, "ring": 0.0}

    other = _changed(finished.root / "two", tmp_path / "other", renamed)
    with pytest.raises(UsageError, match=r"has the classes bar, cross, ring, .* has bar, plus, ring"):
        write_merged([finished.root / "one", other], tmp_path / "out", COMMAND)


def test_runs_with_different_sources_show_the_target_alone(finished, tmp_path):
    root = finished.root
    (tmp_path / "elsewhere").symlink_to(root / "source")
    shutil.copytree(root / "source", tmp_path / "another")

    def moved(where):
        return lambda facts: facts["experiment"].update(source=str(tmp_path / where))

    same = _changed(root / "two", tmp_path / "same", moved("elsewhere"))
    report, _ = finished.merged(tmp_path / "out", "one", str(same))
    assert report.shares.source is not None  # another name of one folder
    other = _changed(root / "two", tmp_path / "other", moved("another"))
    report, _ = finished.merged(tmp_path / "out", "one", str(other))
    assert report.title == f"{root / 'source'} and {tmp_path / 'another'} → {root / 'target'}"
    assert report.shares.source is None
    assert set(report.embeddings[0].domains) == {"target"}
    assert "of the target alone" in " ".join(report.notes)


def test_of_many_players_a_dozen_are_in_pictures_and_all_in_tables(finished, tmp_path):
    """Fourteen rows of a table besides the reference; no score decides which are left out."""
    for k in range(14):
        cell = tmp_path / "cells" / "toy" / f"dann-{k:02}" / "quick-cpu-seed-0"
        shutil.copytree(finished.root / "cells" / "toy" / "dann-wide" / "quick-cpu-seed-0", cell)
        write_json(cell / "result.json", {**read_json(cell / "result.json"), "row": cell.parent.name})
    start = tmp_path / "cells" / "toy" / "source-only"
    shutil.copytree(finished.root / "cells" / "toy" / "source-only", start)
    report, html = Place(tmp_path).merged(tmp_path / "out", "cells")
    assert len(report.players) == 15
    assert report.left_out == ["dann-11", "dann-12", "dann-13"]
    for part in (report.embeddings, report.curves):
        assert {found.player for found in part}.isdisjoint(report.left_out)
    assert [said.player for said in report.examples.items[0].predictions] == [p.name for p in report.players[:12]]
    assert set(report.per_class.players) == set(report.shares.players) == {p.name for p in report.players}
    assert "first 12 of 15 players" in html
    assert "dann-11, dann-12, dann-13" in html
    assert "no score chose them" in html
    marks = re.findall(r'<th scope="row"><svg class="icon"[^>]*>(<path class="mark [^>]*>)', html)
    assert len(marks) == len(set(marks)) == 15
    assert len(html.encode()) < 3_000_000


def test_a_page_over_several_runs_is_well_formed_and_closed(both):
    _, html = both
    page = _Tags(html)
    assert page.open == []
    assert all(value.startswith(("data:", "#")) for value in page.loaded)
    assert "<script" not in html


def test_one_run_given_alone_is_gathered_anew(finished, tmp_path):
    report, _ = finished.merged(tmp_path, "two")
    assert report.verdict.startswith("On the target, source-only reaches")
    assert [player.name for player in report.players] == ["source-only", "adabn", "dann"]


def test_segmentations_side_by_side(tmp_path):
    folders.masks(tmp_path / "source", 8)
    folders.masks(tmp_path / "target", 8, shifted=True)
    more = {
        "network": "unet",
        "network_settings": {"width": 2, "depth": 1},
        "preprocess": {"crop": 16},
        "plan": {"steps": 4, "batch": 2, "log_every": 2, "precision": "float32"},
    }
    for name, method in (("left", "adabn"), ("right", "histogram-matching")):
        carry_out(asked(tmp_path, methods=(method,), **more), tmp_path / name, score=True, device="cpu")
    report, html = Place(tmp_path).merged(tmp_path / "out", "left", "right")
    players = ["left/source-only", "left/adabn", "right/source-only", "right/histogram-matching"]
    assert [player.name for player in report.players] == players
    assert (report.examples.reference, report.examples.compared) == ("left/source-only", "right/histogram-matching")
    row = html.split('<div class="panels">')[1]
    assert row.count("<img") == 1 + len(players) + 2  # the image, each player, the changes, the truth
    assert "right/histogram-matching and left/source-only disagree" in html
    assert _Tags(html).open == []


class _Tags(HTMLParser):
    """What is open at the end, and what is loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _changed(run: Path, to: Path, change) -> Path:
    """A copy of a run whose results say something else."""
    shutil.copytree(run, to)
    facts = read_json(to / "results.json")
    change(facts)
    write_json(to / "results.json", facts)
    return to
