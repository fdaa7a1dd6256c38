"""The command line: one thin module per verb. Nothing here imports torch before a verb asks for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the only place where errors become messages."""
    from acclimate.cli.app import run
    from acclimate.cli.failure import explain

    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # it may stand anywhere
    try:
        code = run(words)
        sys.stdout.flush()
        return code
    except BaseException as error:  # the last stop: whatever it is, a person reads about it
        return explain(error, as_json="--json" in words, debug=debug)
