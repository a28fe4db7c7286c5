"""When a lease's GPUs are silent: utilisation 0 in every sample and no new process on them.

Counted by samples, never by clocks: a gap in telemetry is not silence, it starts the count anew, and
without a fresh sample nothing is known (DESIGN, rule 4). Memory alone does not count as use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STALE_SECONDS = 15.0
"""A sample that is older says nothing about now. One per 5 s is the least that telemetry promises."""


@dataclass(frozen=True)
class Look:
    """One sample of one GPU."""

    utilisation_percent: float
    pids: frozenset[int]
    process_bytes: int


class Silence:
    """Folds the samples of one lease's GPUs. Moments are seconds of a steady clock."""

    def __init__(self, device_ids: Sequence[str]) -> None:
        self.device_ids = tuple(device_ids)
        self._last: float | None = None
        self._pids: frozenset[int] = frozenset()
        self._silent = 0.0
        self._busy = 0.0
        self._bytes = 0

    def feed(self, at: float, looks: Mapping[str, Look]) -> None:
        """Take one look at all GPUs. A look that misses one of this lease's is none at all."""
        mine = [looks[device] for device in self.device_ids if device in looks]
        if not mine or len(mine) < len(self.device_ids):
            return
        pids = frozenset().union(*(look.pids for look in mine))
        busy = any(look.utilisation_percent > 0 for look in mine)
        gap = None if self._last is None else at - self._last
        if gap is None or gap > STALE_SECONDS or gap < 0:
            self._silent = 0.0
        elif busy or pids - self._pids:
            self._silent = 0.0
            self._busy += gap if busy else 0.0
        else:
            self._silent += gap
        self._last, self._pids = at, pids
        self._bytes = sum(look.process_bytes for look in mine)

    def silent_seconds(self, at: float) -> float | None:
        """Return the silence so far; None when the last sample is too old to tell."""
        return self._silent if self._fresh(at) else None

    def resident_bytes(self, at: float) -> int | None:
        """Return the GPU memory that processes hold; None when there is none, or nobody knows."""
        return self._bytes or None if self._fresh(at) else None

    def take_busy_seconds(self) -> float:
        """Return the seconds of use since the last call."""
        busy, self._busy = self._busy, 0.0
        return busy

    def _fresh(self, at: float) -> bool:
        return self._last is not None and at - self._last <= STALE_SECONDS
