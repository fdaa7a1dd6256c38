"""Errors carry the exit code and what to do."""

from __future__ import annotations

import pytest

from acclimate import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("ConditionError", 1),
        ("UsageError", 2),
        ("DataError", 3),
        ("NumericError", 4),
        ("StorageError", 4),
        ("Interrupted", 130),
    ],
)
def test_exit_codes_are_those_of_the_command_line(kind: str, code: int) -> None:
    assert getattr(errors, kind)("x").exit_code == code


def test_nearest_name_is_offered_only_where_one_is_near() -> None:
    assert "did you mean 'dann'?" in str(errors.unknown("method", "dan", ["dann", "adabn"]))
    assert "did you mean" not in str(errors.unknown("method", "zzz", ["dann", "adabn"]))
    assert "adabn, dann" in str(errors.unknown("method", "zzz", ["dann", "adabn"]))


def test_missing_extra_says_what_to_type() -> None:
    assert 'pip install "acclimate[hf]"' in str(errors.missing_extra("hf", "segformer"))
