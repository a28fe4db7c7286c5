"""Waits that end: with what was waited for, or with a sentence that shows why it did not come.

Whatever starts a program here waits for it with `until`, and hands over what a person would look at next:
usually the end of a log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
TAIL_LINES = 40
PAUSE_SECONDS = 0.1


class ClusterError(AssertionError):
    """The test cluster does not do what it should. Says what, and what its log said last."""


def until(
    look: Callable[[], T | None], what: str, seconds: float, evidence: Callable[[], str] = lambda: ""
) -> T:
    """Return the first true value of ``look()``; after ``seconds`` raise ClusterError with ``evidence()``."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not after {seconds:.0f} s\n{evidence()}".rstrip())
        time.sleep(PAUSE_SECONDS)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log under its name, or a word that there is none."""
    if not log.exists():
        return f"--- {log.name}: nothing written"
    last = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([f"--- {log}, last lines", *last])
