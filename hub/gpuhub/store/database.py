"""The connection to SQLite or PostgreSQL, and the migration to the newest schema.

Promises the same behaviour on both: foreign keys hold, a write waits for another one instead of
failing, and what was committed survives a crash of the process (and on SQLite of the machine).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_SECONDS = 30
"""How long a write waits for another process's on SQLite."""


def connect(url: str) -> AsyncEngine:
    """Return an engine for ``url``: sqlite+aiosqlite:///FILE or postgresql+psycopg://…

    Raises `OSError` where SQLite's file can have no place.
    """
    parsed = sa.make_url(url)
    if parsed.drivername in ("sqlite", "postgresql"):
        driver = {"sqlite": "aiosqlite", "postgresql": "psycopg"}[parsed.drivername]
        parsed = parsed.set(drivername=f"{parsed.drivername}+{driver}")
    if parsed.get_backend_name() == "postgresql":
        return create_async_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=10)
    if parsed.database and not Path(parsed.database).absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of the database does not exist: {parsed.database}")
    engine = create_async_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    finally:
        cursor.close()


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema to the newest revision; a fresh database gets every step from the first on."""
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)


def _upgrade(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
