"""How long code of the notebook may take while it is asked for its state.

A ``__reduce__`` that sleeps, waits for a network or loops for ever must cost one variable, not the
save. A timer signal ends it, with an exception that ``except Exception`` does not catch. Every byte
that is written starts the time anew, so that something large is not taken for something stuck. Around
many small variables, `watching` keeps one timer for all: to set it up costs more than most of them.
Outside the main thread, where signals cannot be received, there is no limit.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

TICK_SECONDS = 1.0
"""So often is looked, at least; and so often raised again, if the notebook's code swallows it."""


class TookTooLong(BaseException):
    """The limit has passed."""


class Patience:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._armed = self._watching = False
        self._since = 0.0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the time regularly. Nothing is raised but inside `limited`."""
        if self._watching or threading.current_thread() is not threading.main_thread():
            yield
            return
        tick = min(TICK_SECONDS, self.seconds / 2)
        handler = signal.signal(signal.SIGALRM, self._look)
        rest = signal.setitimer(signal.ITIMER_REAL, tick, tick)
        self._watching = True
        try:
            yield
        finally:
            self._watching = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
            if rest[0]:
                signal.setitimer(signal.ITIMER_REAL, *rest)

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Raise `TookTooLong` inside once there was no sign of life for the limit."""
        if not self._watching:
            with self.watching():
                if self._watching:
                    with self.limited():
                        yield
                else:
                    yield
            return
        self._since = time.monotonic()
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def alive(self, _size: int = 0) -> None:
        """Something was written."""
        self._since = time.monotonic()

    def _look(self, _signum: int, _frame: FrameType | None) -> Any:
        if self._armed and time.monotonic() - self._since >= self.seconds:
            raise TookTooLong
