"""Checkpoints exist wholly or not at all, whatever happens while they are written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from games import Teacher
from runs import Killed, assert_same, network, on_tick, plan, small, start, state
from safetensors.torch import load_file, save_file
from toys import PREPROCESS

from acclimate import files
from acclimate.data.domain import Domain
from acclimate.engine.adapt import Adapted
from acclimate.engine.checkpoint import Checkpoint, Checkpoints, Position, load_weights
from acclimate.errors import DataError, Interrupted, NumericError, StorageError, UsageError
from acclimate.plan import Optimiser


def checkpoint(step: int, value: float = 0.0) -> Checkpoint:
    return Checkpoint(Position(0, step), {"method": {"w": torch.full((50,), value or step)}}, {"note": "é"})


def fork(task: Callable[[], object]) -> int:
    """Run in a child process; returns its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            task()
            code = 0
        except Interrupted as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- one checkpoint ---------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    place = Checkpoints(tmp_path).save(checkpoint(7))
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert (found.position, found.facts["note"]) == (Position(0, 7), "é")
    assert_same(dict(found.tensors["method"]), {"w": torch.full((50,), 7.0)})
    assert {path.suffix for path in place.iterdir()} == {".json", ".safetensors"}
    listed = json.loads((place / "MANIFEST.json").read_text())
    assert listed == {path.name: files.sha256(path) for path in place.iterdir() if path.name != "MANIFEST.json"}


def test_mode_bits_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        place = Checkpoints(tmp_path).save(checkpoint(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o640}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay(keep: int, tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, keep)
    for step in range(1, 6):
        saved.save(checkpoint(step))
    assert [path.name for path in saved.all()] == [f"000-{step:08d}" for step in range(6 - keep, 6)]


def test_the_only_valid_checkpoint_is_never_deleted(tmp_path: Path) -> None:
    """A damaged one that lies further ahead does not count as the newest."""
    Checkpoints(tmp_path, 9).save(checkpoint(20))
    (tmp_path / "000-00000020" / "method.safetensors").write_bytes(b"damaged")
    saved = Checkpoints(tmp_path, 1)
    saved.save(checkpoint(10))
    found = saved.latest()
    assert found is not None
    assert found.position.step == 10


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest", "no manifest"])
def test_damaged_newest_falls_back_to_the_one_before(damage: str, tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path)
    saved.save(checkpoint(1))
    place = saved.save(checkpoint(2))
    file, manifest = place / "method.safetensors", place / "MANIFEST.json"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    match damage:
        case "flip":
            file.write_bytes(content)
        case "truncate":
            file.write_bytes(content[:-10])
        case "delete":
            file.unlink()
        case "manifest":
            manifest.write_bytes(b"\xff{")
        case "no manifest":
            manifest.unlink()
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert found.position.step == 1


def test_file_that_the_manifest_does_not_name_is_not_loaded(tmp_path: Path) -> None:
    place = Checkpoints(tmp_path).save(checkpoint(1))
    save_file({"w": torch.ones(1)}, place / "optimiser net.safetensors")
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert set(found.tensors) == {"method"}


def test_half_written_folders_are_swept_at_the_start(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(checkpoint(1))
    for name in (".writing-abc", "000-00000009"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "method.safetensors").write_bytes(b"half")
    assert [path.name for path in Checkpoints(tmp_path).all()] == ["000-00000001"]
    assert [path.name for path in tmp_path.iterdir()] == ["000-00000001"]


def test_every_file_and_folder_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        events.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def watched_replace(source: Any, target: Any) -> None:
        events.append(f"rename {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    Checkpoints(tmp_path / "here").save(checkpoint(3))
    renamed = [i for i, event in enumerate(events) if event.startswith("rename")]
    assert [events[i] for i in renamed] == [
        "rename method.safetensors", "rename facts.json", "rename MANIFEST.json", "rename 000-00000003",
    ]  # fmt: skip
    assert all(events[i - 1].startswith("fsync .") for i in renamed[:-1])  # the temporary file
    assert all(events[i + 1].startswith("fsync .writing-") for i in renamed[:-1])  # its folder
    assert events[-1] == "fsync here"


@pytest.mark.parametrize("call", ["fsync", "replace", "mkstemp"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_full_disk_leaves_the_checkpoint_before(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Checkpoints(tmp_path, keep=1)
    saved.save(checkpoint(1))

    def fail(*arguments: Any, **_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(files.tempfile if call == "mkstemp" else os, call, fail)
        with pytest.raises(StorageError, match="intact") as error:
            saved.save(checkpoint(2))
    assert error.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["000-00000001"]
    found = saved.latest()
    assert found is not None
    assert found.position.step == 1


def test_kill_at_random_points_of_saving_loses_at_most_one_checkpoint(tmp_path: Path) -> None:
    """The child tells in a file which checkpoint is complete; after SIGKILL the newest is that or the next."""
    rng = random.Random(0)
    saved = 0
    for attempt in range(20):
        folder, told = tmp_path / str(attempt), tmp_path / f"{attempt}.txt"

        def forever(folder: Path = folder, told: Path = told) -> None:
            writer = Checkpoints(folder)
            with told.open("w") as log:
                for step in range(1, 10_000):
                    writer.save(checkpoint(step))
                    log.write(f"{step}\n")
                    log.flush()

        child = fork(forever)
        deadline = time.monotonic() + 20  # a busy machine takes its time to begin
        while attempt % 2 and time.monotonic() < deadline and not (told.exists() and told.read_text()):
            time.sleep(0.005)
        time.sleep(0.02 + 0.1 * rng.random())
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        done = [int(line) for line in told.read_text().split()] if told.exists() else []
        found = Checkpoints(folder).latest()
        assert not list(folder.glob(".writing-*"))
        if done:
            assert found is not None
            assert found.position.step in (done[-1], done[-1] + 1)
            assert torch.equal(found.tensors["method"]["w"], torch.full((50,), float(found.position.step)))
            saved += 1
    assert saved >= 10


# -- a run, killed ----------------------------------------------------------------------------------------------------

SAVE_EVERY = 5


def training(folder: Path | None, **more: Any) -> Adapted:
    return start("self-training", how=plan(steps=60, save_every=SAVE_EVERY, log_every=3), folder=folder, **more)


def test_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole = training(tmp_path / "whole")
    metrics = (tmp_path / "whole/metrics.jsonl").read_bytes()
    rng, folder, kills = random.Random(1), tmp_path / "killed", 0
    for _ in range(20):
        child = fork(lambda: training(folder))
        time.sleep(0.1 + 0.4 * rng.random())
        os.kill(child, signal.SIGKILL)
        kills += exit_code(child) == -signal.SIGKILL
        if (folder / "checkpoints").exists() and list((folder / "checkpoints").glob("0*/MANIFEST.json")):
            assert Checkpoints(folder / "checkpoints").latest() is not None
    assert kills >= 1
    assert_same(state(training(folder)), state(whole))
    assert (folder / "metrics.jsonl").read_bytes() == metrics


def test_killed_run_loses_at_most_one_interval(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        seen: list[int] = []

        def crash(now: int) -> None:
            seen.append(now)
            if now == 18:
                raise Killed

        on_tick(patch, crash)
        with pytest.raises(Killed):
            training(tmp_path)
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert found is not None
    assert found.position.step > 0
    assert 18 - 2 - found.position.step <= SAVE_EVERY  # two ticks were swept batches


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_saves_and_raises(number: int, tmp_path: Path) -> None:
    def send(now: int) -> None:
        if now == 10:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, send)
        with pytest.raises(Interrupted, match="same command") as error:
            start("source-only", folder=tmp_path, how=plan(steps=30))
    assert error.value.exit_code == 130
    assert signal.getsignal(number) is before
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert found is not None
    assert found.position == Position(0, 11)


def test_second_signal_exits_at_once_and_corrupts_nothing(tmp_path: Path) -> None:
    def twice(now: int) -> None:
        if now == 10:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            os._exit(7)

    def child() -> None:
        with pytest.MonkeyPatch.context() as patch:
            on_tick(patch, twice)
            start("source-only", folder=tmp_path, how=plan(steps=30, save_every=4))

    assert exit_code(fork(child)) == 130
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert found is not None
    assert found.position == Position(0, 8)


def test_first_signal_ends_a_process_with_130(tmp_path: Path) -> None:
    child = fork(lambda: start("source-only", folder=tmp_path, how=plan(steps=100_000)))
    for _ in range(200):
        time.sleep(0.05)
        if (tmp_path / "metrics.jsonl").exists() and (tmp_path / "metrics.jsonl").stat().st_size:
            break
    os.kill(child, signal.SIGTERM)
    assert exit_code(child) == 130
    assert Checkpoints(tmp_path / "checkpoints").latest() is not None


# -- resuming something else ------------------------------------------------------------------------------------------


def relabelled(domain: Domain) -> Domain:
    return dataclasses.replace(domain, labels=[(int(label) + 1) % 3 for label in domain.labels])  # type: ignore


def test_resume_with_other_settings_names_them(tmp_path: Path) -> None:
    source, target, _ = small("classification")
    start("dann", folder=tmp_path)
    cases: list[tuple[str, dict[str, Any]]] = [
        (r"plan\.steps", {"how": plan(steps=10)}),
        (r"plan\.optimiser\.lr", {"how": plan(optimiser=Optimiser(lr=0.5))}),
        (r"settings\.weight", {"weight": 0.5}),
        ("data target", {"pair": (source, target.subset(range(20)))}),
        ("data source", {"pair": (relabelled(source), target)}),
        ("initial weights", {"net": network("classification", seed=9)}),
        (r"facts\.preprocess", {"preprocess": PREPROCESS["classification"].replace(mean=0.1)}),
    ]
    for key, change in cases:
        with pytest.raises(UsageError, match=f"{key}.*--force"):
            start("dann", folder=tmp_path, **change)
    with pytest.raises(UsageError, match="method"):
        start("source-only", folder=tmp_path)


def test_resume_after_a_change_of_code_names_the_file(tmp_path: Path) -> None:
    start("dann", folder=tmp_path)
    identity = json.loads((tmp_path / "identity.json").read_text())
    assert {"code dann.py", "code cross_entropy.py", "code domain.py"} <= identity.keys()
    identity["code dann.py"] = "0" * 64
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    with pytest.raises(UsageError, match=r"code dann\.py"):
        start("dann", folder=tmp_path)


def test_forced_resume_is_recorded_once_and_for_all(tmp_path: Path) -> None:
    start("dann", folder=tmp_path)
    forced = start("dann", folder=tmp_path, weight=0.5, force=True)
    assert "settings.weight" in forced.warnings[0]
    assert json.loads((tmp_path / "identity.json").read_text())["forced"] == ["settings.weight"]
    start("dann", folder=tmp_path, weight=0.5)  # no longer another run
    start("dann", folder=tmp_path, weight=0.5, ramp=False, force=True)
    assert json.loads((tmp_path / "identity.json").read_text())["forced"] == ["settings.ramp", "settings.weight"]


def test_finished_run_is_loaded_not_repeated(tmp_path: Path) -> None:
    first = start("self-training", folder=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, lambda now: pytest.fail("it trained again"))
        again = start("self-training", folder=tmp_path)
    assert_same(state(first), state(again))
    assert again.history == first.history


def test_artifact_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    def crash(now: int) -> None:
        if now == 8:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        on_tick(patch, crash)
        with pytest.raises(Killed):
            training(tmp_path)
    (column,) = (tmp_path / "artifacts").glob("*.safetensors")
    changed = {name: 1 - value for name, value in load_file(column).items()}
    save_file(changed, column)
    with pytest.raises(DataError, match=f"{column.name}.*changed since the checkpoint"):
        training(tmp_path)
    column.unlink()
    with pytest.raises(DataError, match=f"{column.name}.*missing"):
        training(tmp_path)


# -- corners that only a sequence of stages has -----------------------------------------------------------------------


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("ticks", [(3,), (6,), (6, 7), (8,), (3, 6, 9)])
def test_stages_that_continue_resume_bit_identically(
    ticks: tuple[int, ...], precision: str, continues: bool, tmp_path: Path
) -> None:
    """Six steps, a Sweep without streams, six more: optimisers and the scale of float16 live on, or start anew."""
    how = plan(steps=6, save_every=2, log_every=4, precision=precision, optimiser=Optimiser(lr=0.002))
    whole = start(Teacher, how=how, continues=continues)
    count = 0

    def crash(_: int) -> None:
        nonlocal count
        count += 1
        if count - 1 in ticks:
            raise Killed

    for _ in ticks:
        with pytest.MonkeyPatch.context() as patch:
            on_tick(patch, crash)
            try:
                start(Teacher, how=how, folder=tmp_path, continues=continues)
            except Killed:
                continue
    assert_same(state(start(Teacher, how=how, folder=tmp_path, continues=continues)), state(whole))


def test_crash_right_after_a_sweep_keeps_the_optimisers_it_continues(tmp_path: Path) -> None:
    """Killed inside the Sweep, resumed, killed after it: the momentum of the stage before must still be there."""
    how = plan(steps=4, save_every=2)
    whole = start(Teacher, how=how)

    class Crashing(Teacher):
        crash_in: str = "reset"

        def reset(self) -> None:
            if type(self).crash_in == "reset":
                raise Killed
            super().reset()

        def step(self, source: Any, at: Any) -> dict[str, torch.Tensor]:
            if type(self).crash_in == "two" and at.stage == "two":
                raise Killed
            return super().step(source, at)

    for place in ("reset", "two"):
        Crashing.crash_in = place
        with pytest.raises(Killed):
            start(Crashing, how=how, folder=tmp_path)
    Crashing.crash_in = ""
    assert_same(state(start(Crashing, how=how, folder=tmp_path)), state(whole))


# -- weights from a file ----------------------------------------------------------------------------------------------


def test_loading_lists_what_does_not_fit() -> None:
    layer = torch.nn.Linear(2, 3)
    good = layer.state_dict()
    for tensors, text in (
        ({"weight": good["weight"]}, r"missing \['bias'\]"),
        ({**good, "scale": torch.ones(1)}, r"unexpected \['scale'\]"),
        ({**good, "bias": torch.ones(4)}, r"bias has \(\(4,\).*not \(\(3,\)"),
        ({**good, "bias": torch.ones(3, dtype=torch.float64)}, "float64.*not.*float32"),
    ):
        with pytest.raises(DataError, match=text):
            load_weights(layer, tensors, "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_before_any_is_copied(value: float) -> None:
    layer = torch.nn.Linear(2, 3)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(NumericError, match="bias"):
        load_weights(layer, {"weight": torch.ones(3, 2), "bias": torch.tensor([0, value, 0])}, "here")
    assert_same(layer.state_dict(), before)


def test_loading_keeps_the_strides() -> None:
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    saved = {name: value.clone().contiguous() for name, value in layer.state_dict().items()}
    load_weights(layer, {name: value + 1 for name, value in saved.items()}, "here")
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(layer.state_dict(), {name: value + 1 for name, value in saved.items()})


def test_full_disk_in_a_run_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start("source-only", folder=tmp_path, how=plan(steps=3))
    size = (tmp_path / "metrics.jsonl").stat().st_size
    assert size

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        start("source-only", folder=tmp_path / "other", how=plan(steps=3))
