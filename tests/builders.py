"""Short ways to build what decisions are made on; every argument that a test does not name is ordinary."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from gpuhub.core.lease import DeviceInfo, LeaseRecord, Warned
from gpuhub.core.quota import Span, WeekUse
from gpuhub.core.rules import Rules
from gpuhub.core.snapshot import Held, PoolNow, Queued, Snapshot, WorkerNow
from gpulease.states import EndReason, Observed, Wanted
from tests.fakes import GB, START

NOW = START
KEY = "ssh-ed25519 " + "A" * 68

_numbers = itertools.count(1)


def ago(**by: float) -> datetime:
    return NOW - timedelta(**by)


def ahead(**by: float) -> datetime:
    return NOW + timedelta(**by)


def record(user: str = "ann", **fields: Any) -> LeaseRecord:
    """A lease that has just been asked for."""
    seq = next(_numbers)
    content: dict[str, Any] = {
        "id": f"lease{seq}",
        "seq": seq,
        "user": user,
        "server": "",
        "pool": "simulated",
        "gpus": 1,
        "created_at": NOW,
        "public_key": KEY,
        **fields,
    }
    return LeaseRecord(**content)


def queued(user: str = "ann", rules: Rules | None = None, **fields: Any) -> Queued:
    """A lease that waits."""
    gone = fields.pop("server_gone", False)
    return Queued(record(user, **fields), rules or Rules(), gone)


def devices(count: int, pool: str = "simulated") -> tuple[DeviceInfo, ...]:
    return tuple(
        DeviceInfo(f"{pool.upper()}-{n}", n, f"simulated GPU {n}", 16 * GB, simulated=True)
        for n in range(count)
    )


def active(user: str = "ann", rules: Rules | None = None, **fields: Any) -> Held:
    """An active lease whose GPU is in use. Names of `Held` go there, all others to the record."""
    measured = {
        "worker": WorkerNow("ready", "unix:/run/w"),
        "silent_seconds": 0.0,
        "since_grant_seconds": 100.0,
        **{name: fields.pop(name) for name in list(fields) if name in Held.__dataclass_fields__},
    }
    content = {
        "observed": Observed.READY,
        "granted_at": NOW,
        "active_at": NOW,
        "told_key": KEY,
        "address": "unix:/run/w",
        "devices": devices(1),
        **fields,
    }
    return Held(record=record(user, **content), rules=rules or Rules(), **measured)


def starting(user: str = "ann", rules: Rules | None = None, **fields: Any) -> Held:
    """A granted lease whose worker is not there yet."""
    content = {"worker": None, "observed": Observed.GRANTED, "told_key": None, "address": None, **fields}
    return active(user, rules, **content)


def ending(user: str = "ann", rules: Rules | None = None, **fields: Any) -> Held:
    """A released lease whose worker still runs; its deadline is a minute away."""
    content = {
        "wanted": Wanted.RELEASED,
        "reason": EndReason.RELEASED,
        "deadline_in_seconds": 60.0,
        **fields,
    }
    return active(user, rules, **content)


def warned(held: Held, reason: EndReason, in_seconds: float) -> Held:
    """The same lease after a warning."""
    told = replace(held.record, warned=Warned(reason, NOW + timedelta(seconds=in_seconds)))
    return replace(held, record=told, warned_in_seconds=in_seconds)


def pool(total: int = 1, free: int = 0, name: str = "simulated", **fields: Any) -> PoolNow:
    """A pool; the last ``free`` of its GPUs are free."""
    known = devices(total, name)
    content: dict[str, Any] = {
        "name": name,
        "title": f"{name} GPU",
        "memory_bytes": 16 * GB,
        "total": total,
        "simulated": True,
        "devices": known,
        "free": tuple(device.id for device in known[total - free :]),
        "free_count": free,
        **fields,
    }
    return PoolNow(**content)


def snapshot(*leases: Queued | Held, pools: tuple[PoolNow, ...] = (), **fields: Any) -> Snapshot:
    """The world: one pool with no free GPU, unless said otherwise."""
    return Snapshot(
        pools={one.name: one for one in pools or (pool(),)},
        queued=tuple(one for one in leases if isinstance(one, Queued)),
        held=tuple(one for one in leases if isinstance(one, Held)),
        **fields,
    )


def week(*spans: tuple[datetime, datetime | None, int]) -> WeekUse:
    return WeekUse(tuple(Span(*span) for span in spans))
