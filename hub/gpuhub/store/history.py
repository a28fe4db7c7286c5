"""Closed usage: who held what for how long. Append-only; written when a lease ends (`leases`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from gpuhub.core.quota import Span
from gpuhub.store import schema

LATELY = 50
"""Leases of a pool that tell what is typical."""
FEWEST = 5
"""With fewer, nothing is said about it."""


@dataclass(frozen=True)
class UsageRecord:
    """One closed lease."""

    lease: str
    user: str
    groups: tuple[str, ...]
    server: str
    pool: str
    gpus: int
    devices: tuple[str, ...]
    requested_at: datetime
    started_at: datetime
    ended_at: datetime
    seconds_held: float
    seconds_busy: float
    reason: str


class History:
    """The table of closed usage."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def spans(self, since: datetime, users: Collection[str] | None = None) -> dict[str, list[Span]]:
        """Return what was held and ended after ``since``, by person; ``users`` None: everybody."""
        table = schema.usage
        query = sa.select(table.c.user, table.c.started_at, table.c.ended_at, table.c.gpus).where(
            table.c.ended_at > since
        )
        if users is not None:
            query = query.where(table.c.user.in_(list(users)))
        found: dict[str, list[Span]] = defaultdict(list)
        async with self._engine.connect() as connection:
            for user, started, ended, gpus in await connection.execute(query):
                found[user].append(Span(started, ended, gpus))
        return found

    async def typical_seconds(self, pool: str) -> float | None:
        """Return the median time that the pool's last leases were held; None: too few have ended."""
        table = schema.usage
        query = (
            sa.select(table.c.seconds_held)
            .where(table.c.pool == pool, table.c.reason != "failed")
            .order_by(table.c.ended_at.desc())
            .limit(LATELY)
        )
        async with self._engine.connect() as connection:
            held = [float(row[0]) for row in await connection.execute(query)]
        return median(held) if len(held) >= FEWEST else None

    async def records(self, since: datetime, *, limit: int = 1000) -> list[UsageRecord]:
        """Return what ended after ``since``, newest first."""
        table = schema.usage
        query = sa.select(table).where(table.c.ended_at > since).order_by(table.c.id.desc()).limit(limit)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [
            UsageRecord(
                **{name: row[name] for name in UsageRecord.__dataclass_fields__}
                | {"groups": tuple(row["groups"]), "devices": tuple(row["devices"])}
            )
            for row in rows
        ]
