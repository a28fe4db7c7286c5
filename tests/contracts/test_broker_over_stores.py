"""The whole broker over each database: a lease's life, a crash in the middle, a reader that resumes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gpulease.models import Acknowledge
from gpulease.states import LeaseState
from tests.fakes import START, WorkersThatStart
from tests.postgres import Postgres, running_postgres
from tests.unit.broker.conftest import ANN, BOB, Place


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path, WorkersThatStart())
    if request.param == "postgresql":
        place.url = request.getfixturevalue("postgres").database()
    await place.open()
    yield place
    await place.kill()


async def test_a_lease_lives_and_ends_and_the_next_one_gets_its_gpu(place: Place) -> None:
    lease = await place.active(ANN, key="k")
    waiting = await place.ask(BOB)
    assert (await place.ask(ANN, key="k")).id == lease.id
    place.gpus.utilisation["SIMULATED-0"] = 50
    await place.later(60)
    await place.service.release(ANN, lease.id)
    await place.service.acknowledge(ANN, lease.id, Acknowledge())
    await place.turn()
    assert (await place.see(lease)).state is LeaseState.ENDED
    assert (await place.see(waiting)).state is LeaseState.ACTIVE
    [used] = await place.store.history.records(START)
    assert (used.seconds_held, used.reason) == (60, "released")


async def test_a_killed_broker_is_followed_by_one_that_knows_everything(place: Place) -> None:
    lease, waiting = await place.active(ANN), await place.ask(BOB)
    await place.service.release(ANN, lease.id)
    await place.restart()
    assert (await place.see(lease)).state is LeaseState.ENDING
    assert (await place.see(waiting)).position.place == 1
    stream = place.service.events(ANN, 1)
    resumed = [await anext(stream) for _ in range(2)]
    assert [event.id for event in resumed] == [2, 3]
    await stream.aclose()
    await place.later(130)
    assert (await place.see(waiting)).state is LeaseState.ACTIVE
