"""Ctrl-C and SIGTERM: finish the step, save, exit 130; a second signal exits at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from acclimate.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptible:
    """While open, the first signal sets :attr:`asked` and the second ends the process."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self.asked and kind is None:  # it came too late for this run, and must not be lost on what follows
            raise Interrupted("interrupted; run the same command to continue")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True
        os.write(2, b"\nstopping after this step; again to stop at once\n")  # print is not safe in a handler
