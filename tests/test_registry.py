"""Names load one module each, and unknown ones name the nearest."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from acclimate import registry
from acclimate.errors import UsageError


def test_names_are_sorted_and_load() -> None:
    assert registry.names("methods") == sorted(registry.names("methods"))
    assert {"source-only", "dann", "adabn", "self-training", "trained-on-target"} <= set(registry.names("methods"))
    assert registry.load("methods", "dann").__name__ == "DANN"


@pytest.mark.parametrize(("kind", "wrong", "right"), [("methods", "dannn", "dann"), ("networks", "u-net", "unet")])
def test_unknown_name_names_the_nearest(kind: str, wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{right}'"):
        registry.load(kind, wrong)


def test_two_packages_may_not_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [EntryPoint("x", value, "acclimate.methods") for value in ("a:A", "b:B")]
    monkeypatch.setattr(registry, "entry_points", lambda group: twice)
    registry._entries.cache_clear()
    try:
        with pytest.raises(UsageError, match="two packages"):
            registry.names("methods")
    finally:
        registry._entries.cache_clear()


def test_plug_in_registers_as_built_ins_do(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [EntryPoint("mine", "acclimate.methods.dann:DANN", "acclimate.methods")]
    monkeypatch.setattr(registry, "entry_points", lambda group: mine)
    registry._entries.cache_clear()
    try:
        assert registry.names("methods") == ["mine"]
        assert registry.load("methods", "mine").__name__ == "DANN"
    finally:
        registry._entries.cache_clear()


def test_listing_imports_no_method_and_loading_one_imports_no_other() -> None:
    code = (
        "import sys; from acclimate import registry; registry.names('methods');"
        "assert not any(m.startswith('acclimate.methods') or m == 'torch' for m in sys.modules);"
        "registry.load('methods', 'dann'); assert 'acclimate.methods.adabn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
