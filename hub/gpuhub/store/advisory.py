"""One broker per PostgreSQL database: an advisory lock, which the server drops when its session ends.

For a database that is a file there is `lock.DatabaseLock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gpuhub.store.database import connect

LOOK_SECONDS = 2.0
ANSWER_SECONDS = 4.0
"""For the server's answer that the session lives; a longer silence counts as its end."""
DOUBT_SECONDS = LOOK_SECONDS + ANSWER_SECONDS
"""How long a holder believes in itself after its last look. Whoever gets the lock waits as long before it
leads: the server drops a lock with its session, and the one before may not have noticed yet."""
KEY = 0x67707568
"""Any number that nobody else takes; locks are told apart by database, too."""

log = logging.getLogger(__name__)


class AdvisoryLock:
    """Held by this process's own session at the server, or by another one's."""

    def __init__(self, url: str) -> None:
        self._engine: AsyncEngine = connect(url)
        self._session: AsyncConnection | None = None
        self._seen = 0.0

    @classmethod
    def of(cls, url: str) -> AdvisoryLock | None:
        """Return the lock of a database behind a server; None for another one."""
        return cls(url) if sa.make_url(url).get_backend_name() == "postgresql" else None

    def leads(self) -> bool:
        return self._session is not None and time.monotonic() - self._seen < DOUBT_SECONDS

    async def acquire(self) -> None:
        """Wait for it, and for the server."""
        told = ""
        while self._session is None:
            why = await self._try()
            if why and why != told:
                told = why
                log.warning("%s", why)
            if why:
                await asyncio.sleep(LOOK_SECONDS)

    async def _try(self) -> str:
        """Return why it is not ours, or nothing."""
        session = None
        try:
            session = await asyncio.wait_for(self._engine.connect(), ANSWER_SECONDS)
            # No transaction stays open for as long as the lock is held.
            session = await session.execution_options(isolation_level="AUTOCOMMIT")
            asked = sa.text("SELECT pg_try_advisory_lock(:key)")
            if (await session.execute(asked, {"key": KEY})).scalar():
                await asyncio.sleep(DOUBT_SECONDS)
                await asyncio.wait_for(session.execute(sa.text("SELECT 1")), ANSWER_SECONDS)
                self._session, self._seen = session, time.monotonic()
                return ""
            await session.close()
            return "another broker uses the database; waiting for it to end"
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            if session is not None:
                await self._drop(session)
            return f"the database does not answer; waiting for it: {str(error).splitlines()[0][:200]}"
        except asyncio.CancelledError:
            if session is not None:
                await self._drop(session)
            raise

    async def hold(self) -> None:
        """Look again and again whether the session lives; return when it does not."""
        while (session := self._session) is not None:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.wait_for(session.execute(sa.text("SELECT 1")), ANSWER_SECONDS)
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("the database does not answer: this broker rests (%s)", type(error).__name__)
                self._session = None
                await self._drop(session)
            else:
                self._seen = time.monotonic()

    async def release(self) -> None:
        """End the session, and with it the lock."""
        session, self._session = self._session, None
        if session is not None:
            await self._drop(session)
        with contextlib.suppress(SQLAlchemyError, OSError):
            await self._engine.dispose()

    async def _drop(self, session: AsyncConnection) -> None:
        """Close the connection itself: one that goes back to its pool would keep the lock."""
        with contextlib.suppress(SQLAlchemyError, OSError):
            await session.invalidate()
        with contextlib.suppress(SQLAlchemyError, OSError):
            await session.close()
