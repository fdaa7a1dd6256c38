"""From an exception to one clear message and an exit code."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import traceback
from typing import Any

import typer

from acclimate.cli import console
from acclimate.errors import AcclimateError, nearest

UNEXPECTED, NUMERIC, INTERRUPTED = 1, 4, 130

# Typer brings its own copy of click in some releases and uses the installed one in others.
_exceptions: Any = importlib.import_module(typer.BadParameter.__module__)


def explain(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Say what went wrong, on stderr and with ``--json`` as a document on stdout, and return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else UNEXPECTED
    if isinstance(error, BrokenPipeError):  # "acclimate ... | head" is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    message, code, hint = _read(error)
    if debug and not isinstance(error, KeyboardInterrupt | _exceptions.ClickException):
        traceback.print_exception(error)
    elif code == UNEXPECTED and not isinstance(error, AcclimateError | typer.Abort):
        hint = f"this should not happen; what happened is in {_keep(error)} (--debug shows it here)"
    if as_json:
        console.document({"error": message, "exit_code": code})
    console.say(f"error: {message}")
    if hint:
        console.say(hint)
    return code


def _read(error: BaseException) -> tuple[str, int, str]:
    """Message, exit code, and a second line or nothing."""
    if isinstance(error, AcclimateError):
        return _short(str(error)), error.exit_code, _list(str(error))
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED, ""
    if isinstance(error, typer.Abort):
        return "aborted", UNEXPECTED, ""
    if isinstance(error, _exceptions.ClickException):
        context = getattr(error, "ctx", None)
        return _usage(error), error.exit_code, f"see: {context.command_path} --help" if context else ""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; lower --batch, --size or --crop", NUMERIC, ""
    return f"{type(error).__name__}: {error}", UNEXPECTED, ""


def _short(message: str) -> str:
    """Without the list of all names where the nearest one is said."""
    return re.sub(r"(; did you mean '[^']*'\?) \(known: [^()]*\)", r"\1", message)


def _list(message: str) -> str:
    """Which command lists what was mistyped, where a list was left out."""
    kinds = {"unknown method '": "methods", "unknown network '": "networks", "unknown data set '": "datasets"}
    verbs = [verb for start, verb in kinds.items() if message.startswith(start) and _short(message) != message]
    return f"see: {console.command(*verbs)}" if verbs else ""


def _usage(error: Any) -> str:
    if isinstance(error, _exceptions.NoSuchOption):
        known = error.possibilities or []
        return f"there is no option {error.option_name}{nearest(error.option_name, known)}"
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:].replace(". Did you mean", "; did you mean")


def _keep(error: BaseException) -> str:
    """The traceback in a file of its own."""
    handle, path = tempfile.mkstemp(prefix="acclimate-error-", suffix=".txt")
    with os.fdopen(handle, "w") as stream:
        stream.write("".join(traceback.format_exception(error)))
    return path
