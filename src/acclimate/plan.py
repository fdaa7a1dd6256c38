"""How a run is trained: everything that is not the method, the network or the data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from acclimate.settings import Settings


class Optimiser(Settings):
    """One optimiser and its schedule.

    ``lr`` is multiplied by a factor of the stage's progress p in [0, 1): ``constant`` 1; ``dann``
    (1 + 10 p)^-0.75 (Ganin et al. 2016, section 5.2.2); ``poly`` (1 - p)^0.9 (DeepLab); ``cosine`` (1 + cos pi p) / 2;
    and rises linearly from 0 over the first ``warmup`` share of the stage.
    """

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd
    betas: tuple[float, float] = (0.9, 0.999)  # adam, adamw
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "dann", "poly", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)


class Plan(Settings):
    """Steps, batch, precision, and how often to log and to save."""

    steps: int = Field(2000, ge=1)
    batch: int = Field(64, ge=1)  # images per stream and step, over all processes together
    seed: int = Field(0, ge=0)
    optimiser: Optimiser | None = None  # None: the method's own default
    precision: Literal["bfloat16", "float32", "float16"] = "bfloat16"  # of the forward pass; weights stay float32
    channels_last: bool = True
    compile: bool = False  # torch.compile the network
    deterministic: bool = False  # refuse operations whose result varies from run to run (they matter on CUDA)
    clip: float | None = Field(None, gt=0)  # the largest norm of a player's gradient
    log_every: int = Field(50, ge=1)
    save_every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1)  # checkpoints
    memory_budget: float = Field(2.0, gt=0)  # GiB; a data set that fits stays decoded on the device
    workers: int = Field(2, ge=0)  # threads that decode ahead where it does not fit
