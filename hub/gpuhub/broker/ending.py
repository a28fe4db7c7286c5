"""How a lease begins to end: the first of the steps of DESIGN §4 "Ending", for every reason alike.

Wanted becomes released, with the reason and a deadline; the rest (acknowledged or due, worker stopped,
history closed) follows from that, also after a crash at any point. A lease that never had a GPU ends
at once: there is nothing to save.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gpuhub.core.lease import LeaseRecord
from gpulease.states import EndReason, Observed, Wanted


def begin(
    record: LeaseRecord, reason: EndReason, now: datetime, *, deadline: datetime, message: str = ""
) -> dict[str, Any]:
    """Return the changes that begin the end. Nothing runs before a lease is active: its deadline is now."""
    if record.observed is Observed.NOTHING:
        return close(reason, now, message=message)
    if record.observed is not Observed.READY:
        deadline = now
    return {
        "wanted": Wanted.RELEASED,
        "reason": reason,
        "message": message,
        "released_at": now,
        "deadline": deadline,
        "warned": None,
    }


def close(reason: EndReason, now: datetime, *, message: str = "") -> dict[str, Any]:
    """Return the changes of a lease that holds nothing any more."""
    return {
        "wanted": Wanted.RELEASED,
        "observed": Observed.GONE,
        "reason": reason,
        "message": message,
        "ended_at": now,
        "warned": None,
        "address": None,
        "host_secret": None,
    }
