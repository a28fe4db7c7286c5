"""What the store promises, on SQLite and on a real PostgreSQL: the same suite for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from gpuhub.core.lease import LeaseRecord, Warned
from gpuhub.core.quota import Span
from gpuhub.store import KeyTaken, Stale, Store
from gpuhub.store.database import connect
from gpuhub.store.schema import metadata
from gpulease.states import EndReason, Observed, Wanted
from tests import builders
from tests.builders import KEY, NOW, devices
from tests.postgres import Postgres, running_postgres


def render(record: LeaseRecord) -> dict[str, Any]:
    return {"id": record.id, "revision": record.revision, "wanted": record.wanted.value}


def new(user: str = "ann", **fields: Any) -> LeaseRecord:
    return replace(builders.record(user, **fields), seq=0)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/gpuhub.sqlite"
    return request.getfixturevalue("postgres").database()


OpenStore = Callable[[], Any]


@pytest.fixture
async def open_store(url: str) -> AsyncIterator[OpenStore]:
    """Opens the database again and again, as several brokers, or one after a restart."""
    stores: list[Store] = []

    async def open_one() -> Store:
        store = await Store.open(url)
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


async def made(store: Store, user: str = "ann", key: str | None = None, **fields: Any) -> LeaseRecord:
    record, event = await store.leases.create(new(user, **fields), render, key=key, request="digest")
    assert event is not None
    return record


async def held(store: Store, user: str = "ann", **fields: Any) -> LeaseRecord:
    record = await made(store, user)
    granted = {"observed": Observed.GRANTED, "granted_at": NOW, "devices": devices(1), **fields}
    record, _ = await store.leases.change(record, render, NOW, **granted)
    return record


async def ended(store: Store, record: LeaseRecord, **times: float) -> LeaseRecord:
    at = NOW + timedelta(**(times or {"hours": 1}))
    changes = {"wanted": Wanted.RELEASED, "observed": Observed.GONE, "reason": EndReason.IDLE, "ended_at": at}
    record, _ = await store.leases.change(record, render, at, **changes)
    return record


# --- the schema


async def test_the_migrations_lead_to_the_schema_that_the_code_knows(store: Store, url: str) -> None:
    engine = connect(url)

    def differences(connection: Any) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_opening_again_keeps_everything(open_store: OpenStore) -> None:
    record = await made(await open_store())
    assert await (await open_store()).leases.live() == [record]


async def test_a_database_without_a_folder_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder of the database"):
        await Store.open(f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/x.sqlite")


# --- leases


async def test_a_lease_comes_back_as_it_was_written(store: Store) -> None:
    record = await made(store, groups=("lab", "class"), server="ünï", server_seen=True)
    changed, _ = await store.leases.change(
        record,
        render,
        NOW,
        observed=Observed.READY,
        granted_at=NOW,
        active_at=NOW,
        ends_at=NOW + timedelta(hours=12),
        key_at=NOW,
        devices=devices(2),
        host_key="public",
        host_secret="private",
        told_key=KEY,
        address="unix:/run/x",
        keeps_used=1,
        kept_until=NOW + timedelta(minutes=30, microseconds=7),
        warned=Warned(EndReason.IDLE, NOW + timedelta(minutes=5), 12),
    )
    assert changed.revision == 2
    assert await store.leases.get(record.id) == changed
    cleared, _ = await store.leases.change(changed, render, NOW, warned=None)
    assert await store.leases.get(record.id) == cleared


async def test_times_keep_their_instant_whatever_their_zone(store: Store) -> None:
    seoul = datetime(2026, 3, 2, 18, 0, tzinfo=timezone(timedelta(hours=9)))
    record = await made(store, created_at=seoul)
    found = await store.leases.get(record.id)
    assert (found.created_at, found.created_at.tzinfo) == (seoul, UTC)


async def test_leases_are_numbered_in_the_order_of_arrival(store: Store) -> None:
    found = [await made(store, f"u{number}") for number in range(5)]
    assert [record.seq for record in found] == sorted({record.seq for record in found})
    assert await store.leases.live() == found


async def test_a_change_of_an_older_revision_is_refused_and_does_nothing(store: Store) -> None:
    record = await made(store)
    changed, _ = await store.leases.change(record, render, NOW, message="first")
    before = await store.events.bounds()
    with pytest.raises(Stale):
        await store.leases.change(record, render, NOW, message="second")
    assert await store.leases.get(record.id) == changed
    assert await store.events.bounds() == before


async def test_of_many_at_once_exactly_one_changes_a_lease(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    record = await made(one)
    attempts = [
        (one if number % 2 else two).leases.change(record, render, NOW, message=str(number))
        for number in range(10)
    ]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert {type(result) for result in results if isinstance(result, Exception)} == {Stale}


async def test_a_server_has_one_live_lease(open_store: OpenStore) -> None:
    one, two = await open_store(), await open_store()
    results = await asyncio.gather(
        *((one if n % 2 else two).leases.create(new(), render, key=f"k{n}", request="r") for n in range(10))
    )
    assert len({record.id for record, _ in results}) == 1
    assert sum(event is not None for _, event in results) == 1


async def test_a_lease_that_is_ending_makes_room_for_the_servers_next(store: Store) -> None:
    record = await held(store)
    await store.leases.change(record, render, NOW, wanted=Wanted.RELEASED)
    assert (await made(store)).id != record.id


async def test_the_database_itself_forbids_a_second_live_lease(store: Store) -> None:
    record = await held(store)
    ending, _ = await store.leases.change(record, render, NOW, wanted=Wanted.RELEASED)
    await made(store)
    with pytest.raises(IntegrityError):
        await store.leases.change(ending, render, NOW, wanted=Wanted.HELD)


async def test_the_same_key_is_answered_with_the_same_lease(store: Store) -> None:
    record = await made(store, key="k")
    again, event = await store.leases.create(new(server="other"), render, key="k", request="digest")
    assert (again, event) == (record, None)
    assert await store.leases.by_key("ann", "k") == (record, "digest")
    assert await store.leases.by_key("bob", "k") is None


async def test_the_same_key_with_another_request_is_refused(store: Store) -> None:
    await made(store, key="k")
    with pytest.raises(KeyTaken):
        await store.leases.create(new(server="other"), render, key="k", request="another")
    assert len(await store.leases.live()) == 1


async def test_a_key_whose_server_had_a_lease_is_remembered_with_it(store: Store) -> None:
    record = await made(store, key="k1")
    await store.leases.create(new(), render, key="k2", request="digest")
    assert await store.leases.by_key("ann", "k2") == (record, "digest")
    await store.leases.create(record, render, key="k3", request="digest")
    assert await store.leases.by_key("ann", "k3") == (record, "digest")


async def test_pages_are_newest_first_and_only_ones_own(store: Store) -> None:
    first = await ended(store, await held(store))
    second = await made(store)
    theirs = await made(store, "bob")
    leases = store.leases
    assert await leases.page(user="ann", ended=True, before=None, limit=9) == [second, first]
    assert await leases.page(user="ann", ended=False, before=None, limit=9) == [second]
    assert await leases.page(user="ann", ended=True, before=second.id, limit=9) == [first]
    assert await leases.page(user="ann", ended=True, before=theirs.id, limit=9) == []
    assert await leases.page(user=None, ended=True, before=None, limit=2) == [theirs, second]


async def test_notes_about_a_lease_are_no_change_of_it(store: Store) -> None:
    record = await held(store)
    before = await store.events.bounds()
    await store.leases.add_busy_seconds({record.id: 2.5})
    await store.leases.add_busy_seconds({record.id: 1.5})
    await store.leases.note_servers_seen([record.id])
    found = await store.leases.get(record.id)
    assert (found.busy_seconds, found.server_seen, found.revision) == (4.0, True, record.revision)
    assert await store.events.bounds() == before
    await store.leases.change(record, render, NOW, message="from an older look")
    assert (await store.leases.get(record.id)).busy_seconds == 4.0


# --- events


async def test_each_change_is_one_event_in_order(store: Store) -> None:
    record = await made(store)
    record, _ = await store.leases.change(record, render, NOW, message="x")
    events = await store.events.after(0, user="ann", limit=9)
    assert [(event.data["revision"], event.lease) for event in events] == [(1, record.id), (2, record.id)]
    assert [event.id for event in events] == [1, 2]
    assert await store.events.after(0, user="bob", limit=9) == []
    assert await store.events.after(1, user=None, limit=9) == events[1:]
    assert await store.events.after(0, user=None, limit=1) == events[:1]


async def test_an_event_is_never_seen_before_one_with_a_lower_id(open_store: OpenStore) -> None:
    """Ids grow in the order of commits, with several writers too: a reader can go by the last id."""
    writers = [await open_store() for _ in range(3)]
    reader = await open_store()
    seen: list[int] = []

    async def write(writer: Store, name: str) -> None:
        record = await made(writer, name)
        for number in range(15):
            record, _ = await writer.leases.change(record, render, NOW, message=str(number))

    async def follow() -> None:
        while len(seen) < 48:
            last = seen[-1] if seen else 0
            seen.extend(event.id for event in await reader.events.after(last, user=None, limit=100))
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(follow(), *(write(writer, f"u{n}") for n, writer in enumerate(writers)))
    assert seen == list(range(1, 49))


async def test_old_events_and_keys_are_forgotten_and_that_is_known(store: Store) -> None:
    record = await made(store, key="old")
    record, _ = await store.leases.change(record, render, NOW + timedelta(hours=2), message="x")
    await store.events.forget(NOW + timedelta(hours=1), keys_before=NOW - timedelta(days=1))
    assert [event.id for event in await store.events.after(0, user=None, limit=9)] == [2]
    assert await store.events.bounds() == (1, 2)
    assert await store.leases.by_key("ann", "old") is not None
    await store.events.forget(NOW + timedelta(days=9), keys_before=NOW + timedelta(days=9))
    assert await store.events.bounds() == (2, 2)
    assert await store.leases.by_key("ann", "old") is None
    assert await store.leases.get(record.id) == record


# --- history


async def test_an_end_closes_the_history_once(store: Store) -> None:
    record = await held(store, groups=("lab",))
    await store.leases.add_busy_seconds({record.id: 1200.0})
    record = await ended(store, record)
    await store.leases.change(record, render, NOW, message="afterwards")
    [used] = await store.history.records(NOW)
    assert (used.lease, used.user, used.groups, used.gpus) == (record.id, "ann", ("lab",), 1)
    assert (used.seconds_held, used.seconds_busy, used.reason) == (3600, 1200, "idle")
    assert used.devices == ("SIMULATED-0",)


async def test_what_never_had_a_gpu_is_no_usage(store: Store) -> None:
    await ended(store, await made(store))
    assert await store.history.records(NOW - timedelta(days=1)) == []


async def test_an_end_without_its_time_is_refused_whole(store: Store) -> None:
    record = await held(store)
    with pytest.raises(ValueError, match="without its times"):
        await store.leases.change(record, render, NOW, observed=Observed.GONE)
    assert await store.leases.get(record.id) == record


async def test_spans_are_those_that_ended_since(store: Store) -> None:
    await ended(store, await held(store), hours=1)
    await ended(store, await held(store), hours=3)
    await ended(store, await held(store, "bob"), hours=3)
    found = await store.history.spans(NOW + timedelta(hours=2))
    assert found == {
        "ann": [Span(NOW, NOW + timedelta(hours=3), 1)],
        "bob": [Span(NOW, NOW + timedelta(hours=3), 1)],
    }
    assert set(await store.history.spans(NOW, ["bob"])) == {"bob"}


async def test_what_is_typical_is_said_once_enough_have_ended(store: Store) -> None:
    for hours in (1, 2, 3, 40):
        await ended(store, await held(store), hours=hours)
    assert await store.history.typical_seconds("simulated") is None
    await ended(store, await held(store), hours=5)
    assert await store.history.typical_seconds("simulated") == 3 * 3600
    assert await store.history.typical_seconds("other") is None
