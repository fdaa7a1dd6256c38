"""The loop that carries out any method's stages. It never knows a method's name."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.data.streams import Batch, Stream
from acclimate.engine.artifacts import Artifacts
from acclimate.engine.checkpoint import Checkpoint, Checkpoints, Position, load_weights
from acclimate.engine.code import code_files, code_hash
from acclimate.engine.interrupt import Interruptible
from acclimate.engine.optimisers import lr_scales, make
from acclimate.engine.update import Failure, Updater
from acclimate.engine.world import World
from acclimate.errors import Interrupted, NumericError, UsageError
from acclimate.files import read_json, storage_errors, write_json
from acclimate.methods.base import Method, Progress, Stage, Sweep, Train
from acclimate.random import key

NO_EFFECT = {"workers", "keep", "memory_budget"}  # settings of the plan that change no result
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclasses.dataclass(frozen=True)
class Report:
    """What an observer hears: where the run stands and, at each log interval, the means of losses and metrics."""

    stage: str
    step: int  # of the stage
    steps: int  # 0 for a Sweep
    done: int  # training steps of all stages
    total: int
    means: Mapping[str, float] | None = None


Observer = Callable[[Report], None]


class Run:
    """One method over its streams, from the first stage or from the newest checkpoint in ``folder``.

    Args:
        streams: one for each stream that the stages name.
        folder: checkpoints, ``metrics.jsonl`` and artifacts; None keeps nothing on disk.
        facts: what else must be the same for a resume (the network's name, the preprocessing).
        force: resume although settings, data or code have changed; the change is recorded.

    Raises :class:`UsageError` if the checkpoint was made with other settings, :class:`NumericError` at the first
    non-finite loss or gradient, :class:`Interrupted` after a signal, with the state saved.
    """

    def __init__(
        self,
        method: Method,
        streams: Mapping[str, Stream],
        *,
        device: torch.device,
        folder: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
        force: bool = False,
    ) -> None:
        self.method, self.streams, self.plan, self.device = method, streams, method.plan, device
        self.world = World.current()
        self.stages: Sequence[Stage] = list(method.stages())
        self.observer = observer or (lambda report: None)
        self.history: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        check_stages(method, self.stages, streams)
        if folder is None and self.world.size > 1:
            raise UsageError("a run of several processes needs a folder that all of them can see")
        self._private = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = folder
        self.artifacts = Artifacts(Path(self._private.name) if self._private else folder / "artifacts", self.world)  # type: ignore[operator]
        self.checkpoints = None if folder is None else Checkpoints(folder / "checkpoints", self.plan.keep)
        self.updater = Updater(device, self.world, self.plan.clip, self.plan.precision == "float16")
        self.facts, self.force = dict(facts or {}), force
        self._clean: dict[str, Tensor] = {}

    # -- the whole run --------------------------------------------------------------------------------------------

    def __call__(self) -> None:
        """Carry out all stages; afterwards the method is in eval mode."""
        method = self.method
        method.to(self.device, memory_format=torch.channels_last if self.plan.channels_last else torch.preserve_format)  # type: ignore[call-overload]
        self.world.same(method)
        method.conductor = self
        start = self._resume()
        if self.plan.compile:
            method.net.compile()
        done = [stage.steps if isinstance(stage, Train) else 0 for stage in self.stages]
        try:
            with self._global_state(), Interruptible() as self.interrupt:
                for s, stage in enumerate(self.stages):
                    if s < start.stage:
                        continue
                    self._place = (s, sum(done[:s]), sum(done))
                    if isinstance(stage, Sweep):
                        self._sweep(stage)
                    else:
                        self._train(stage, start.step if s == start.stage else 0)
                    self.world.average_statistics(method)
                    self._save(Position(s + 1))
        finally:
            method.conductor = None
        method.eval()

    @contextlib.contextmanager
    def _global_state(self) -> Iterator[None]:
        """Leave the caller's generators and determinism as they were."""
        deterministic = torch.are_deterministic_algorithms_enabled()
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            change = self.plan.deterministic and not deterministic  # even setting False costs seconds of imports
            if change:
                torch.use_deterministic_algorithms(True)
            try:
                yield
            finally:
                if change:
                    torch.use_deterministic_algorithms(False)

    # -- stages ---------------------------------------------------------------------------------------------------

    def _sweep(self, stage: Sweep) -> None:
        self._tell(stage.name, 0, 0)
        self.world.average_statistics(self.method)  # otherwise processes would label the target differently
        self.method.eval()
        with torch.no_grad():
            getattr(self.method, stage.step)(
                **{name: self._watched(self.streams[name].sweep()) for name in stage.streams}
            )
        self.artifacts.publish(stage.name, self.streams[stage.streams[0]] if len(stage.streams) == 1 else None)
        for name, value in self.method.state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise NumericError(f"stage {stage.name!r} left values in {name!r} that are not finite")

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """A sweep can be left between two batches: nothing of it is lost but its own time."""
        for batch in batches:
            self._leave_if_asked(None)
            yield batch

    def _train(self, stage: Train, first: int) -> None:
        s, before, _ = self._place
        if not stage.continues or not self.updater.optimisers:
            self.updater.optimisers = make(
                self.method.players(),
                self.plan.optimiser or self.method.optimiser,
                stage.optimisers,
                lr_scales(self.method),
            )
        self.updater.sites = {}
        self._restore_optimisers(stage, first)
        step_function = getattr(self.method, stage.step)
        autocast = torch.autocast(
            self.device.type, DTYPES[self.plan.precision], enabled=self.plan.precision != "float32"
        )
        averages = self.method.averages()
        self.method.train()
        self._remember_buffers()
        for k in range(first, stage.steps):
            torch.manual_seed(key(self.plan.seed, stage.name, k, self.world.rank))  # dropout and noise follow the step
            self.updater.begin(k)
            at = Progress(stage.name, k, stage.steps, stage.part)
            for optimiser in self.updater.optimisers.values():
                optimiser.schedule(at.fraction)
            batches = {
                name: self.streams[name].batch(before + k, stage.views, stage.rare_classes.get(name))
                for name in stage.streams
            }
            with autocast:
                metrics = step_function(**batches, at=at)
            if self.updater.call == 0:
                raise UsageError(
                    f"{type(self.method).__name__}.{stage.step} never calls update: nothing would be learnt"
                )
            self.updater.record(metrics or {})
            for average in averages:
                decay = min(average.decay, 1 - 1 / (k + 2)) if average.ramp else average.decay
                move_average(average.of, average.into, decay, self.updater.failed)
            last = k + 1 == stage.steps
            if last or (k + 1) % self.plan.log_every == 0:
                self._log(stage, k + 1)
            if not last:
                self._leave_if_asked(Position(s, k + 1))
                if (k + 1) % self.plan.save_every == 0:
                    self._save(Position(s, k + 1))
        self._alarms(stage)

    def _log(self, stage: Train, step: int) -> None:
        means, failure = self.updater.read()
        if failure:
            self._fail(stage, failure)
        self._remember_buffers()
        row = {"stage": stage.name, "step": step, **means}
        self.history.append(row)
        if self.folder and self.world.first:
            path = self.folder / "metrics.jsonl"
            with storage_errors(path), path.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
                stream.flush()
                os.fsync(stream.fileno())  # a checkpoint counts on these bytes
        self._tell(stage.name, step, stage.steps, means)

    def _tell(self, stage: str, step: int, steps: int, means: Mapping[str, float] | None = None) -> None:
        _, before, total = self._place
        self.observer(Report(stage, step, steps, before + step, total, means))

    def _alarms(self, stage: Train) -> None:
        if not self.history:
            return
        for metric, (low, high, advice) in self.method.watch.items():
            value = self.history[-1].get(metric)
            if value is not None and not low <= value <= high:
                self.warnings.append(f"stage {stage.name!r} ended with {metric} {value:.3f}: {advice}")

    # -- what the method may ask ----------------------------------------------------------------------------------

    def update(self, terms: Mapping[str, Tensor], players: Sequence[str]) -> None:
        self.updater.update(terms, players)

    def keep(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        self.artifacts.keep(batch, columns)

    def total(self, value: Tensor) -> Tensor:
        return self.world.total(value)

    # -- failure --------------------------------------------------------------------------------------------------

    def _remember_buffers(self) -> None:
        self._clean = {name: buffer.clone() for name, buffer in self.method.named_buffers()}

    @torch.no_grad()
    def _fail(self, stage: Train, failure: Failure) -> None:
        """Put the buffers back, leave a post-mortem, and say where and with which files it happened."""
        for name, buffer in self.method.named_buffers():
            buffer.copy_(self._clean[name])
        k = self._place[1] + failure.step
        files = {name: self.streams[name].names(k, stage.rare_classes.get(name)) for name in stage.streams}
        if self.folder and self.world.first:
            write_json(
                self.folder / "failure.json", {"stage": stage.name, **dataclasses.asdict(failure), "files": files}
            )
        some = "; ".join(f"{name}: {', '.join(map(str, names[:3]))}" for name, names in files.items())
        exact = "" if self.plan.precision == "float32" else ", or use --precision float32"
        clipped = "Lower the learning rate, set a clip" if exact else "Lower the learning rate, or set a clip"
        raise NumericError(
            f"{failure.term!r} became non-finite in stage {stage.name!r}, step {failure.step}, updating "
            f"{' and '.join(failure.players)}. The weights are those before that step. {clipped}{exact}. "
            f"Its images were {some} ..."
        )

    def _leave_if_asked(self, position: Position | None) -> None:
        if not self.world.any(self.interrupt.asked):
            return
        if position is not None:
            self._save(position)
        saved = "nothing was being saved (no folder)" if self.folder is None else "run the same command to continue"
        raise Interrupted(f"interrupted; {saved}")

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """All that must be equal for a run to be the same run."""
        weights = hashlib.blake2b(digest_size=16)
        for tensor in self.method.state_dict().values():
            weights.update(tensor.detach().cpu().numpy().tobytes())
        return {
            "method": self.method.name,
            **flat("plan", self.plan.model_dump(mode="json", exclude=NO_EFFECT)),
            **flat("settings", self.method.settings.model_dump(mode="json")),
            **flat("facts", self.facts),
            **{f"data {name}": stream.fingerprint() for name, stream in self.streams.items()},
            **{f"code {path.name}": code_hash(path) for path in code_files(type(self.method))},
            "initial weights": weights.hexdigest(),
            "device": self.device.type,
            "processes": self.world.size,
        }

    def _resume(self) -> Position:
        self._saved: Checkpoint | None = None
        if self.folder is None or self.checkpoints is None:
            return Position()
        mine, path = self.identity(), self.folder / "identity.json"
        checkpoint = self.checkpoints.latest()
        if checkpoint is None:
            if self.world.first:
                write_json(path, mine)
                (self.folder / "metrics.jsonl").write_text("")
            return Position()
        theirs = read_json(path)
        forced = theirs.pop("forced", [])
        if changed := sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)):
            if not self.force:
                raise UsageError(
                    f"{self.folder} was begun with other {', '.join(changed)}; use another --out, or --force to go on anyway"
                )
            self.warnings.append(f"resumed although these had changed: {', '.join(changed)}")
            if self.world.first:
                write_json(path, {**mine, "forced": sorted({*forced, *changed})})
        load_weights(self.method, checkpoint.tensors["method"], str(self.checkpoints.folder))
        if "processes" in checkpoint.tensors:
            self._set_buffers(checkpoint.tensors["processes"]["buffers"][self.world.rank])
        self.artifacts.restore(checkpoint.facts["artifacts"], self.streams)
        self.updater.load(checkpoint.tensors.get("updater", {}))
        self._saved = checkpoint
        self.warnings += [w for w in checkpoint.facts["warnings"] if w not in self.warnings]
        metrics = self.folder / "metrics.jsonl"
        if self.world.first:
            with metrics.open("r+") as stream:
                stream.truncate(checkpoint.facts["metrics bytes"])
        self.world.wait()
        self.history = [json.loads(line) for line in metrics.read_text().splitlines()]
        return checkpoint.position

    def _restore_optimisers(self, stage: Train, first: int) -> None:
        """At the first training stage after a resume: the saved state, if the stage goes on with its optimisers."""
        saved, self._saved = self._saved, None
        if saved is None or not (first or stage.continues):
            return
        for name, optimiser in self.updater.optimisers.items():
            if first or f"optimiser {name}" in saved.tensors:  # a stage may say "continues" with nothing before it
                optimiser.load(saved.tensors[f"optimiser {name}"])

    def _save(self, position: Position) -> None:
        if self.checkpoints is None or self.folder is None:
            return
        if not self.updater.finite():
            return  # the flag is read, and the failure told, at the next log interval
        own = self.world.gather(self._flat_buffers()) if self.world.size > 1 else None
        if self.world.first:
            tensors = {"method": self.method.state_dict()}
            if own is not None:
                tensors["processes"] = {"buffers": own}
            tensors |= {f"optimiser {name}": optimiser.state() for name, optimiser in self.updater.optimisers.items()}
            if self._saved is not None:  # resumed and only swept since: a later stage may continue these
                tensors |= {
                    name: dict(found) for name, found in self._saved.tensors.items() if name.startswith("optimiser ")
                }
            if pending := self.updater.state():
                tensors["updater"] = pending
            facts = {
                "artifacts": self.artifacts.published,
                "warnings": self.warnings,
                "metrics bytes": (self.folder / "metrics.jsonl").stat().st_size,
                "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
            }
            self.checkpoints.save(Checkpoint(position, tensors, facts))
        self.world.wait()

    def _flat_buffers(self) -> Tensor:
        """This process's own buffers (running statistics of its rows) in one vector; float64 holds them all exactly."""
        return torch.cat([torch.zeros(0, device=self.device), *(b.double().flatten() for b in self.method.buffers())])

    @torch.no_grad()
    def _set_buffers(self, vector: Tensor) -> None:
        buffers = list(self.method.buffers())
        for buffer, part in zip(buffers, vector.split([b.numel() for b in buffers])):
            buffer.copy_(part.view(buffer.shape))


def check_stages(method: Method, stages: Sequence[Stage], streams: Mapping[str, Stream]) -> None:
    """Raise :class:`UsageError` if a stage names a function that does not exist or does not take exactly its streams."""
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise UsageError(f"{type(method).__name__}: two stages share a name: {names}")
    for stage in stages:
        function = getattr(method, stage.step, None)
        if function is None:
            raise UsageError(f"{type(method).__name__} has no function {stage.step!r} for stage {stage.name!r}")
        wanted = {*stage.streams, *(["at"] if isinstance(stage, Train) else [])}
        if set(inspect.signature(function).parameters) != wanted:
            raise UsageError(f"{type(method).__name__}.{stage.step} must take exactly {sorted(wanted)}")
        if isinstance(stage, Train) and any(value <= 0 for value in stage.rare_classes.values()):
            raise UsageError(f"stage {stage.name!r}: the temperature of rare classes must be above 0")
        if isinstance(stage, Train) and (strange := stage.rare_classes.keys() - set(stage.streams)):
            raise UsageError(
                f"stage {stage.name!r} draws rare classes of {sorted(strange)}, which it does not train on"
            )
        if isinstance(stage, Train) and not 0 <= stage.part[0] < stage.part[1] <= 1:
            raise UsageError(f"stage {stage.name!r}: part must rise within 0..1, not {stage.part}")
        if absent := set(stage.streams) - streams.keys():
            raise UsageError(
                f"stage {stage.name!r} asks for {sorted(absent)}, which {type(method).__name__}.needs does not declare"
            )


@torch.no_grad()
def move_average(of: torch.nn.Module, into: torch.nn.Module, decay: float, failed: Tensor) -> None:
    """into <- decay * into + (1 - decay) * of for parameters; buffers are copied; nothing moves once a step has failed."""
    for mean, value in zip(map(Tensor.detach, into.parameters()), of.parameters()):
        mean.copy_(torch.where(failed > 0, mean, mean.lerp(value, 1 - decay)))
    for kept, current in zip(into.buffers(), of.buffers()):
        kept.copy_(torch.where(failed > 0, kept, current))


def flat(prefix: str, value: Any) -> dict[str, Any]:
    """Nested mappings as one level with dotted names."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {name: leaf for key_, inner in value.items() for name, leaf in flat(f"{prefix}.{key_}", inner).items()}
