from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.errors import DataError
from acclimate.experiment import Experiment, model_folder
from acclimate.files import write_json
from acclimate.runs import found

EXPERIMENT = Experiment(source="a", target="b", methods=("dann",)).model_dump(mode="json")


def player(seeds, **more):
    return {
        "title": "T",
        "oracle": False,
        "reads": None,
        "seeds": {str(seed): {"seconds": 1.0} for seed in seeds},
        **more,
    }


def model(folder: Path, method: str = "dann") -> Path:
    write_json(folder / "model.json", {"method": method})
    return folder


def run(folder: Path, players: dict, seeds=(0,)) -> Path:
    write_json(folder / "results.json", {"experiment": EXPERIMENT, "seeds": list(seeds), "players": players})
    for name, entry in players.items():
        for seed in entry["seeds"]:
            model(folder / f"seed-{seed}" / name, name)
    return folder


def cell(folder: Path, task: str, row: str, seed: int, **more) -> Path:
    place = model(folder / "cells" / task / row / f"quick-cpu-seed-{seed}")
    facts = {"task": task, "row": row, "seed": seed, "method": "dann", "experiment": EXPERIMENT, "oracle": False}
    write_json(place / "result.json", {**facts, **more})
    return place


def test_the_players_of_a_run_in_its_order(tmp_path: Path) -> None:
    players = {"source-only": player([0]), "dann": player([0]), "trained-on-target": player([0], oracle=True)}
    candidates, absents = found([run(tmp_path / "r", players)])
    assert [each.label for each in candidates] == ["source-only", "dann", "trained-on-target"]
    assert [each.oracle for each in candidates] == [False, False, True]
    assert candidates[1].folder == tmp_path / "r" / "seed-0" / "dann"
    assert candidates[1].experiment.target == "b"
    assert candidates[0].baseline
    assert absents == []


def test_seeds_are_said_where_there_are_several(tmp_path: Path) -> None:
    candidates, _ = found([run(tmp_path / "r", {"source-only": player([0, 1]), "dann": player([0, 1])}, (0, 1))])
    assert [each.label for each in candidates] == [
        "source-only, seed 0",
        "source-only, seed 1",
        "dann, seed 0",
        "dann, seed 1",
    ]


def test_runs_are_said_where_a_name_stands_in_several(tmp_path: Path) -> None:
    one = run(tmp_path / "one", {"source-only": player([0]), "dann": player([0])})
    two = run(tmp_path / "two", {"source-only": player([0]), "mcd": player([0])})
    candidates, _ = found([one, two, one])  # given twice, there once
    assert [each.label for each in candidates] == ["one/source-only", "one/dann", "two/source-only", "two/mcd"]


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    places = [run(tmp_path / side / "run", {"dann": player([0])}) for side in ("left", "right")]
    labels = [each.label for each in found(places)[0]]
    assert len(set(labels)) == 2
    assert "left" in labels[0]
    assert "right" in labels[1]


def test_cells_of_a_benchmark_without_those_that_are_stale(tmp_path: Path) -> None:
    cell(tmp_path, "x", "dann", 0)
    cell(tmp_path, "x", "dann-wide", 0)
    write_json(tmp_path / "cells/x/dann/stale/quick-cpu-seed-0-abc/result.json", {"row": "old"})
    failed = {"task": "x", "row": "mcd", "seed": 0, "message": "it blew up"}
    write_json(tmp_path / "cells/x/mcd/quick-cpu-seed-0/failure.json", failed)
    write_json(tmp_path / "cells/x/gam/quick-cpu-seed-0/begun.json", {"key": "k"})
    candidates, absents = found([tmp_path])
    assert [each.label for each in candidates] == ["dann", "dann-wide"]
    assert [(each.label, each.why) for each in absents] == [
        ("x, gam", "was begun and is not finished"),
        ("x, mcd, seed 0", "failed: it blew up"),
    ]


def test_one_method_of_a_run_knows_its_run(tmp_path: Path) -> None:
    run(tmp_path / "r", {"source-only": player([0]), "dann": player([0])})
    (candidate,), _ = found([tmp_path / "r" / "seed-0" / "dann"])
    assert candidate.label == "dann"
    assert candidate.experiment.source == "a"


def test_a_model_alone_knows_its_method_only(tmp_path: Path) -> None:
    (candidate,), _ = found([model(tmp_path / "mine", "trained-on-target")])
    assert (candidate.label, candidate.experiment, candidate.oracle) == ("mine", None, True)


def test_the_trials_of_a_sweep(tmp_path: Path) -> None:
    trials = [
        {"state": "finished", "folder": "elsewhere/s/trial-000", "reason": None},
        {"state": "failed", "folder": "elsewhere/s/trial-001", "reason": "it blew up"},
    ]
    facts = {"question": {"experiment": EXPERIMENT}, "method": "dann", "trials": trials}
    write_json(tmp_path / "s" / "tune.json", facts)
    model(tmp_path / "s" / "source-only", "source-only")
    write_json(model(tmp_path / "s" / "trial-000") / "failure.json", {"step": 3})  # the engine's own, of another try
    candidates, absents = found([tmp_path / "s"])
    assert [(each.label, each.method) for each in candidates] == [("source-only", "source-only"), ("trial-000", "dann")]
    assert [(each.label, each.why) for each in absents] == [("s, trial-001", "failed: it blew up")]
    (alone,), _ = found([tmp_path / "s" / "trial-000"])
    assert alone.experiment.source == "a"
    model(tmp_path / "s" / "best")
    write_json(tmp_path / "s" / "tune.json", {**facts, "best": 0})
    (best,), _ = found([tmp_path / "s" / "best"])
    assert (best.experiment.source, best.folder.name) == ("a", "best")


def test_the_best_trial_is_what_a_sweep_stands_for(tmp_path: Path) -> None:
    write_json(tmp_path / "tune.json", {})
    assert model_folder(tmp_path) == tmp_path / "best"


def test_runs_may_be_called_anything(tmp_path: Path) -> None:
    for name in ("run", "stale"):
        run(tmp_path / "many" / name, {"dann": player([0])})
    assert [each.label for each in found([tmp_path / "many"])[0]] == ["run/dann", "stale/dann"]


def test_a_cell_whose_model_is_gone_is_absent(tmp_path: Path) -> None:
    cell(tmp_path, "x", "dann", 0)
    (cell(tmp_path, "x", "mcd", 0) / "model.json").unlink()
    candidates, absents = found([tmp_path])
    assert [each.label for each in candidates] == ["dann"]
    assert absents[0].label == "x, mcd, seed 0"


def test_a_model_that_another_run_began_with_stays_what_it_is(tmp_path: Path) -> None:
    one = run(tmp_path / "one", {"source-only": player([0]), "dann": player([0])})
    two = run(tmp_path / "two", {"adabn": player([0])})
    players = {"source-only": {**player([0]), "seeds": {"0": {"given": True}}}, "adabn": player([0])}
    experiment = {**EXPERIMENT, "source": None, "model": str(one / "seed-0" / "dann")}
    write_json(two / "results.json", {"experiment": experiment, "seeds": [0], "players": players})
    for order in ([one, two], [two, one]):
        labels = {(each.label, each.method) for each in found(order)[0]}
        assert labels == {("source-only", "source-only"), ("dann", "dann"), ("adabn", "adabn")}


def test_an_unfinished_run_is_absent(tmp_path: Path) -> None:
    model(tmp_path / "r" / "seed-0" / "source-only")
    candidates, absents = found([tmp_path / "r"])
    assert candidates == []
    assert "not finished" in absents[0].why


def test_a_given_model_stands_for_source_only(tmp_path: Path) -> None:
    folder = run(tmp_path / "r", {"adabn": player([0])})
    players = {"source-only": player([0]), "adabn": player([0])}
    players["source-only"]["seeds"]["0"]["given"] = True
    experiment = {**EXPERIMENT, "source": None, "model": str(model(tmp_path / "given"))}
    write_json(folder / "results.json", {"experiment": experiment, "seeds": [0], "players": players})
    candidates, absents = found([folder])
    assert [(each.label, each.folder.name) for each in candidates] == [("given model", "given"), ("adabn", "adabn")]
    assert absents == []


def test_a_lost_model_is_absent(tmp_path: Path) -> None:
    folder = run(tmp_path / "r", {"source-only": player([0]), "dann": player([0])})
    (folder / "seed-0" / "dann" / "model.json").unlink()
    candidates, absents = found([folder])
    assert [each.label for each in candidates] == ["source-only"]
    assert absents[0].label == "r, dann, seed 0"


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_holds_nothing_is_an_error_that_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="acclimate adapt"):
        found([tmp_path / name])
