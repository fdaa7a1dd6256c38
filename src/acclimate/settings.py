"""Frozen settings whose unknown keys are errors that name the nearest known one."""

from __future__ import annotations

from typing import Any

import pydantic

from acclimate.errors import UsageError, nearest


class Settings(pydantic.BaseModel):
    """Base of every group of settings: frozen, keyword-only, no silent extra key.

    Raises :class:`UsageError` for an unknown key or a value of the wrong kind.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        known = type(self).model_fields
        for name in values:
            if name not in known:
                raise UsageError(
                    f"unknown setting {name!r} of {type(self).__qualname__}{nearest(name, known)} "
                    f"(known: {', '.join(sorted(known)) or 'none'})"
                )
        try:
            super().__init__(**values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"setting {where!r} of {type(self).__qualname__}: {first['msg']}") from error

    def replace(self, **changes: Any) -> Any:
        """A copy with some settings changed, checked like new ones."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})
