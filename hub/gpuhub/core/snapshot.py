"""The world at one moment, frozen, so that decisions can be made without looking again.

The reconciler builds it from the store, the backend and telemetry; tests build it by hand. Durations
were measured by a steady clock: a jump of the wall clock does not change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gpuhub.core.lease import DeviceInfo, LeaseRecord
from gpuhub.core.quota import WeekUse
from gpuhub.core.rules import Rules

WorkerPhase = Literal["starting", "ready", "stopping", "exited"]


@dataclass(frozen=True)
class Queued:
    """A lease that waits for GPUs."""

    record: LeaseRecord
    rules: Rules
    server_gone: bool = False


@dataclass(frozen=True)
class WorkerNow:
    """A lease's worker, as it was just seen."""

    phase: WorkerPhase
    address: str | None = None
    message: str = ""
    waiting: bool = False
    """For room, which somebody else gives: no time limit runs."""


@dataclass(frozen=True)
class Held:
    """A lease that has GPUs set aside, and what was measured about it."""

    record: LeaseRecord
    rules: Rules
    worker: WorkerNow | None = None
    missing_seconds: float = 0.0
    """How long a worker that should be there was not seen."""
    order_pending: bool = False
    """An order about this worker is on its way to the backend: what was seen may be older than it."""
    since_grant_seconds: float = 0.0
    since_key_seconds: float = 0.0
    """Since GPU and key were there, and room for the worker: the time that its start has taken so far."""
    refusal: str = ""
    """What the place said when it refused the worker's start, one sentence; empty: it did not."""
    since_stop_seconds: float | None = None
    """Since the worker was last told to stop; None: never (by this broker)."""
    ends_in_seconds: float | None = None
    deadline_in_seconds: float | None = None
    warned_in_seconds: float | None = None
    kept_for_seconds: float = 0.0
    silent_seconds: float | None = None
    """Silence of its GPUs so far. None: not known."""
    resident_bytes: int | None = None
    cell_running: bool = False
    """The owner's server says that a cell runs there: a hint, which counts only where it harms nobody."""
    server_gone: bool = False


@dataclass(frozen=True)
class PoolNow:
    """A pool, and which of its GPUs nobody has."""

    name: str
    title: str
    memory_bytes: int
    total: int
    simulated: bool = False
    devices: tuple[DeviceInfo, ...] = ()
    """Those that work. Empty where somebody else chooses (a cluster's scheduler)."""
    free: tuple[str, ...] = ()
    free_count: int = 0
    typical_seconds: float | None = None
    """How long a lease of this pool was held lately (median); None: too few have ended."""
    works: bool = True
    """False: the pool was on offer before and is not now, or nobody can tell."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that `gpuhub.core.policy.decide` reads."""

    pools: Mapping[str, PoolNow]
    queued: tuple[Queued, ...] = ()
    held: tuple[Held, ...] = ()
    week: Mapping[str, WeekUse] = field(default_factory=dict)
    """GPU-hours of the last seven days, of those people who have a limit."""
