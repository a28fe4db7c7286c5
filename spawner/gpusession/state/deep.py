"""Room for structures that are nested very deeply: a thread with a large stack.

The pickler goes down one level of the machine's stack for each level of nesting. A linked list of
100 000 nodes is legal and must be saved; a reducer that never ends must not crash the kernel. So a
`RecursionError` in the ordinary thread is answered by a second try here, with a limit that the
stack is known to hold.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from gpusession.state.patience import TookTooLong

STACK_BYTES = 1 << 30
"""Reserved, not used: pages count only once they are touched."""
LEVELS = 600_000
"""Measured: one level needs less than 700 bytes of stack."""

T = TypeVar("T")


def with_room(work: Callable[[], T], seconds: float) -> T:
    """Run ``work`` with room for `LEVELS` levels. Raises what it raises; TookTooLong after ``seconds``."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 — carried to the thread that waits
            failures.append(error)

    limit, size = sys.getrecursionlimit(), threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=run, name="gpuhub-deep", daemon=True)
    try:
        sys.setrecursionlimit(max(limit, LEVELS))
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise RecursionError("There is no room for a larger stack.") from error
    finally:
        threading.stack_size(size)
    try:
        thread.join(seconds)
        while thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TookTooLong)
            )
            thread.join(0.5)
    finally:
        sys.setrecursionlimit(limit)
    if failures:
        raise failures[0]
    return results[0]
