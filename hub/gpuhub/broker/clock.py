"""Time: the wall's for what people read, a steady one for how long something lasts.

A wall clock that jumps (a correction, a machine that slept) must take nobody's GPU. So a stored
instant is turned into a duration once, when this process first sees it, and counted from there by
the steady clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Both clocks."""

    def now(self) -> datetime:
        """Return the wall's time, timezone-aware UTC."""

    def monotonic(self) -> float:
        """Return the steady clock's seconds."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class Countdowns:
    """How long until, or since, the instants that stand in lease records."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, dict[str, tuple[datetime, float]]] = {}

    def left(self, lease_id: str, name: str, at: datetime | None) -> float | None:
        """Return the seconds until ``at`` (negative: since), None for None."""
        if at is None:
            return None
        known = self._due.setdefault(lease_id, {})
        due = known.get(name)
        if due is None or due[0] != at:
            due = (at, self._clock.monotonic() + (at - self._clock.now()).total_seconds())
            known[name] = due
        return due[1] - self._clock.monotonic()

    def since(self, lease_id: str, name: str, at: datetime | None) -> float:
        """Return the seconds since ``at``, 0 for None and for the future."""
        left = self.left(lease_id, name, at)
        return 0.0 if left is None else max(0.0, -left)

    def forget(self, lease_id: str) -> None:
        self._due.pop(lease_id, None)
