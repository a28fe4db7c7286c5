"""What must survive: leases, their events, closed usage. The only part that knows SQLAlchemy.

::

    store = await Store.open("sqlite+aiosqlite:////data/gpuhub.sqlite")
    record, event = await store.leases.create(record, render, key="k", request="digest")
"""

from __future__ import annotations

import asyncio

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine

from gpuhub.store.database import connect, migrate
from gpuhub.store.events import Events
from gpuhub.store.history import History, UsageRecord
from gpuhub.store.leases import KeyTaken, Leases, Stale, StoredEvent

__all__ = ["DATABASE_AWAY", "KeyTaken", "Stale", "Store", "StoredEvent", "UsageRecord"]

DATABASE_AWAY = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)
"""What any method raises while the database cannot be reached, is locked, or has no room left."""


LOOKS_LIKE = "sqlite+aiosqlite:////path/file or postgresql+psycopg://user:password@host/name"


class Store:
    """The database of one broker. Writes follow each other; reads see what was committed."""

    def __init__(self, engine: AsyncEngine) -> None:
        writing = asyncio.Lock()
        self._engine = engine
        self.leases = Leases(engine, writing)
        self.events = Events(engine, writing)
        self.history = History(engine)

    @classmethod
    async def open(cls, url: str) -> Store:
        """Connect and bring the schema to the newest revision.

        Raises `OSError` for an address that cannot be used and for a database that does not answer; what it
        says never holds the address, which has a password in it.
        """
        try:
            engine = connect(url)
        except (exc.ArgumentError, ImportError, ValueError):
            raise OSError(f"the database's address cannot be used; it looks like {LOOKS_LIKE}") from None
        try:
            await migrate(engine)
        except BaseException as error:
            await engine.dispose()
            if isinstance(error, DATABASE_AWAY):
                why = " ".join(str(getattr(error, "orig", None) or error).split())
                raise OSError(f"the database does not answer: {why}") from None
            raise
        return cls(engine)

    async def close(self) -> None:
        await self._engine.dispose()
