"""``acclimate doctor``."""

from __future__ import annotations

from typing import Any

import typer

from acclimate.cli import console, options

CORE = (
    "torch",
    "numpy",
    "pillow",
    "kornia",
    "scikit-learn",
    "pydantic",
    "typer",
    "rich",
    "jinja2",
    "matplotlib",
    "safetensors",
    "pooch",
)
EXTRAS = {
    "hf": ("transformers",),
    "efficientnet": ("efficientnet-lite-pytorch",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
}
LEAST = 2**30  # bytes of free disk


def doctor(json: options.Json = False) -> None:
    """Say what is installed, where data are expected, and whether anything is in the way.

    Exits with 1 where something has to be done.
    """
    facts, problems = examined()
    if json:
        console.document({"ok": not problems, "problems": problems, **facts})
    else:
        console.show(console.facts({name: console.wrapped(str(value)) for name, value in facts.items()}))
        for problem in problems:
            console.show(f"problem: {problem}")
    if problems:
        raise typer.Exit(1)
    console.suggest(console.command("demo"))


def examined() -> tuple[dict[str, str], list[str]]:
    """Facts to show, and what has to be done."""
    import os
    import platform
    import shutil
    import tempfile
    from pathlib import Path

    from acclimate import __version__

    problems: list[str] = []
    versions = {name: _version(name) for name in CORE}
    if missing := [name for name, found in versions.items() if found is None]:
        problems.append(f"not installed: {', '.join(missing)}; pip install --upgrade acclimate")
    extras = {name: all(_version(package) for package in packages) for name, packages in EXTRAS.items()}
    free = shutil.disk_usage(".").free
    if free < LEAST:
        problems.append(f"{free / 2**30:.1f} GiB free here; make room, or write elsewhere with --out")
    for what, place in (("this folder", Path.cwd()), ("the folder for temporary files", Path(tempfile.gettempdir()))):
        if not os.access(place, os.W_OK):
            problems.append(f"{what}, {place}, cannot be written; choose another one")
    return {
        "acclimate": f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}",
        "packages": ", ".join(f"{name} {found or 'missing'}" for name, found in versions.items()),
        "devices": _devices(),
        "extras": ", ".join(
            f"{name} yes" if there else f'{name} no (pip install "acclimate[{name}]")' for name, there in extras.items()
        ),
        "data": _data(problems),
        "disk": f"{free / 2**30:.1f} GiB free in {Path.cwd()}",
    }, problems


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> str:
    import torch

    found: list[Any] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(
        [f"cpu with {torch.get_num_threads()} threads", *(f"cuda:{i} {name}" for i, name in enumerate(found))]
    )


def _data(problems: list[str]) -> str:
    import os

    from acclimate import registry
    from acclimate.data.catalog.base import VARIABLE, data_root

    root = data_root()
    if os.environ.get(VARIABLE) and not root.is_dir():
        problems.append(f"${VARIABLE} is {root}, which is not a folder; create it or correct the variable")
    present = []
    for name in registry.names("datasets"):
        dataset = registry.load("datasets", name)
        if not dataset.card.bundled and dataset.present:
            present.append(name)
    return f"{root}{'' if root.is_dir() else ' (not there yet)'}: {', '.join(present) or 'no set of the catalog'}"
