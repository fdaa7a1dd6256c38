"""Complete named runs that state what to expect of them."""

from __future__ import annotations

import dataclasses
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acclimate.errors import DataError, UsageError, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from acclimate.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An experiment with a title, a description and the result to expect.

    The file is TOML: ``title``, ``description``, ``[expected]`` (``text`` and figures), and the fields of
    :class:`~acclimate.experiment.Experiment`. Recipes that differ in little share a file: each ``[variants.NAME]`` is
    another recipe, in which its entries replace the file's.
    """

    title: str
    description: str
    expected: dict[str, Any]
    fields: dict[str, Any]
    variants: tuple[str, ...] = ()  # names of the other recipes in the same file

    def experiment(self) -> Experiment:
        """Raises :class:`UsageError` for a field that an experiment does not have."""
        from acclimate.experiment import Experiment

        return Experiment(**self.fields)

    @property
    def expected_text(self) -> str:
        """The result to expect, in words."""
        return str(self.expected.get("text", "")).strip()

    def lines(self) -> list[str]:
        """What a list of recipes says: the title, the data, and what to expect."""
        others = f"; also {', '.join(self.variants)}" if self.variants else ""
        data = f"{self.title} ({self.fields.get('source')} -> {self.fields.get('target')}{others})"
        return [data, *([f"expected: {self.expected_text}"] if self.expected_text else [])]

    def words(self) -> dict[str, Any]:
        """All but the experiment, as JSON."""
        return {
            "title": self.title,
            "description": self.description,
            "expected": self.expected,
            "variants": list(self.variants),
        }


def names(variants: bool = False) -> list[str]:
    """The packaged recipes, one for each file; with ``variants`` also those that share a file, ``FILE-VARIANT``."""
    return sorted(name for name, (fields, others) in _packaged().items() if variants or others is not None)


def load(name: str) -> Recipe:
    """A packaged recipe by its name, or one from a ``.toml`` file; ``FILE.toml:VARIANT`` for one of its variants.

    Raises :class:`UsageError` for an unknown name or variant, :class:`DataError` for a file that is missing or no TOML.
    """
    place, colon, _ = name.rpartition(":")
    file = place if colon and place.endswith(".toml") else name
    if file.endswith(".toml"):
        path = Path(file)
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; acclimate demo --list names the packaged recipes")
        try:
            known = _recipes(file, ":", tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise DataError(f"{file} is not valid TOML: {error}") from error
    else:
        known = _packaged()
    if name not in known:
        raise unknown("recipe", name, sorted(known))
    fields, others = known[name]
    if "title" not in fields:
        raise UsageError(f"{name}: a recipe needs a title")
    title, description = fields.pop("title"), fields.pop("description", "")
    return Recipe(title, description.strip(), fields.pop("expected", {}), fields, tuple(others or ()))


Entries = dict[str, tuple[dict[str, Any], list[str] | None]]
"""By name the entries of a recipe, and the names of its variants; None for a variant."""


def _packaged() -> Entries:
    found: Entries = {}
    for file in resources.files(__package__).iterdir():
        if file.name.endswith(".toml"):
            found |= _recipes(file.name.removesuffix(".toml"), "-", tomllib.loads(file.read_text(encoding="utf-8")))
    return found


def _recipes(name: str, mark: str, whole: dict[str, Any]) -> Entries:
    """What a file holds: itself, and each of its variants under its name, ``mark`` and theirs."""
    variants = whole.pop("variants", {})
    named: Entries = {f"{name}{mark}{variant}": ({**whole, **own}, None) for variant, own in variants.items()}
    return {name: (whole, list(named)), **named}
