"""What happened to leases, kept for a while so that a reader who was away misses nothing."""

from __future__ import annotations

import asyncio
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from gpuhub.store import schema
from gpuhub.store.leases import StoredEvent


class Events:
    """The table of events. `gpuhub.store.leases` writes it, together with what the events tell."""

    def __init__(self, engine: AsyncEngine, writing: asyncio.Lock) -> None:
        self._engine = engine
        self._writing = writing

    async def after(self, event_id: int, *, user: str | None, limit: int) -> list[StoredEvent]:
        """Return the events after ``event_id``, oldest first; ``user`` None: everybody's."""
        table = schema.events
        query = sa.select(table).where(table.c.id > event_id).order_by(table.c.id).limit(limit)
        if user is not None:
            query = query.where(table.c.user == user)
        async with self._engine.connect() as connection:
            return [StoredEvent(**row) for row in (await connection.execute(query)).mappings()]

    async def bounds(self) -> tuple[int, int]:
        """Return (forgotten, last): ids up to the first are not kept any more, the second is the newest."""
        async with self._engine.connect() as connection:
            last = await connection.scalar(
                sa.select(schema.counters.c.value).where(schema.counters.c.name == "event")
            )
            forgotten = await connection.scalar(
                sa.select(schema.counters.c.value).where(schema.counters.c.name == "event-forgotten")
            )
        return int(forgotten or 0), int(last or 0)

    async def forget(self, before: datetime, *, keys_before: datetime) -> None:
        """Drop events, and idempotency keys, that are older than anybody's way back."""
        table, keys, counters = schema.events, schema.idempotency_keys, schema.counters
        async with self._writing, self._engine.begin() as connection:
            last = await connection.scalar(sa.select(sa.func.max(table.c.id)).where(table.c.at < before))
            if last is not None:
                await connection.execute(
                    sa.update(counters).where(counters.c.name == "event-forgotten").values(value=last)
                )
                await connection.execute(sa.delete(table).where(table.c.id <= last))
            await connection.execute(sa.delete(keys).where(keys.c.created_at < keys_before))
