"""One broker per database: what a file's lock and PostgreSQL's promise alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gpuhub.store import advisory, lock
from gpuhub.store.advisory import AdvisoryLock
from gpuhub.store.lock import DatabaseLock
from tests.postgres import Postgres, running_postgres

SOON_SECONDS = advisory.LOOK_SECONDS + advisory.ANSWER_SECONDS + 10

Lock = DatabaseLock | AdvisoryLock


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres").database())
    return f"sqlite+aiosqlite:///{tmp_path}/broker.sqlite"


@pytest.fixture
async def brokers_lock(url: str) -> AsyncIterator[Callable[[], Lock]]:
    """Each call: the lock as another broker of this database has it."""
    made: list[Lock] = []

    def make() -> Lock:
        found = DatabaseLock.of(url) or AdvisoryLock.of(url)
        assert found is not None
        made.append(found)
        return found

    yield make
    for one in made:
        await one.release()


async def test_the_second_broker_waits_until_the_first_lets_go(brokers_lock: Callable[[], Lock]) -> None:
    one, two = brokers_lock(), brokers_lock()
    await one.acquire()
    await one.acquire()
    assert one.leads()
    waiting = asyncio.ensure_future(two.acquire())
    await asyncio.sleep(max(lock.LOOK_SECONDS, advisory.LOOK_SECONDS) + 0.5)
    assert not waiting.done()
    assert not two.leads()
    await one.release()
    assert not one.leads()
    await asyncio.wait_for(waiting, SOON_SECONDS)
    assert two.leads()


async def test_brokers_of_different_databases_do_not_wait_for_each_other(postgres: Postgres) -> None:
    locks = [AdvisoryLock(postgres.database()) for _ in range(2)]
    await asyncio.wait_for(asyncio.gather(*(one.acquire() for one in locks)), SOON_SECONDS)
    assert all(one.leads() for one in locks)
    for one in locks:
        await one.release()


async def test_a_broker_whose_session_at_the_server_ended_rests_and_can_lead_again(
    postgres: Postgres,
) -> None:
    url = postgres.database()
    one = AdvisoryLock(url)
    await one.acquire()
    holding = asyncio.ensure_future(one.hold())
    address = url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
    await asyncio.wait_for(holding, SOON_SECONDS)
    assert not one.leads()
    await asyncio.wait_for(one.acquire(), SOON_SECONDS)
    assert one.leads()
    await one.release()


async def test_a_server_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    one = AdvisoryLock(f"postgresql+psycopg://gpuhub@/nowhere?host={tmp_path}")
    waiting = asyncio.ensure_future(one.acquire())
    await asyncio.sleep(0.5)
    assert not waiting.done()
    assert not one.leads()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await one.release()
