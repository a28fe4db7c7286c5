"""What every claim to lead must promise: of two brokers one leads, and whoever is not sure does nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gpuhub.backends.kubernetes.leader import LeaseLeader
from gpuhub.broker.leadership import Leadership
from gpuhub.store.advisory import AdvisoryLock
from gpuhub.store.lock import DatabaseLock
from tests.launching import until
from tests.postgres import Postgres, running_postgres
from tests.unit.backends.memorycluster import ClusterInMemory

SECONDS = 60.0
Make = Callable[[], Leadership]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["lease", "file", "postgresql"])
async def claim(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes brokers' claims to one and the same thing."""
    made: list[Leadership] = []
    names = itertools.count(1)
    cluster = ClusterInMemory()
    url = f"sqlite+aiosqlite:///{tmp_path}/x.sqlite"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").database()

    def make() -> Leadership:
        if request.param == "lease":
            one: Leadership = LeaseLeader(
                cluster, namespace="gpuhub", name="broker", identity=f"broker-{next(names)}"
            )
        else:
            lock = DatabaseLock.of(url) or AdvisoryLock.of(url)
            assert lock is not None
            one = lock
        made.append(one)
        return one

    yield make
    for one in made:
        await one.release()


async def leading(one: Leadership) -> asyncio.Task[None]:
    """Let it lead, and keep it."""
    await asyncio.wait_for(one.acquire(), SECONDS)
    assert one.leads()
    return asyncio.ensure_future(one.hold())


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_nobody_leads_before_asking(claim: Make) -> None:
    assert not claim().leads()


async def test_of_two_one_leads_and_the_other_follows_when_it_lets_go(claim: Make) -> None:
    one, two = claim(), claim()
    holding = await leading(one)
    waiting = asyncio.ensure_future(two.acquire())
    await asyncio.sleep(3)
    assert (one.leads(), two.leads(), waiting.done()) == (True, False, False)
    await end(holding)
    await one.release()
    assert not one.leads()
    await asyncio.wait_for(waiting, SECONDS)
    assert (one.leads(), two.leads()) == (False, True)


async def test_what_was_lost_can_be_had_again(claim: Make) -> None:
    one = claim()
    await end(await leading(one))
    await one.release()
    again = claim()
    await end(await leading(again))
    assert again.leads()


async def test_letting_go_twice_or_of_nothing_is_no_error(claim: Make) -> None:
    one = claim()
    await one.release()
    await one.release()
    two = claim()
    await end(await leading(two))


# --- PostgreSQL alone


@pytest.fixture
async def pair(postgres: Postgres) -> AsyncIterator[tuple[str, AdvisoryLock, AdvisoryLock]]:
    url = postgres.database()
    one, two = AdvisoryLock(url), AdvisoryLock(url)
    yield url, one, two
    for lock in (one, two):
        await lock.release()


def cut_connections(url: str) -> None:
    """What a restart of the server does to everybody's connections."""
    address = url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_a_broker_whose_connection_was_cut_stops_to_lead_before_the_next_one_does(
    pair: tuple[str, AdvisoryLock, AdvisoryLock],
) -> None:
    """Also where it does not look just then: it believes in itself for some seconds more."""
    url, one, two = pair
    await asyncio.wait_for(one.acquire(), SECONDS)
    waiting = asyncio.ensure_future(two.acquire())
    led = []

    async def watched() -> bool:
        led.append((one.leads(), two.leads()))
        return two.leads()

    await asyncio.to_thread(cut_connections, url)
    await until(watched, "the other one leads", SECONDS)
    assert (True, True) not in led
    await asyncio.wait_for(asyncio.gather(one.hold(), waiting), SECONDS)
    assert not one.leads()
