"""Saves in a forked copy of the kernel, while the kernel itself goes on with the next cell.

Exists so that a crash costs little and nobody waits for that. The copy sees all memory as it was between
two cells, whatever the next cell changes; only what that cell changes takes memory twice meanwhile.
Promises: the kernel is held up for the fork alone; one copy at a time; a copy that shows no sign of life
is ended; what a copy leaves half written is removed; short of memory, the system ends the copy first.

Not where a device driver is in use (a forked child must not touch CUDA), nor with libraries whose threads
do not survive a fork, nor where the page tables alone would take too long to copy: the caller saves
between cells then.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

PAGE_TABLES_LIMIT_KB = 32 << 10
"""About 16 GB in small pages; copying them takes a third of a second (measured: 0.1 GB/s)."""
SILENT_SECONDS = 120.0
"""A copy that writes nothing for so long hangs, in a lock that another thread held at the fork, say."""
UNFORKABLE = ("jax", "tensorflow", "cupy", "polars")
"""Their threads hold locks at any moment."""
NICE = 10

Progress = Callable[[int, int | None], None]
Work = Callable[[Progress], tuple[dict[str, Any], Any]]
"""Saves; returns the answer, and what the kernel should know of it (both are pickled)."""


def possible() -> str | None:
    """Return why this process should not be forked now; None: nothing speaks against it."""
    for name in UNFORKABLE:
        if name in sys.modules:
            return f"{name} is loaded"
    if _uses_device():
        return "a GPU is in use"
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmPTE:"))
        if int(line.split()[1]) > PAGE_TABLES_LIMIT_KB:
            return "it holds too much memory"
    return None


def _uses_device() -> bool:
    """Every CUDA context has the driver's devices open, whichever library made it."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("/dev/nvidia"):
                    return True
    return False


class Background:
    """The copy that saves, if there is one. ``done(knowledge)`` is called when it has saved."""

    def __init__(self, done: Callable[[Any], None], silent_seconds: float = SILENT_SECONDS) -> None:
        self._done, self._silent_seconds = done, silent_seconds
        self._reader: threading.Thread | None = None
        self._child = 0
        self._stopped = False
        self.outcome: dict[str, Any] | None = None
        """What came of the last one: ``{"status": "ok" | "error", …}``; None while it runs, or never ran."""

    @property
    def running(self) -> bool:
        return self._reader is not None and self._reader.is_alive()

    def start(
        self, work: Work, failed: Callable[[BaseException], dict[str, Any]], clean: Callable[[], None]
    ) -> bool:
        """Begin; False if the system has no room for a copy. In the main thread. Ends one that still runs.

        ``failed``: returns what to tell about a failure, in the copy. ``clean`` removes what a copy that
        was killed has left.
        """
        self.stop()
        inlet, outlet = os.pipe()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                child = os.fork()
        except OSError:
            os.close(inlet)
            os.close(outlet)
            return False
        if child == 0:
            _child(work, failed, inlet, outlet)
        os.close(outlet)
        self.outcome, self._child, self._stopped = None, child, False
        self._reader = threading.Thread(
            target=self._read, args=(child, inlet, clean), name="gpuhub-saving", daemon=True
        )
        self._reader.start()
        return True

    def stop(self) -> None:
        """End the copy, if one runs: the kernel saves or loads by itself now."""
        reader = self._reader
        if reader is None:
            return
        if reader.is_alive():
            self._stopped = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGTERM)
            reader.join(5.0)
            if reader.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._child, signal.SIGKILL)
                reader.join()
        self._reader = None

    def _read(self, child: int, inlet: int, clean: Callable[[], None]) -> None:
        """In a thread of its own: wait for the copy's word and for its end."""
        heard = bytearray()
        with contextlib.suppress(OSError):
            while select.select([inlet], [], [], self._silent_seconds)[0]:
                part = os.read(inlet, 1 << 16)
                if not part:
                    break
                heard += part.lstrip(b".") if not heard else part
            else:
                os.kill(child, signal.SIGKILL)
        os.close(inlet)
        with contextlib.suppress(ChildProcessError):  # the person's own code has waited for it
            os.waitpid(child, 0)
        outcome: dict[str, Any] = {
            "status": "error",
            "code": "conflict" if self._stopped else "unavailable",
            "message": "It was called off."
            if self._stopped
            else "The copy that saves has ended unexpectedly.",
        }
        if heard and not self._stopped:
            with contextlib.suppress(Exception):  # cut off: it was killed while it spoke
                outcome, knowledge = pickle.loads(bytes(heard[1:]))
                if outcome["status"] == "ok":
                    self._done(knowledge)
        if outcome["status"] != "ok":
            clean()
        self.outcome = outcome


class _Stopped(BaseException):
    """The kernel called the copy off."""


def _child(work: Work, failed: Callable[[BaseException], dict[str, Any]], inlet: int, outlet: int) -> None:
    """Never returns. Touches nothing of the kernel's sockets."""

    said = time.monotonic()

    def stop(*_: Any) -> None:
        raise _Stopped

    def alive(_done: int, _total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said > 1.0:
            said = time.monotonic()
            os.write(outlet, b".")

    try:
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(inlet)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        with contextlib.suppress(OSError):
            os.nice(NICE)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        try:
            answer, knowledge = work(alive)
            word = pickle.dumps(({"status": "ok", **answer}, knowledge))
        except BaseException as error:  # noqa: BLE001 — whatever it is, the kernel hears of it
            word = pickle.dumps((failed(error), None))
        view = memoryview(b"!" + word)
        while view:
            view = view[os.write(outlet, view) :]
    finally:
        os._exit(0)
