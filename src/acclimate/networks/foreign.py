"""Weights that acclimate did not write: the one place that opens them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from acclimate.errors import DataError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")  # left by data-parallel training and by torch.compile


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.pt``, ``.pth`` or ``.safetensors`` file by name, on the CPU.

    Weights nested under ``state_dict``, ``model_state_dict``, ``model`` or ``net`` are found, the prefixes ``module.``
    and ``_orig_mod.`` removed, and entries that are not tensors left out. Pickled code is never run: only tensors and
    plain containers are read. Raises :class:`DataError` for a missing or damaged file, or one that holds anything else
    or no tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; give the path of a .pt, .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: it holds more than weights (Python objects that could run code), so it was refused and nothing "
            "in it was run; save the state_dict alone, or as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{path}: it cannot be read as weights ({error}); copy or download it again") from error
    while isinstance(found, Mapping) and (inner := _inner(found)) is not None:
        found = inner
    weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        raise DataError(f"{path}: there are no named weights in it; save model.state_dict()")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _inner(found: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    return next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
