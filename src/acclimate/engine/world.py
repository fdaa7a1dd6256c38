"""One process or many: the few collective operations that a run needs."""

from __future__ import annotations

import dataclasses
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from acclimate.networks.norm import batch_norms


@dataclasses.dataclass(frozen=True)
class World:
    """This process's place among all."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> World:
        """From ``torch.distributed``, initialised here if ``torchrun`` started the process."""
        if not dist.is_available():
            return World()
        if not dist.is_initialized() and "TORCHELASTIC_RUN_ID" in os.environ:
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            # Flags of the host travel over gloo even where gradients travel over NCCL, which knows CUDA tensors only.
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World()

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum over processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def gather(self, value: Tensor) -> Tensor:
        """Every process's value, stacked."""
        parts = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(parts, value)
        return torch.stack(parts)

    def same(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of the first."""
        if self.size > 1:
            for tensor in [*module.parameters(), *module.buffers()]:
                value = tensor.detach().reshape(-1).clone()
                dist.broadcast(value.view(torch.uint8), 0)  # as bytes: neither gloo nor NCCL knows int16
                tensor.detach().copy_(value.view(tensor.shape))

    def average_statistics(self, module: nn.Module) -> None:
        """Make running BatchNorm statistics the mean over processes; each has seen its own rows only."""
        if self.size > 1:
            statistics = [s for _, layer in batch_norms(module) for s in (layer.running_mean, layer.running_var)]
            if statistics:
                flat = torch.cat(statistics)  # type: ignore[arg-type]
                dist.all_reduce(flat)
                torch._foreach_copy_(statistics, list((flat / self.size).split([s.numel() for s in statistics])))  # type: ignore[union-attr, arg-type]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return bool(self.total(torch.tensor(int(flag)))) if self.size > 1 else flag
