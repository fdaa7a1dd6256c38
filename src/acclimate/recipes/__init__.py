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
    :class:`~acclimate.experiment.Experiment`.
    """

    title: str
    description: str
    expected: dict[str, Any]
    fields: dict[str, Any]

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
        data = f"data: {self.fields.get('source')} -> {self.fields.get('target')}"
        return [self.title, data, *([f"expected: {self.expected_text}"] if self.expected_text else [])]

    def words(self) -> dict[str, Any]:
        """All but the experiment, as JSON."""
        return {"title": self.title, "description": self.description, "expected": self.expected}


def names() -> list[str]:
    """The packaged recipes."""
    return sorted(
        Path(file.name).stem for file in resources.files(__package__).iterdir() if file.name.endswith(".toml")
    )


def load(name: str) -> Recipe:
    """A packaged recipe by its name, or one from a ``.toml`` file.

    Raises :class:`UsageError` for an unknown name, :class:`DataError` for a file that is missing or no TOML.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; acclimate demo --list names the packaged recipes")
        text = path.read_text(encoding="utf-8")
    elif name in names():
        text = (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise unknown("recipe", name, names())
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{name} is not valid TOML: {error}") from error
    if "title" not in fields:
        raise UsageError(f"{name}: a recipe needs a title")
    title, description = fields.pop("title"), fields.pop("description", "")
    return Recipe(title, description.strip(), fields.pop("expected", {}), fields)
