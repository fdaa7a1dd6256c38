"""acclimate: make a vision model work in the place where it will be used.

The names below load when they are first used, so that ``import acclimate`` costs nothing and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acclimate.data import Domain, open_domain, open_folder, open_splits
    from acclimate.data.preprocess import Preprocess
    from acclimate.engine.adapt import Adapted, adapt
    from acclimate.engine.evaluate import Evaluation, evaluate
    from acclimate.engine.inference import Inference
    from acclimate.engine.model import Model
    from acclimate.engine.translate import translate
    from acclimate.experiment import Experiment, carry_out
    from acclimate.methods import Method, Need, Sweep, Train
    from acclimate.networks import Network
    from acclimate.plan import Optimiser, Plan

__version__ = "0.1.0"

_HOMES = {
    "Adapted": "engine.adapt",
    "Domain": "data",
    "Evaluation": "engine.evaluate",
    "Experiment": "experiment",
    "Inference": "engine.inference",
    "Method": "methods",
    "Model": "engine.model",
    "Need": "methods",
    "Network": "networks",
    "Optimiser": "plan",
    "Plan": "plan",
    "Preprocess": "data.preprocess",
    "Sweep": "methods",
    "Train": "methods",
    "adapt": "engine.adapt",
    "carry_out": "experiment",
    "evaluate": "engine.evaluate",
    "open_domain": "data",
    "open_folder": "data",
    "open_splits": "data",
    "translate": "engine.translate",
}

__all__ = [
    "Adapted",
    "Domain",
    "Evaluation",
    "Experiment",
    "Inference",
    "Method",
    "Model",
    "Need",
    "Network",
    "Optimiser",
    "Plan",
    "Preprocess",
    "Sweep",
    "Train",
    "adapt",
    "carry_out",
    "evaluate",
    "open_domain",
    "open_folder",
    "open_splits",
    "translate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'acclimate' has no attribute {name!r}")
    return getattr(importlib.import_module(f"acclimate.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
