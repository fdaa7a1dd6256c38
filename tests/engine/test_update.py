"""Weights change in one place, for the named players only, and never to something that is not finite."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from games import Bad, Supervised, Teacher, TwoPlayers
from runs import Killed, assert_same, differs, network, plan, small, start, state
from torch import nn
from toys import PREPROCESS

from acclimate.engine.adapt import adapt
from acclimate.engine.optimisers import PlayerOptimiser
from acclimate.engine.run import Run
from acclimate.engine.update import Updater
from acclimate.engine.world import World
from acclimate.errors import NumericError, UsageError
from acclimate.plan import Optimiser


def test_three_moves_of_two_players_move_the_named_ones_only() -> None:
    method = start(TwoPlayers).model.method
    assert method.seen[:3] == [("features+heads", True, True), ("heads", False, True), ("features", True, False)]
    assert method.seen == method.seen[:3] * 9


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("forget", "never calls update"),
        ("stranger", "critic.*players: body, head"),
        ("nobody", "needs terms and players"),
        ("no terms", "needs terms and players"),
        ("no gradient", "'head' got no gradient from loss"),
        ("constant", "'head' got no gradient from loss"),
        ("overlap", "'net' and 'head' share a parameter"),
    ],
)
def test_mistake_of_a_method_is_named(mistake: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        start(Bad, mistake=mistake)


def test_update_outside_a_run_says_how_to_start_one() -> None:
    method = start(Supervised).model.method
    with pytest.raises(UsageError, match="not running"):
        method.update({"x": torch.zeros(())}, "net")


# -- the guard --------------------------------------------------------------------------------------------------------


def caught(way: str, bad: int, folder: Path | None = None, **changes: Any) -> tuple[NumericError, Any]:
    """The error, and the run with its method, of a game that goes wrong at step ``bad``."""
    runs: list[Any] = []
    original = Run.__call__

    def remember(self: Run) -> None:
        runs.append(self)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "__call__", remember)
        with pytest.raises(NumericError) as error:
            start(Supervised, how=plan(log_every=4, **changes), folder=folder, bad=bad, way=way)
    return error.value, runs[0]


@pytest.mark.parametrize(("precision", "said"), [("float32", False), ("bfloat16", True)])
def test_a_higher_precision_is_advised_only_where_there_is_one(precision: str, said: bool) -> None:
    message = str(caught("term", 3, precision=precision)[0])
    assert ("--precision float32" in message) == said
    assert "Lower the learning rate" in message


def stopped_before(step: int, **changes: Any) -> dict[str, torch.Tensor]:
    """The state of a healthy run before a step (same schedule: progress counts on all nine steps)."""
    found: dict[str, torch.Tensor] = {}

    class Stopping(Supervised):
        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            if at.step == step:
                found.update(copy.deepcopy(self.state_dict()))
                raise Killed
            return super().step(source, at)

    with pytest.raises(Killed):
        start(Stopping, how=plan(log_every=4, **changes))
    return found


OPTIMISERS = [Optimiser(lr=0.02), Optimiser(kind="adam", lr=0.01), Optimiser(kind="adamw", lr=0.01, weight_decay=0.1)]


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda o: o.kind)
@pytest.mark.parametrize("bad", [0, 5])
@pytest.mark.parametrize("way", ["term", "gradient", "input"])
def test_weights_are_those_before_the_bad_step(way: str, bad: int, optimiser: Optimiser) -> None:
    _, run = caught(way, bad, optimiser=optimiser)
    parameters = {name for name, _ in run.method.named_parameters()}
    good = stopped_before(bad, optimiser=optimiser)
    now = run.method.state_dict()
    assert_same({n: now[n] for n in parameters}, {n: good[n] for n in parameters})
    assert all(torch.isfinite(v).all() for v in now.values())
    moments = run.updater.optimisers["net"].state()
    assert all(torch.isfinite(v).all() for v in moments.values())
    if optimiser.kind != "sgd":
        assert {float(v) for n, v in moments.items() if n.endswith("step")} == {float(bad)}
    elif bad == 0:
        assert not any(v.any() for v in moments.values())


def test_buffers_return_to_the_last_time_all_was_well() -> None:
    """Steps 4, 5, 6, 7 form an interval; the flag is read after it, when the buffers of step 4 come back."""
    _, run = caught("input", 5)
    good = stopped_before(4)
    now = run.method.state_dict()
    buffers = [name for name, _ in run.method.named_buffers()]
    assert buffers
    assert_same({n: now[n] for n in buffers}, {n: good[n] for n in buffers})


@pytest.mark.parametrize(("way", "term"), [("term", "extra"), ("gradient", "gradient norm"), ("input", "supervised")])
def test_failure_names_stage_step_player_term_and_files(way: str, term: str, tmp_path: Path) -> None:
    error, run = caught(way, 5, tmp_path)
    told = json.loads((tmp_path / "failure.json").read_text())
    assert (told["stage"], told["step"], told["players"], told["term"]) == ("fit", 5, ["net"], term)
    batch = run.streams["source"].indices(5)
    assert told["files"] == {"source": [small("classification")[0].names[i] for i in batch]}
    assert all(word in str(error) for word in (f"'{term}'", "'fit'", "step 5", "net", told["files"]["source"][0]))
    assert error.exit_code == 4


def test_no_checkpoint_is_published_once_a_step_has_failed(tmp_path: Path) -> None:
    caught("term", 3, tmp_path, save_every=1, keep=99)
    steps = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [f"000-{step:08d}" for step in (1, 2, 3)]


def test_averages_stand_still_after_a_failure() -> None:
    found: dict[str, Any] = {}

    class Watched(Teacher):
        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            found[at.step] = copy.deepcopy(self.teacher.state_dict())
            found["method"] = self
            return super().step(source, at)

    with pytest.raises(NumericError):
        start(Watched, how=plan(log_every=9), bad=3)
    assert differs(found[2], found[3])
    parameters = dict(found["method"].teacher.named_parameters())
    assert_same(parameters, {name: found[4][name] for name in parameters})
    assert_same(parameters, {name: found[8][name] for name in parameters})
    assert_same(found[4], found[3])


def test_sites_of_a_failure_belong_to_its_own_step() -> None:
    """Calls that differ from step to step must not lend each other their names."""
    updater, weight = updating()
    other = nn.Parameter(torch.ones(1))
    updater.optimisers["other"] = PlayerOptimiser([other], Optimiser())
    for step in range(4):
        updater.begin(step)
        if step == 1:
            updater.update({"odd": other.sum() * float("nan")}, ["other"])
        else:
            updater.update({f"step {step}": weight.sum()}, ["net"])
    _, failure = updater.read()
    assert failure is not None
    assert (failure.step, failure.players, failure.term) == (1, ("other",), "odd")


# -- clipping, float16 ------------------------------------------------------------------------------------------------


def updating(clip: float | None = None, half: bool = False, size: int = 3) -> tuple[Updater, nn.Parameter]:
    updater = Updater(torch.device("cpu"), World(), clip, half)
    weight = nn.Parameter(torch.ones(size))
    updater.optimisers = {"net": PlayerOptimiser([weight], Optimiser(lr=1.0, momentum=0.0))}
    return updater, weight


@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_clipping_is_that_of_torch_for_each_player(clip: float) -> None:
    """Two players in one update: a wild critic must not shorten the network's step."""
    updater = Updater(torch.device("cpu"), World(), clip, False)
    mine = {name: nn.Parameter(torch.arange(1.0, 4.0)) for name in ("net", "critic")}
    theirs = {name: nn.Parameter(p.detach().clone()) for name, p in mine.items()}
    updater.optimisers = {n: PlayerOptimiser([p], Optimiser(lr=1.0, momentum=0.0)) for n, p in mine.items()}
    updater.begin(0)
    updater.update({"a": mine["net"].square().sum(), "b": 50 * mine["critic"].square().sum()}, ["net", "critic"])
    (theirs["net"].square().sum() + 50 * theirs["critic"].square().sum()).backward()
    for name, p in theirs.items():
        torch.nn.utils.clip_grad_norm_([p], clip)
        torch.testing.assert_close(mine[name].detach(), p.detach() - p.grad)


def test_float16_overflow_skips_the_step_and_halves_the_scale() -> None:
    updater, weight = updating(half=True)
    updater.begin(0)
    updater.update({"loss": (weight.half() * 100).sum()}, ["net"])  # 100 * 65536 overflows float16
    assert torch.equal(weight.detach(), torch.ones(3))
    assert updater.scale == 2.0**15
    assert updater.finite()
    for step in range(1, 12):
        updater.begin(step)
        updater.update({"loss": (weight.half() * 100).float().sum()}, ["net"])
    # 100 fits below 65504 at a scale of 2^9: seven steps are skipped, five made with the true gradient
    assert torch.equal(weight.detach(), torch.full((3,), 1.0 - 5 * 100))
    assert updater.skips == 0


def test_float16_that_overflows_fifty_one_times_in_a_row_stops() -> None:
    updater, weight = updating(half=True)
    for step in range(51):
        assert updater.finite()
        updater.begin(step)
        updater.update({"loss": (weight * weight.new_tensor(0.0)).sqrt().sum()}, ["net"])  # infinite gradient, always
    assert not updater.finite()
    _, failure = updater.read()
    assert failure is not None
    assert (failure.step, failure.term) == (50, "gradient norm")
    assert torch.equal(weight.detach(), torch.ones(3))


def test_float32_never_skips_silently() -> None:
    updater, weight = updating()
    updater.begin(0)
    updater.update({"loss": (weight * 0).sqrt().sum()}, ["net"])
    assert not updater.finite()


# -- autocast, means --------------------------------------------------------------------------------------------------


def test_two_updates_in_one_step_see_each_others_weights_under_autocast() -> None:
    """Autocast caches low-precision copies of the weights; a stale one would repeat the first forward."""
    layer = nn.Linear(4, 1)
    updater = Updater(torch.device("cpu"), World(), None, False)
    updater.optimisers = {"net": PlayerOptimiser(layer, Optimiser(lr=1.0, momentum=0.0))}
    x, values = torch.ones(2, 4), []
    updater.begin(0)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            values.append(layer(x).float().mean())
            updater.update({"loss": values[-1]}, ["net"])
    assert values[1] < values[0] - 1


def test_history_holds_the_mean_of_the_interval() -> None:
    dense, sparse = (start(Supervised, how=plan(steps=6, log_every=n)).history for n in (1, 3))
    assert [row["step"] for row in sparse] == [3, 6]
    for row, part in zip(sparse, (dense[:3], dense[3:])):
        assert row["supervised"] == pytest.approx(sum(r["supervised"] for r in part) / 3, rel=1e-6)


def test_adapt_leaves_the_callers_network_and_generators_alone() -> None:
    net, source = network("classification"), small("classification")[0]
    before, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    adapted = adapt(net, source, None, "source-only", plan=plan(), preprocess=PREPROCESS["classification"])
    assert_same(net.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert differs(adapted.model.method.net.state_dict(), before)
    assert state(adapted)
