"""The tables. Every change of them is a migration beside (``migrations/versions``), from the first on.

* ``leases``: one row a lease, wanted and observed, with a revision.
* ``events``: what happened to leases, with ids that grow in the order of commits.
* ``usage``: closed history, append-only: who held what for how long, and why it ended.
* ``idempotency_keys``: which request made which lease.
* ``counters``: one row, the last event id. Taking the next one locks it until commit, which is what
  makes ids grow in commit order (and writers wait for each other) on SQLite and PostgreSQL alike.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware UTC time, also where the database knows no zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without its zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("user", sa.String(255), nullable=False),
    sa.Column("server", sa.String(255), nullable=False),
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("pool", sa.String(63), nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("wanted", sa.String(16), nullable=False),
    sa.Column("observed", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("granted_at", UtcDateTime),
    sa.Column("key_at", UtcDateTime),
    sa.Column("active_at", UtcDateTime),
    sa.Column("ends_at", UtcDateTime),
    sa.Column("released_at", UtcDateTime),
    sa.Column("deadline", UtcDateTime),
    sa.Column("acknowledged_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("public_key", sa.Text),
    sa.Column("told_key", sa.Text),
    sa.Column("host_key", sa.Text),
    sa.Column("host_secret", sa.Text),
    sa.Column("address", sa.Text),
    sa.Column("keeps_used", sa.Integer, nullable=False),
    sa.Column("kept_until", UtcDateTime),
    sa.Column("warned", sa.JSON(none_as_null=True)),
    sa.Column("server_seen", sa.Boolean, nullable=False),
    sa.Column("busy_seconds", sa.Float, nullable=False),
    sa.Index(
        "uq_leases_one_live_per_server",
        "user",
        "server",
        unique=True,
        sqlite_where=sa.text("wanted = 'held'"),
        postgresql_where=sa.text("wanted = 'held'"),
    ),
    sa.Index("ix_leases_observed", "observed"),
    sa.Index("ix_leases_user_seq", "user", "seq"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("user", sa.String(255), nullable=False),
    sa.Column("lease", sa.String(32), sa.ForeignKey("leases.id", ondelete="CASCADE"), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index("ix_events_user_id", "user", "id"),
    sa.Index("ix_events_lease", "lease"),
)

usage = sa.Table(
    "usage",
    metadata,
    # SQLite numbers rows by itself only in a column of its own INTEGER kind.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("lease", sa.String(32), nullable=False, unique=True),
    sa.Column("user", sa.String(255), nullable=False),
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("server", sa.String(255), nullable=False),
    sa.Column("pool", sa.String(63), nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=False),
    sa.Column("seconds_held", sa.Float, nullable=False),
    sa.Column("seconds_busy", sa.Float, nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Index("ix_usage_user_ended_at", "user", "ended_at"),
    sa.Index("ix_usage_ended_at", "ended_at"),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("user", sa.String(255), primary_key=True),
    sa.Column("key", sa.String(128), primary_key=True),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("lease", sa.String(32), sa.ForeignKey("leases.id", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index("ix_idempotency_keys_created_at", "created_at"),
    sa.Index("ix_idempotency_keys_lease", "lease"),
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
