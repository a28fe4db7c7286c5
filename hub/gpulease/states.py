"""The words for where a lease stands, and why it ended.

Two facts are stored for each lease: what is *wanted* and what was last *observed*. What people
see is read from a table of the pair (`shown_state`), so that a crash at any point leaves a
meaning behind, never a half-made transition.
"""

from __future__ import annotations

from enum import StrEnum


class Wanted(StrEnum):
    """What the owner, a policy or an operator asked for."""

    HELD = "held"
    RELEASED = "released"


class Observed(StrEnum):
    """What the backend was last seen to hold for the lease."""

    NOTHING = "nothing"
    """No GPU has been given yet: the lease stands in the queue."""
    GRANTED = "granted"
    """GPUs are set aside; the worker is being started."""
    READY = "ready"
    """The worker answers on its link."""
    STOPPING = "stopping"
    """The worker was told to stop and still holds the GPUs."""
    GONE = "gone"
    """Nothing is held any more. Final."""


class LeaseState(StrEnum):
    """What people are shown."""

    QUEUED = "queued"
    STARTING = "starting"
    ACTIVE = "active"
    ENDING = "ending"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a lease ended. Shown to its owner, kept in the history."""

    RELEASED = "released"
    IDLE = "idle"
    EXPIRED = "expired"
    PREEMPTED = "preempted"
    QUOTA = "quota"
    REVOKED = "revoked"
    CANCELLED = "cancelled"
    FAILED = "failed"
    SERVER_STOPPED = "server-stopped"


_SHOWN: dict[tuple[Wanted, Observed], LeaseState] = {
    (Wanted.HELD, Observed.NOTHING): LeaseState.QUEUED,
    (Wanted.HELD, Observed.GRANTED): LeaseState.STARTING,
    (Wanted.HELD, Observed.READY): LeaseState.ACTIVE,
    # A worker that stops although it is wanted has been lost: the lease is on its way out.
    (Wanted.HELD, Observed.STOPPING): LeaseState.ENDING,
    (Wanted.HELD, Observed.GONE): LeaseState.ENDED,
    (Wanted.RELEASED, Observed.NOTHING): LeaseState.ENDED,
    (Wanted.RELEASED, Observed.GRANTED): LeaseState.ENDING,
    (Wanted.RELEASED, Observed.READY): LeaseState.ENDING,
    (Wanted.RELEASED, Observed.STOPPING): LeaseState.ENDING,
    (Wanted.RELEASED, Observed.GONE): LeaseState.ENDED,
}


def shown_state(wanted: Wanted, observed: Observed) -> LeaseState:
    """Return the state that people see for a stored pair."""
    return _SHOWN[wanted, observed]
