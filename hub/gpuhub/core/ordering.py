"""The queue: who is next, and what each one waits for, in words without names.

First come, first served within a priority; a higher priority is served first. Each pool has its own
queue. Nobody overtakes: a request for several GPUs at the head waits until they are free, and those
behind it wait too. Only who is held back by his own limit, or asks for more than the pool now has,
is passed by. Near-linear in the number of those who wait.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Literal

from gpuhub.core.quota import may_start
from gpuhub.core.snapshot import Held, PoolNow, Queued, Snapshot

WaitsFor = Literal["gpu", "quota", "pool"]


@dataclass(frozen=True)
class Place:
    """Where a queued lease stands."""

    place: int
    ahead: int
    waiting_for: WaitsFor
    message: str
    estimated_start: datetime | None = None


def in_order(queued: Iterable[Queued]) -> dict[str, list[Queued]]:
    """Return each pool's queue, next one first."""
    queues: dict[str, list[Queued]] = defaultdict(list)
    for one in sorted(queued, key=lambda one: (-one.rules.rank, one.record.seq)):
        queues[one.record.pool].append(one)
    return queues


def held_by_person(held: Iterable[Held]) -> dict[str, int]:
    """Return the GPUs that each person holds now, those of ending leases included."""
    gpus: dict[str, int] = defaultdict(int)
    for one in held:
        gpus[one.record.user] += one.record.gpus
    return gpus


def places(snapshot: Snapshot, now: datetime) -> dict[str, Place]:
    """Return the place of every queued lease, by id.

    An estimated start plays the queue forward: GPUs come free when their leases are known to end or
    have been held as long as is typical for the pool, and are then held for that long again.
    """
    found: dict[str, Place] = {}
    holding = held_by_person(snapshot.held)
    ends: dict[str, list[datetime]] = defaultdict(list)
    for one in snapshot.held:
        of = snapshot.pools.get(one.record.pool)
        end = _end_of(one, of.typical_seconds if of else None, now)
        if end is not None:
            ends[one.record.pool] += [end] * one.record.gpus
    for name, queue in in_order(snapshot.queued).items():
        pool = snapshot.pools.get(name)
        frees = ends[name] + [now] * (pool.free_count if pool else 0)
        heapify(frees)
        for ahead, waiting in enumerate(queue):
            record = waiting.record
            limit = may_start(
                record.gpus, waiting.rules, holding[record.user], snapshot.week.get(record.user), now
            )
            waits: WaitsFor = "gpu"
            start = None
            if pool is None or not pool.works or record.gpus > pool.total:
                waits = "pool"
            elif limit is not None:
                waits = "quota"
            elif len(frees) >= record.gpus:
                start = max(heappop(frees) for _ in range(record.gpus))
                if pool.typical_seconds is not None:
                    for _ in range(record.gpus):
                        heappush(frees, start + timedelta(seconds=pool.typical_seconds))
            text = _message(ahead, waits, limit, pool, record.gpus)
            found[record.id] = Place(ahead + 1, ahead, waits, text, start)
    return found


def _end_of(one: Held, typical_seconds: float | None, now: datetime) -> datetime | None:
    """Return when a held lease's GPUs will be free, as far as it can be told.

    The latest end that a lease may have says nothing by itself: hardly anybody stays so long, and "about
    12 h" would send people away from a GPU that is free in minutes. It only cuts the other answers short.
    """
    left = [one.deadline_in_seconds, one.warned_in_seconds]
    if typical_seconds is not None:
        left.append(max(60.0, typical_seconds - one.since_grant_seconds))
    known = [seconds for seconds in left if seconds is not None]
    if not known:
        return None
    if one.ends_in_seconds is not None:
        known.append(one.ends_in_seconds)
    return now + timedelta(seconds=max(0.0, min(known)))


def _message(ahead: int, waits: WaitsFor, limit: str | None, pool: PoolNow | None, gpus: int) -> str:
    place = {0: "You are next", 1: "1 request is ahead of yours"}.get(
        ahead, f"{ahead} requests are ahead of yours"
    )
    if waits == "quota":
        if limit == "gpu_hours_per_week":
            return "Your GPU-hours of the last seven days are used up; it starts when some come back."
        return "It starts when another GPU of yours is released: you may not use more at once."
    if pool is None or not pool.works or pool.total == 0:
        return "No GPU of this kind can be used at the moment. Your place is kept."
    kind = "simulated GPU" if pool.simulated else "GPU"
    if waits == "pool":
        now = f"only {pool.total} work" if pool.total > 1 else "only 1 works"
        return f"You asked for {gpus} {kind}s, and {now} at the moment. Your place is kept."
    if pool.free_count >= gpus and ahead == 0:
        return f"{place}; a {kind} is being prepared."
    if pool.free_count > 0:
        return f"{place}; {pool.free_count} of {pool.total} {kind}s are free, which is not enough yet."
    if pool.total == 1:
        return f"{place}; the only {kind} is in use."
    return f"{place}; all {pool.total} {kind}s are in use."
