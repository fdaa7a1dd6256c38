"""What can go wrong, and the exit code of the command line that it maps to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AcclimateError(Exception):
    """Base of every error that a user can cause or meet; its text says what to do."""

    exit_code = 1


class ConditionError(AcclimateError):
    """A condition that the user asked for does not hold (a check found something, a gain was not reached)."""

    exit_code = 1


class UsageError(AcclimateError):
    """A name, setting or combination that acclimate does not have."""

    exit_code = 2


class DataError(AcclimateError):
    """A file or folder that cannot be used as it is."""

    exit_code = 3


class NumericError(AcclimateError):
    """A loss or gradient that is not finite, or weights that are not."""

    exit_code = 4


class StorageError(AcclimateError):
    """Results could not be written (disk full, read-only folder)."""

    exit_code = 4


class Interrupted(AcclimateError):
    """The run was asked to stop; it has saved its state and resumes from there."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'dann'?"``, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    return UsageError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")


def missing_extra(extra: str, needed_for: str) -> UsageError:
    """The error for an optional dependency that is not installed."""
    return UsageError(f'{needed_for} needs an extra: pip install "acclimate[{extra}]"')
