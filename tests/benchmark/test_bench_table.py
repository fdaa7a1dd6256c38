"""Tables as TOML: layers, order, and mistakes that name the nearest right word."""

from __future__ import annotations

import pytest
from small_table import cell

from acclimate import registry
from acclimate.benchmark.table import Cell, load, names, parse
from acclimate.errors import DataError, UsageError
from acclimate.methods import find
from acclimate.plan import Optimiser

LAYERS = {
    "title": "Layers",
    "presets": {
        "quick": {"plan": {"steps": 1, "batch": 1, "log_every": 1, "optimiser": {"lr": 0.5, "momentum": 0.0}}},
        "paper": {"plan": {"steps": 2}},
    },
    "tasks": [
        {
            "name": "a",
            "title": "A",
            "source": "mnist",
            "target": "usps",
            "network": "lenet",
            "preprocess": {"size": 28, "channels": 1},
            "plan": {"batch": 10},
            "paper": {"network": "dtn", "preprocess": {"size": 32}, "plan": {"batch": 20}},
        },
        {"name": "b", "title": "B", "source": "usps", "target": "mnist"},
    ],
    "methods": [
        {"name": "source-only"},
        {
            "name": "dann",
            "settings": {"hidden": [1]},
            "plan": {"log_every": 5, "optimiser": {"kind": "adam"}},
            "paper": {"plan": {"optimiser": "own"}},
            "tasks": {"a": {"settings": {"hidden": [2]}, "quick": {"settings": {"hidden": [3]}, "plan": {"steps": 9}}}},
        },
        {"name": "adabn", "only": ["b"]},
    ],
}


def test_later_layers_win_setting_by_setting():
    table = parse("layers", LAYERS)
    quick = table.experiment(Cell("a", "dann", "quick", 4))
    assert (quick.plan.steps, quick.plan.batch, quick.plan.log_every, quick.plan.seed) == (9, 10, 5, 4)
    assert quick.plan.optimiser == Optimiser(kind="adam")  # whole: no rate of the layer before
    assert quick.settings == {"dann": {"hidden": [3]}}
    assert (quick.network, quick.preprocess) == ("lenet", {"size": 28, "channels": 1})
    paper = table.experiment(Cell("a", "dann", "paper", 0))
    assert (paper.plan.steps, paper.plan.batch, paper.plan.optimiser) == (2, 20, None)
    assert paper.settings == {"dann": {"hidden": [2]}}
    assert (paper.network, paper.preprocess) == ("dtn", {"size": 32, "channels": 1})
    assert table.experiment(Cell("b", "dann", "quick", 0)).settings == {"dann": {"hidden": [1]}}


def test_defaults_stand_for_what_a_task_leaves_out():
    defaults = {
        "network": "mlp",
        "holdout": 0.0,
        "preprocess": {"size": 28, "invert": True},
        "plan": {"batch": 30, "steps": 7},
        "paper": {"preprocess": {"size": 20}, "plan": {"batch": 40}},
    }
    table = parse("layers", {**LAYERS, "defaults": defaults})
    bare = table.experiment(Cell("b", "dann", "quick", 0))
    assert (bare.network, bare.holdout, bare.preprocess) == ("mlp", 0.0, {"size": 28, "invert": True})
    assert (bare.plan.batch, bare.plan.steps, bare.plan.log_every) == (30, 7, 5)  # over the preset's, under the row's
    bare = table.experiment(Cell("b", "source-only", "paper", 0))
    assert (bare.preprocess, bare.plan.batch) == ({"size": 20, "invert": True}, 40)
    own = table.experiment(Cell("a", "source-only", "quick", 0))
    assert (own.network, own.preprocess) == ("lenet", {"size": 28, "invert": True, "channels": 1})
    assert (own.plan.batch, own.plan.steps) == (10, 7)
    own = table.experiment(Cell("a", "source-only", "paper", 0))
    assert (own.network, own.preprocess["size"], own.plan.batch) == ("dtn", 32, 20)


def test_one_seed_of_everything_comes_before_the_next():
    found = parse("layers", LAYERS).cells("quick", range(2))
    assert [(c.seed, c.task, c.row) for c in found[:5]] == [
        (0, "a", "source-only"),
        (0, "a", "dann"),
        (0, "b", "source-only"),
        (0, "b", "dann"),
        (0, "b", "adabn"),
    ]
    assert [c.seed for c in found] == [0] * 5 + [1] * 5
    assert [c.row for c in parse("layers", LAYERS).cells("quick", [0], rows=["adabn"])] == ["adabn"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"titel": "x"}, "did you mean 'title'?"),
        ({"title": ""}, "a table needs title"),
        ({"methods": [{"name": "dann"}]}, "first method must be source-only"),
        ({"methods": [{"name": "source-only", "method": "dann"}]}, "first method must be source-only"),
        ({"methods": [{"name": "source-only"}, {"name": "source-only"}]}, "stands twice"),
        ({"methods": [{"name": "source-only"}, {"name": "../dann"}]}, "write lower-case letters"),
        ({"methods": [{"name": "source-only", "setings": {}}]}, "did you mean 'settings'?"),
        ({"methods": [{"name": "source-only", "quick": {"published": {}}}]}, "change in row"),
        ({"methods": [{"name": "source-only", "only": ["c"]}]}, "unknown task in row 'source-only' 'c'"),
        ({"methods": [{"name": "source-only", "published": {"a": {"value": 1.0}}}]}, "source"),
        ({"tasks": [{"name": "a", "title": "A", "source": "mnist"}]}, "target"),
        ({"defaults": {"netwrok": "lenet"}}, "did you mean 'network'?"),
        ({"defaults": {"title": "A"}}, "each task has a title of its own"),
        ({"presets": {"quick": {"paln": {}}}}, "did you mean 'plan'?"),
        ({"presets": {"very-quick": {"plan": {}}}}, "write lower-case letters and digits"),
    ],
)
def test_mistakes_in_a_table(change, said):
    with pytest.raises(UsageError, match=said.replace("?", r"\?").replace(".", r"\.")):
        parse("layers", {**LAYERS, **change})


def test_what_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        load("digist")
    with pytest.raises(DataError, match="no such file"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("title =")
    with pytest.raises(DataError, match="not valid TOML"):
        load(str(tmp_path / "bad.toml"))
    table = parse("layers", LAYERS)
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        table.cells("quik", [0])
    with pytest.raises(UsageError, match="unknown task 'c'"):
        table.cells("quick", [0], tasks=["c"])
    with pytest.raises(UsageError, match="did you mean 'dann'"):
        table.cells("quick", [0], rows=["dan"])


@pytest.mark.parametrize("name", names())
def test_packaged_tables_fit_together(name):
    table = load(name)
    assert {"quick", "paper"} <= set(table.presets)
    for preset in table.presets:
        for found in table.cells(preset, [0]):
            assert table.experiment(found).plan.seed == 0


def test_published_numbers_say_where_they_stand():
    table = load("digits")
    found = [(row, task, known) for row in table.rows for task, known in table.row(row, "quick").published.items()]
    assert len(found) > 30
    assert all(0 < known.value < 100 and len(known.source) > 15 for _, _, known in found)
    by_hand = {(row, task): known.value for row, task, known in found}
    assert by_hand["dann", "mnist-to-mnist-m"] == 76.66
    assert by_hand["shot", "usps-to-mnist"] == 98.0


def test_document_000_shares_its_cells_with_segmentation():
    mine, other = load("document-000"), load("segmentation")
    for preset in ("quick", "paper"):
        for task in mine.tasks:
            for row in ("source-only", "adabn", "self-training", "trained-on-target"):
                found = Cell(task, row, preset, 1)
                assert mine.experiment(found) == other.experiment(found)


def test_document_000_publishes_only_what_is_of_its_data():
    """Numbers of volumes that are not public are in the description; a column has what segmentation has for it."""
    mine, other = load("document-000"), load("segmentation")
    found = {row: mine.row(row, "quick").published for row in mine.rows}
    shared = {row: other.row(row, "quick").published if row in other.rows else {} for row in mine.rows}
    assert found == shared
    assert {row: known["vnc-to-lucchi"].value for row, known in found.items() if known} == {
        "source-only": 40.3,
        "trained-on-target": 86.5,
    }
    for number in ("55.6", "73.6", "2.4", "61.4", "1.4", "67.3", "4.1", "88.1", "80.3"):
        assert number in mine.description


@pytest.mark.parametrize(
    ("name", "missing"), [("offline", {"3c-gan", "label2image-da", "suit"}), ("digits", {"fine-tune"})]
)
def test_what_tables_of_every_method_leave_out(name, missing):
    """As docs/benchmark.md says; digits has those for classification."""
    table = load(name)
    there = {table.row(row, "quick").kind for row in table.rows}
    wanted = {m for m in registry.names("methods") if name == "offline" or "classification" in find(m).card.tasks}
    assert wanted - there == missing


@pytest.mark.parametrize("name", ["office-caltech", "office-caltech-surf"])
def test_office_caltech_has_twelve_transductive_pairs(name):
    table = load(name)
    pairs = {(table.task(task, "quick").source, table.task(task, "quick").target) for task in table.tasks}
    assert len(pairs) == len(table.tasks) == 12
    for task in table.tasks:
        found = table.task(task, "quick")
        assert found.holdout == 0
        source, target = (ref.partition(":")[2] for ref in (found.source, found.target))
        assert task == f"{source}-to-{target}"
        assert found.title == f"{source[0].upper()} → {target[0].upper()}"


@pytest.mark.parametrize(
    ("name", "row", "mean", "hardest"),
    [
        ("office-caltech-surf", "source-only", 45.04, "dslr-to-amazon"),
        ("office-caltech-surf", "dan", 43.61, "webcam-to-caltech"),
    ],
)
def test_published_columns_have_the_mean_that_their_sources_give(name, row, mean, hardest):
    found = {task: known.value for task, known in load(name).row(row, "quick").published.items()}
    assert len(found) == 12
    assert sum(found.values()) / 12 == pytest.approx(mean, abs=0.05)
    assert min(found, key=found.get) == hardest


def test_a_table_without_a_source_to_look_up_publishes_nothing():
    table = load("office-caltech")
    assert not any(table.row(row, "quick").published for row in table.rows)
    assert "as remembered" in table.description


def test_a_method_that_is_not_installed_is_named_with_the_nearest(shapes):
    shapes.edit('method = "dann"', 'method = "dannn"')
    bench = shapes.bench()
    bench.check([cell("dann")])  # its own row does not matter to others
    with pytest.raises(UsageError, match="unknown method 'dannn'; did you mean 'dann'"):
        bench.check([cell("dann-wide")])
