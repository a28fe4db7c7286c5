"""What should happen next, as a pure function of a snapshot: `decide(snapshot, now)`.

Each decision carries its reason as data. At most one decision is made per lease and call; the caller
applies them, looks again and asks again, so that every decision is made on facts (level-triggered).
Which limits, who is next and what idle means stand in `quota`, `ordering` and `idleness`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpuhub.core.lease import Warned
from gpuhub.core.ordering import held_by_person, in_order
from gpuhub.core.quota import may_start, week_ends_in_seconds
from gpuhub.core.snapshot import Held, PoolNow, Snapshot
from gpulease.states import EndReason, Observed, Wanted

MISSING_SECONDS = 5.0
"""A worker that was not seen for so long is gone: two looks at least, so that one odd answer ends nothing."""
STOP_AGAIN_SECONDS = 10.0
"""How long after its grace a worker that was told to stop is told again."""
SAVE_BYTES_PER_SECOND = 1e9
"""Disk speed that deadlines count with (DESIGN §4)."""


@dataclass(frozen=True)
class Grant:
    """Give these GPUs to the queued lease."""

    lease_id: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True)
class StartWorker:
    """Start the worker, or tell the one that runs its server's new key."""

    lease_id: str


@dataclass(frozen=True)
class Activate:
    """The worker answers."""

    lease_id: str
    address: str


@dataclass(frozen=True)
class Warn:
    """Tell the owner what will be taken, and when."""

    lease_id: str
    warned: Warned


@dataclass(frozen=True)
class Unwarn:
    """What the warning spoke of does not happen: the GPU is used, or nobody knows that it is not."""

    lease_id: str


@dataclass(frozen=True)
class End:
    """Begin the end: the owner's server has until the deadline to save and move back."""

    lease_id: str
    reason: EndReason
    deadline: datetime
    message: str = ""


@dataclass(frozen=True)
class StopWorker:
    """Nothing worth saving is left on the worker, or its time is over."""

    lease_id: str
    grace_seconds: int


@dataclass(frozen=True)
class Close:
    """Nothing is held any more: close the lease and its history."""

    lease_id: str
    reason: EndReason
    message: str = ""


Decision = Grant | StartWorker | Activate | Warn | Unwarn | End | StopWorker | Close


def decide(snapshot: Snapshot, now: datetime) -> list[Decision]:
    """Return what should happen now."""
    holding = held_by_person(snapshot.held)
    waited_for = frozenset(queued.record.pool for queued in snapshot.queued if not queued.server_gone)
    decisions: list[Decision] = []
    for held in snapshot.held:
        if held.record.wanted is Wanted.RELEASED:
            decision = _leaving(held)
        else:
            decision = _lives(held, now) or _should_end(held, snapshot, holding, waited_for, now)
        if decision is not None:
            decisions.append(decision)
    for queued in snapshot.queued:
        if queued.server_gone:
            decisions.append(Close(queued.record.id, EndReason.SERVER_STOPPED))
    decisions.extend(_grants(snapshot, holding, now))
    return decisions


def _grants(snapshot: Snapshot, holding: dict[str, int], now: datetime) -> Iterator[Grant]:
    waiting = [queued for queued in snapshot.queued if not queued.server_gone]
    if not any(pool.free_count > 0 and pool.works for pool in snapshot.pools.values()):
        return
    for name, queue in in_order(waiting).items():
        pool = snapshot.pools.get(name)
        if pool is None or not pool.works:
            continue
        free, count = list(pool.free), pool.free_count
        for queued in queue:
            if count <= 0:
                break
            record = queued.record
            week = snapshot.week.get(record.user)
            if record.gpus > pool.total or may_start(
                record.gpus, queued.rules, holding[record.user], week, now
            ):
                continue
            if record.gpus > count:
                break  # nobody overtakes
            yield Grant(record.id, _choose(pool, free, record.gpus))
            free = free[record.gpus :]
            count -= record.gpus
            holding[record.user] += record.gpus


def _choose(pool: PoolNow, free: list[str], gpus: int) -> tuple[str, ...]:
    return tuple(free[:gpus]) if pool.devices else ()


def _leaving(held: Held) -> Decision | None:
    """A lease on its way out: acknowledged or due, stopped, gone."""
    record, worker = held.record, held.worker
    reason = record.reason or EndReason.RELEASED
    if worker is None:
        never_started = record.observed is Observed.GRANTED
        if not held.order_pending and (never_started or held.missing_seconds >= MISSING_SECONDS):
            return Close(record.id, reason, record.message)
        return None
    if worker.phase == "exited":
        return Close(record.id, reason, record.message)
    due = held.deadline_in_seconds is None or held.deadline_in_seconds <= 0
    if record.acknowledged_at is None and not due:
        return None
    grace = held.rules.worker_grace_seconds
    if held.since_stop_seconds is None or held.since_stop_seconds > grace + STOP_AGAIN_SECONDS:
        return StopWorker(record.id, grace)
    return None


def _lives(held: Held, now: datetime) -> Decision | None:
    """A lease that is wanted: its worker is started, found ready, or found lost."""
    record, worker, rules = held.record, held.worker, held.rules
    if worker is not None and worker.phase == "exited":
        text = worker.message or "The worker has ended."
        started = record.observed is Observed.READY
        return Close(record.id, EndReason.FAILED, text if started else f"The GPU could not be used. {text}")
    if held.server_gone:
        return End(record.id, EndReason.SERVER_STOPPED, now)
    if record.observed is Observed.GRANTED:
        if record.public_key is None:
            if held.since_grant_seconds > rules.key_wait_seconds:
                text = f"Your server did not come for the GPU within {rules.key_wait_seconds} seconds."
                return End(record.id, EndReason.FAILED, now, text)
            return None
        if worker is not None and worker.phase == "ready" and worker.address:
            if record.told_key != record.public_key:
                return StartWorker(record.id)
            return Activate(record.id, worker.address)
        waits = worker is not None and worker.waiting
        if held.since_key_seconds > rules.worker_start_seconds and not waits:
            text = f"The GPU's worker did not start within {rules.worker_start_seconds} seconds."
            why = worker.message if worker is not None else held.refusal
            text = f"{text} {why}".rstrip()
            return End(record.id, EndReason.FAILED, now, text)
        if worker is None or record.told_key != record.public_key:
            return StartWorker(record.id)
        return None
    if worker is None:
        if held.missing_seconds >= MISSING_SECONDS and not held.order_pending:
            return Close(record.id, EndReason.FAILED, "The worker with the GPU is gone.")
        return None
    if record.told_key != record.public_key:
        return StartWorker(record.id)
    return None


@dataclass(frozen=True)
class _Candidate:
    reason: EndReason
    in_seconds: float


def _should_end(
    held: Held, snapshot: Snapshot, holding: dict[str, int], waited_for: frozenset[str], now: datetime
) -> Decision | None:
    """An active lease: its longest time, its owner's hours, its silence. The earliest end counts.

    Nothing ends without a warning before it, also after the broker was away for hours.
    """
    record, rules = held.record, held.rules
    if record.observed is not Observed.READY:
        return None
    found: list[_Candidate] = []
    if held.ends_in_seconds is not None:
        found.append(_Candidate(EndReason.EXPIRED, held.ends_in_seconds))
    hours_left = week_ends_in_seconds(rules, snapshot.week.get(record.user), holding[record.user], now)
    if hours_left is not None:
        found.append(_Candidate(EndReason.QUOTA, hours_left))
    idle_in = _idle_in_seconds(held, record.pool in waited_for)
    if idle_in is not None:
        found.append(_Candidate(EndReason.IDLE, idle_in))
    near = [one for one in found if one.in_seconds <= rules.warn_seconds]
    warned = record.warned
    if not near:
        return Unwarn(record.id) if warned is not None else None
    first = min(near, key=lambda one: one.in_seconds)
    if warned is None or warned.reason not in {one.reason for one in near}:
        return Warn(record.id, _warned(first, held, now))
    if first.reason is not warned.reason and first.in_seconds < (held.warned_in_seconds or 0.0) - 1.0:
        return Warn(record.id, _warned(first, held, now))
    if held.warned_in_seconds is not None and held.warned_in_seconds <= 0:
        if warned.reason is EndReason.IDLE and idle_in is not None and idle_in > 0:
            return None  # the samples do not reach to the end of the warning yet: it may just be used again
        return End(record.id, warned.reason, now + timedelta(seconds=ending_seconds(held)))
    return None


def _idle_in_seconds(held: Held, somebody_waits: bool) -> float | None:
    """Return when it ends for its silence, if it stays silent; None: it does not.

    A running cell is not interrupted for idleness, except when somebody waits for such a GPU and the
    cell has used none for `busy_cell_grace_minutes`.
    """
    if held.silent_seconds is None:
        return None
    rules = held.rules
    after = float(rules.idle_after_seconds)
    if held.cell_running:
        if not somebody_waits:
            return None
        after = max(after, rules.busy_cell_grace_minutes * 60.0)
    return max(after + rules.warn_seconds - held.silent_seconds, held.kept_for_seconds)


def _warned(one: _Candidate, held: Held, now: datetime) -> Warned:
    """The announced end is a full warning away, unless the lease itself is shorter."""
    seconds = one.in_seconds if one.in_seconds > 0 else float(held.rules.warn_seconds)
    resident = held.resident_bytes if one.reason is EndReason.IDLE else None
    return Warned(one.reason, now + timedelta(seconds=seconds), resident)


def ending_seconds(held: Held) -> float:
    """Return how long the owner's server has: the policy's deadline, more where much must be saved."""
    needed = 1.2 * (held.resident_bytes or 0) / SAVE_BYTES_PER_SECOND
    return max(float(held.rules.ending_deadline_seconds), needed)
