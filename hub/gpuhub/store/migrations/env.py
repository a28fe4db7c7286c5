"""Alembic's entry: over the connection that the broker hands in, or a developer's ``-x url=…``."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

from gpuhub.store.schema import UtcDateTime, metadata


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # SQLite cannot change a table in place: alembic copies it.
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=_render,
    )
    with context.begin_transaction():
        context.run_migrations()


def _render(kind: str, item: Any, _autogen: object) -> str | Literal[False]:
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


async def _by_url(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


handed = context.config.attributes.get("connection")
if handed is not None:
    _run(handed)
else:
    asyncio.run(_by_url(context.get_x_argument(as_dictionary=True)["url"]))
