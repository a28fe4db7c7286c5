"""A thread that waits for sockets and for calls from other threads.

Exists apart from what is done with the sockets (`switchboard`). Promises: nobody who calls it waits
for a socket (an eventfd wakes it: a send to a thread that has just ended would block for ever); one
message that cannot be handled does not end it; every call gets an answer, also after the end.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import zmq

from gpulease import errors

log = logging.getLogger(__name__)

FAILURES = 100
"""A thread that fails this often in a row ends."""

JOIN_SECONDS = 5.0


class BoardThread(threading.Thread):
    """Subclasses say what a turn is, how long to wait for the next, and what to close."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.poller = zmq.Poller()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = self._over = False
        self._lock = threading.Lock()
        self.poller.register(self._wakeup, zmq.POLLIN)

    def turn(self, events: dict[Any, int]) -> None:
        raise NotImplementedError

    def patience(self) -> int:
        """Return for how many milliseconds to wait for something to happen."""
        raise NotImplementedError

    def ended(self) -> None:
        """Close everything."""
        raise NotImplementedError

    # --- from other threads

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Run ``work`` in the thread, in the order of calls; `errors.Unavailable` once it has ended."""
        future: Future[Any] = Future()
        with self._lock:
            if self._over:
                future.set_exception(_shut_down())
                return future
            self._calls.append((work, future))
            os.eventfd_write(self._wakeup, 1)
        return future

    def close(self) -> None:
        """End the thread. Idempotent; waits for it."""
        with self._lock:
            self._closing = True
            if not self._over:
                os.eventfd_write(self._wakeup, 1)
        if self.is_alive():
            self.join(JOIN_SECONDS)
        elif not self._over:
            self._end()

    # --- in the thread

    def run(self) -> None:
        failures = 0
        try:
            while not self._closing and failures < FAILURES:
                try:
                    self._once()
                    failures = 0
                except Exception:
                    failures += 1
                    log.exception("a relay failed at a message")
        finally:
            self._end()

    def _once(self) -> None:
        events = dict(self.poller.poll(self.patience()))
        if self._wakeup in events:
            os.eventfd_read(self._wakeup)
        while self._calls:
            work, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:  # noqa: BLE001 - it belongs to the caller
                    future.set_exception(error)
        self.turn(events)

    def _end(self) -> None:
        with self._lock:
            self._over = True
            os.close(self._wakeup)
        for _, future in self._calls:
            reject(future, _shut_down())
        self.ended()


def _shut_down() -> errors.Unavailable:
    return errors.Unavailable("The notebook's kernel was shut down.")


def resolve(future: Future[Any], value: Any) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(value)


def reject(future: Future[Any], error: Exception | None = None) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error or _shut_down())
