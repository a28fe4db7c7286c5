"""A lease as it is stored: what is wanted, what was observed, and everything that a decision reads.

A record is a value: a change makes a new one with a higher revision (the store does it), so that a
decision made on an old one is noticed and thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gpulease.states import EndReason, LeaseState, Observed, Wanted, shown_state


@dataclass(frozen=True)
class DeviceInfo:
    """One GPU of a lease, as it was when it was granted."""

    id: str
    index: int
    name: str
    memory_bytes: int
    simulated: bool = False


@dataclass(frozen=True)
class Warned:
    """What the owner was told will be taken, and when."""

    reason: EndReason
    at: datetime
    resident_bytes: int | None = None
    """GPU memory that silent processes held when the warning was written."""


@dataclass(frozen=True)
class LeaseRecord:
    """One lease. Times are timezone-aware UTC."""

    id: str
    user: str
    server: str
    pool: str
    gpus: int
    created_at: datetime
    seq: int = 0
    """Order of arrival: unique, grows."""
    revision: int = 1
    groups: tuple[str, ...] = ()
    """The owner's groups when he asked: they decide his limits while the lease lives."""
    wanted: Wanted = Wanted.HELD
    observed: Observed = Observed.NOTHING
    reason: EndReason | None = None
    message: str = ""
    granted_at: datetime | None = None
    key_at: datetime | None = None
    """When GPU and key were both there: from then on the worker's start is timed."""
    active_at: datetime | None = None
    ends_at: datetime | None = None
    released_at: datetime | None = None
    deadline: datetime | None = None
    acknowledged_at: datetime | None = None
    ended_at: datetime | None = None
    devices: tuple[DeviceInfo, ...] = ()
    public_key: str | None = None
    """The owner's server's."""
    told_key: str | None = None
    """The one that the worker was last told."""
    host_key: str | None = None
    """The worker's, public half."""
    host_secret: str | None = field(default=None, repr=False)
    """The worker's, private half; gone as soon as the worker has it."""
    address: str | None = None
    keeps_used: int = 0
    kept_until: datetime | None = None
    warned: Warned | None = None
    server_seen: bool = False
    """Whether the owner's server was ever seen running during this lease."""
    busy_seconds: float = 0.0

    @property
    def state(self) -> LeaseState:
        return shown_state(self.wanted, self.observed)

    @property
    def queued(self) -> bool:
        return self.wanted is Wanted.HELD and self.observed is Observed.NOTHING

    @property
    def device_ids(self) -> tuple[str, ...]:
        return tuple(device.id for device in self.devices)

    @property
    def gone(self) -> bool:
        return self.observed is Observed.GONE
