"""Leases in the database: made once, changed by compare-and-swap, never lost.

Each change writes the lease, its next revision and one event in one transaction; a change of a lease
that somebody else has changed meanwhile is `Stale` and does nothing. Writers follow each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gpuhub.core.lease import DeviceInfo, LeaseRecord, Warned
from gpuhub.store import schema
from gpulease.states import EndReason, Observed, Wanted

Render = Callable[[LeaseRecord], dict[str, Any]]
"""Says how a lease looks in its event (JSON)."""


class Stale(Exception):
    """The lease was changed by somebody else since it was read."""


class KeyTaken(Exception):
    """The idempotency key belongs to another request."""


@dataclass(frozen=True)
class StoredEvent:
    """What happened to a lease. Ids grow in the order of commits."""

    id: int
    at: datetime
    user: str
    lease: str
    data: dict[str, Any]


_COLUMNS = frozenset(column.name for column in schema.leases.columns)


class Leases:
    """The table of leases and what is written with it. Made by `gpuhub.store.Store`."""

    def __init__(self, engine: AsyncEngine, writing: asyncio.Lock) -> None:
        self._engine = engine
        self._writing = writing

    async def create(
        self, record: LeaseRecord, render: Render, *, key: str | None, request: str
    ) -> tuple[LeaseRecord, StoredEvent | None]:
        """Store a new lease. No event: an earlier request made it (same key), or its server has one.

        A record that is stored already (it has a ``seq``) is the answer to this request too: only the
        key is remembered. ``request`` is a digest of what was asked. Raises `KeyTaken`.
        """
        async with self._writing, self._engine.connect() as connection:
            try:
                async with connection.begin():
                    number = await _next_event(connection)
                    known = await _by_key(connection, record.user, key)
                    if known is not None and known[1] != request:
                        raise KeyTaken
                    if known is not None:
                        found = await _one(connection, schema.leases.c.id == known[0])
                    elif record.seq:
                        found = record
                    else:
                        found = await _one(
                            connection,
                            (schema.leases.c.user == record.user)
                            & (schema.leases.c.server == record.server)
                            & (schema.leases.c.wanted == Wanted.HELD.value),
                        )
                    if found is not None:
                        raise _Exists(found, remember=known is None)
                    record = replace(record, seq=number, revision=1)
                    await connection.execute(
                        sa.insert(schema.leases).values(**_row(record), busy_seconds=0.0)
                    )
                    await _remember(connection, record, key, request, record.created_at)
                    event = await _write_event(connection, number, record, render, record.created_at)
                    return record, event
            except _Exists as exists:
                if exists.remember and key is not None:
                    async with connection.begin():
                        await _next_event(connection)
                        await _remember(connection, exists.record, key, request, record.created_at)
                return exists.record, None

    async def change(
        self, record: LeaseRecord, render: Render, at: datetime, **changes: Any
    ) -> tuple[LeaseRecord, StoredEvent]:
        """Write ``changes`` if nobody else has changed the lease. Raises `Stale`."""
        new = replace(record, revision=record.revision + 1, **changes)
        async with self._writing, self._engine.begin() as connection:
            number = await _next_event(connection)
            await _swap(connection, record, new)
            if new.gone and not record.gone and new.granted_at is not None:
                await _close_usage(connection, new)
            event = await _write_event(connection, number, new, render, at)
        return new, event

    async def add_busy_seconds(self, busy: Mapping[str, float]) -> None:
        """Add to leases' busy seconds: telemetry, not a change of the lease; no revision, no event."""
        table = schema.leases
        async with self._writing, self._engine.begin() as connection:
            for lease_id, seconds in busy.items():
                await connection.execute(
                    sa.update(table)
                    .where(table.c.id == lease_id)
                    .values(busy_seconds=table.c.busy_seconds + seconds)
                )

    async def note_servers_seen(self, lease_ids: Collection[str]) -> None:
        """Remember that these leases' servers were seen running; no revision, no event."""
        table = schema.leases
        async with self._writing, self._engine.begin() as connection:
            await connection.execute(
                sa.update(table).where(table.c.id.in_(list(lease_ids))).values(server_seen=True)
            )

    async def get(self, lease_id: str) -> LeaseRecord | None:
        async with self._engine.connect() as connection:
            return await _one(connection, schema.leases.c.id == lease_id)

    async def by_key(self, user: str, key: str) -> tuple[LeaseRecord, str] | None:
        """Return the lease that a key's request made, and that request's digest."""
        async with self._engine.connect() as connection:
            known = await _by_key(connection, user, key)
            if known is None:
                return None
            record = await _one(connection, schema.leases.c.id == known[0])
            return None if record is None else (record, known[1])

    async def live(self) -> list[LeaseRecord]:
        """Return every lease that has not ended, in the order of arrival."""
        table = schema.leases
        query = sa.select(table).where(table.c.observed != Observed.GONE.value).order_by(table.c.seq)
        async with self._engine.connect() as connection:
            return [_record(row) for row in (await connection.execute(query)).mappings()]

    async def page(
        self, *, user: str | None, ended: bool, before: str | None, limit: int
    ) -> list[LeaseRecord]:
        """Return leases newest first, those made before lease ``before``; ``user`` None: everybody's."""
        table = schema.leases
        query = sa.select(table).order_by(table.c.seq.desc()).limit(limit)
        if user is not None:
            query = query.where(table.c.user == user)
        if not ended:
            query = query.where(table.c.observed != Observed.GONE.value)
        if before is not None:
            first = sa.select(table.c.seq).where(table.c.id == before)
            if user is not None:
                first = first.where(table.c.user == user)
            query = query.where(table.c.seq < first.scalar_subquery())
        async with self._engine.connect() as connection:
            return [_record(row) for row in (await connection.execute(query)).mappings()]


class _Exists(Exception):
    """Ends the making of a lease that is there already; the event number goes back with it."""

    def __init__(self, record: LeaseRecord, *, remember: bool) -> None:
        super().__init__(record.id)
        self.record = record
        self.remember = remember


async def _next_event(connection: AsyncConnection) -> int:
    """Take the next event id: the first statement of every write, and the lock that orders them."""
    table = schema.counters
    query = (
        sa.update(table)
        .where(table.c.name == "event")
        .values(value=table.c.value + 1)
        .returning(table.c.value)
    )
    return int((await connection.execute(query)).scalar_one())


async def _swap(connection: AsyncConnection, old: LeaseRecord, new: LeaseRecord) -> None:
    table = schema.leases
    before, after = _row(old), _row(new)
    values = {name: value for name, value in after.items() if value != before[name]}
    query = sa.update(table).where(table.c.id == old.id, table.c.revision == old.revision).values(**values)
    if (await connection.execute(query)).rowcount != 1:
        raise Stale(old.id)


async def _write_event(
    connection: AsyncConnection, number: int, record: LeaseRecord, render: Render, at: datetime
) -> StoredEvent:
    event = StoredEvent(number, at, record.user, record.id, render(record))
    await connection.execute(sa.insert(schema.events).values(**asdict(event)))
    return event


async def _close_usage(connection: AsyncConnection, record: LeaseRecord) -> None:
    started, ended = record.granted_at, record.ended_at
    if started is None or ended is None:
        raise ValueError(f"lease {record.id} ends without its times")
    busy = await connection.scalar(
        sa.select(schema.leases.c.busy_seconds).where(schema.leases.c.id == record.id)
    )
    held = max(0.0, (ended - started).total_seconds())
    await connection.execute(
        sa.insert(schema.usage).values(
            lease=record.id,
            user=record.user,
            groups=list(record.groups),
            server=record.server,
            pool=record.pool,
            gpus=record.gpus,
            devices=list(record.device_ids),
            requested_at=record.created_at,
            started_at=started,
            ended_at=ended,
            seconds_held=held,
            seconds_busy=min(held, float(busy or 0.0)),
            reason=(record.reason or EndReason.FAILED).value,
        )
    )


async def _by_key(connection: AsyncConnection, user: str, key: str | None) -> tuple[str, str] | None:
    if key is None:
        return None
    table = schema.idempotency_keys
    query = sa.select(table.c.lease, table.c.request).where(table.c.user == user, table.c.key == key)
    row = (await connection.execute(query)).first()
    return None if row is None else (row[0], row[1])


async def _remember(
    connection: AsyncConnection, record: LeaseRecord, key: str | None, request: str, at: datetime
) -> None:
    if key is None:
        return
    values = {"user": record.user, "key": key, "request": request, "lease": record.id, "created_at": at}
    await connection.execute(sa.insert(schema.idempotency_keys).values(**values))


async def _one(connection: AsyncConnection, where: sa.ColumnElement[bool]) -> LeaseRecord | None:
    row = (await connection.execute(sa.select(schema.leases).where(where))).mappings().first()
    return None if row is None else _record(row)


def _row(record: LeaseRecord) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields(record):
        row[field.name] = getattr(record, field.name)
    row["groups"] = list(record.groups)
    row["wanted"], row["observed"] = record.wanted.value, record.observed.value
    row["reason"] = None if record.reason is None else record.reason.value
    row["devices"] = [asdict(device) for device in record.devices]
    row["warned"] = None if record.warned is None else _warned_row(record.warned)
    del row["busy_seconds"]  # written by add_busy_seconds alone
    return row


def _warned_row(warned: Warned) -> dict[str, Any]:
    return {
        "reason": warned.reason.value,
        "at": warned.at.isoformat(),
        "resident_bytes": warned.resident_bytes,
    }


def _record(row: RowMapping) -> LeaseRecord:
    values = {name: row[name] for name in _COLUMNS}
    warned = values["warned"]
    if warned is not None:
        warned = Warned(
            EndReason(warned["reason"]), datetime.fromisoformat(warned["at"]), warned["resident_bytes"]
        )
    return LeaseRecord(
        **values
        | {
            "groups": tuple(values["groups"]),
            "wanted": Wanted(values["wanted"]),
            "observed": Observed(values["observed"]),
            "reason": None if values["reason"] is None else EndReason(values["reason"]),
            "devices": tuple(DeviceInfo(**device) for device in values["devices"]),
            "warned": warned,
        }
    )
