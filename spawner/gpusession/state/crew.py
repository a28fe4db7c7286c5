"""A few threads that share out the numbered parts of one piece of work.

Exists because digesting, reading and writing each leave Python's lock alone: on two cores they take
half the time, and one thread's waiting for the disk is another's time to compute. Promises: `share`
returns after every part is done or not begun, and raises the first failure; nothing runs in the
threads between two calls, so that forking then is safe.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

MOST_THREADS = 4
"""Beyond, the disk and the memory are the limit."""
SAY_SECONDS = 0.1


class Crew:
    """Use as a context. The threads start with the first work that is large enough."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or max(2, min(MOST_THREADS, len(os.sched_getaffinity(0))))
        self._pool: ThreadPoolExecutor | None = None
        self._own = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def room(self, nbytes: int) -> memoryview:
        """Return memory of the calling thread's own, the same again at its next call."""
        held: bytearray | None = getattr(self._own, "room", None)
        if held is None or len(held) < nbytes:
            held = self._own.room = bytearray(nbytes)
        return memoryview(held)[:nbytes]

    def share(self, parts: int, do: Callable[[int], None], say: Callable[[int], None] | None = None) -> None:
        """Call ``do`` with every number below ``parts``; ``say``, in this thread, how many are done."""
        if parts < 2:
            for number in range(parts):
                do(number)
            if say is not None:
                say(parts)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gpuhub-crew")
        work = _Work(parts, do)
        working: set[Future[None]] = {self._pool.submit(work.run) for _ in range(min(self._threads, parts))}
        try:
            pending = working
            while pending:
                _, pending = wait(pending, SAY_SECONDS)
                if say is not None:
                    say(work.done)
        finally:
            work.stop()
            wait(working)
        for one in working:
            one.result()


class _Work:
    """The parts of one call that nobody has taken yet."""

    def __init__(self, parts: int, do: Callable[[int], None]) -> None:
        self._parts, self._do = parts, do
        self._next = 0
        self.done = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            while (number := self._take()) is not None:
                self._do(number)
                with self._lock:
                    self.done += 1
        except BaseException:
            self.stop()
            raise

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= self._parts:
                return None
            self._next += 1
            return self._next - 1

    def stop(self) -> None:
        with self._lock:
            self._next = self._parts
