"""How long code of the notebook may take while it is asked for its state.

A ``__reduce__`` that sleeps, waits for a network or loops for ever must cost one variable, not the
save. A timer signal ends it, with an exception that ``except Exception`` does not catch. Every byte
that is written starts the time anew, so that something large is not taken for something stuck.
Outside the main thread, where signals cannot be received, there is no limit.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class TookTooLong(BaseException):
    """The limit has passed."""


class Patience:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._armed = False

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Raise `TookTooLong` inside once there was no sign of life for the limit."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler = signal.signal(signal.SIGALRM, self._end)
        rest = signal.setitimer(signal.ITIMER_REAL, self.seconds, 1.0)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
            if rest[0]:
                signal.setitimer(signal.ITIMER_REAL, *rest)

    def alive(self, _size: int = 0) -> None:
        """Something was written."""
        if self._armed and threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, self.seconds, 1.0)

    def _end(self, _signum: int, _frame: FrameType | None) -> Any:
        if self._armed:
            raise TookTooLong
