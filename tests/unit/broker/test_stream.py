"""The stream of events: in order, once, resumed; places, pools and usage as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from gpulease import errors
from gpulease.events import Event
from gpulease.models import Acknowledge
from tests.fakes import WorkersThatStart, gpus
from tests.unit.broker.conftest import ANN, BOB, CYD, OPERATOR, MakePlace, Place


class Reader:
    """Reads a stream in the background."""

    def __init__(self, stream: AsyncIterator[Event]) -> None:
        self.events: list[Event] = []
        self._task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: AsyncIterator[Event]) -> None:
        async for event in stream:
            self.events.append(event)

    async def until(self, condition) -> Event:
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if condition(event):
                        return event
                await asyncio.sleep(0.005)

    async def state(self, state: str) -> Event:
        return await self.until(lambda event: event.kind == "lease" and event.data["state"] == state)

    def stored(self) -> list[Event]:
        return [event for event in self.events if event.id is not None]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def read():
    readers: list[Reader] = []

    def start(place: Place, actor=ANN, last: int | None = None, **options) -> Reader:
        reader = Reader(place.service.events(actor, last, **options))
        readers.append(reader)
        return reader

    yield start
    for reader in readers:
        await reader.close()


async def test_a_reader_follows_a_lease_through_its_life(place: Place, read) -> None:
    reader = read(place)
    await reader.until(lambda event: event.kind == "pools")
    lease = await place.active()
    await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="released"))
    await place.turn()
    await reader.state("ended")
    ids = [event.id for event in reader.stored()]
    assert ids == sorted(set(ids))
    states = list(dict.fromkeys(event.data["state"] for event in reader.stored()))
    assert states == ["queued", "starting", "active", "ending", "ended"]
    revisions = [event.data["revision"] for event in reader.stored()]
    assert revisions == sorted(set(revisions))


async def test_a_reader_that_comes_back_gets_what_it_missed(place: Place, read) -> None:
    first = read(place)
    await first.until(lambda event: event.kind == "pools")
    lease = await place.active()
    seen = await first.state("queued")
    await first.close()
    await place.service.release(ANN, lease.id)
    again = read(place, last=seen.id)
    await again.state("ending")
    assert again.stored()[0].id == seen.id + 1
    assert [event.data["state"] for event in again.stored()][-2:] == ["active", "ending"]


async def test_it_is_resumed_across_a_restart_of_the_broker(place: Place, read) -> None:
    first = read(place)
    await first.until(lambda event: event.kind == "pools")
    lease = await place.ask()
    seen = await first.state("queued")
    await first.close()
    await place.turn()
    await place.restart()
    again = read(place, last=seen.id)
    assert (await again.state("active")).data["id"] == lease.id


@pytest.mark.parametrize("last", [10**9, -1])
async def test_an_id_that_nobody_gave_is_answered_with_reset(place: Place, read, last: int) -> None:
    await place.active()
    reader = read(place, last=last)
    reset = await reader.until(lambda event: event.kind == "reset")
    assert reset.id == (await place.store.events.bounds())[1]


async def test_a_reader_away_for_too_long_is_told_to_read_afresh(place: Place, read) -> None:
    lease = await place.active()
    await place.store.events.forget(place.clock.now() + timedelta(seconds=1), keys_before=place.clock.now())
    reader = read(place, last=1)
    reset = await reader.until(lambda event: event.kind == "reset")
    await place.service.release(ANN, lease.id)
    assert (await reader.state("ending")).id > reset.id


async def test_nobody_hears_of_somebody_elses_leases(place: Place, read) -> None:
    reader = read(place, BOB)
    await reader.until(lambda event: event.kind == "pools")
    await place.active(ANN)
    await place.later(10)
    mine = await place.ask(BOB)
    await reader.until(lambda event: event.kind == "lease" and event.data["id"] == mine.id)
    assert {event.data["user"] for event in reader.events if event.kind == "lease"} == {"bob"}
    assert not [event for event in reader.events if event.kind == "usage"]


async def test_an_operator_may_follow_everybody_without_the_way_to_workers(place: Place, read) -> None:
    with pytest.raises(errors.NotAllowed):
        read(place, ANN, everyone=True)
    reader = read(place, OPERATOR, everyone=True)
    await reader.until(lambda event: event.kind == "pools")
    await place.active(ANN)
    assert (await reader.state("active")).data["link"] is None


async def test_only_the_owners_server_gets_the_link(place: Place, read) -> None:
    server, browser = read(place, ANN), read(place, replace(ANN, server=None))
    for reader in (server, browser):
        await reader.until(lambda event: event.kind == "pools")
    await place.active(ANN)
    assert (await server.state("active")).data["link"]["address"] == "unix:/run/lease1"
    assert (await browser.state("active")).data["link"] is None


async def test_a_position_counts_down_without_being_stored(place: Place, read) -> None:
    await place.active(ANN)
    second = await place.ask(BOB)
    third = await place.ask(CYD)
    await place.turn()
    reader = read(place, CYD)
    await reader.until(
        lambda event: event.kind == "lease" and (event.data["position"] or {}).get("place") == 2
    )
    await place.service.release(BOB, second.id)
    await place.turn()
    one = await reader.until(
        lambda event: event.kind == "lease" and (event.data["position"] or {}).get("place") == 1
    )
    assert (one.id, one.data["id"], one.data["revision"]) == (None, third.id, third.revision)


async def test_pools_are_told_when_they_change(make_place: MakePlace, read) -> None:
    place = await make_place(WorkersThatStart(gpus(2)))
    reader = read(place, BOB)
    first = await reader.until(lambda event: event.kind == "pools")
    assert first.data["pools"][0]["free"] == 2
    await place.active(ANN)
    await reader.until(lambda event: event.kind == "pools" and event.data["pools"][0]["free"] == 1)


async def test_usage_comes_with_every_look_at_the_gpus(place: Place, read) -> None:
    lease = await place.active()
    reader = read(place)
    await reader.until(lambda event: event.kind == "pools")
    place.gpus.utilisation["SIMULATED-0"] = 42
    await place.later(5)
    usage = await reader.until(lambda event: event.kind == "usage")
    assert (usage.id, usage.data["lease"]) == (None, lease.id)
    assert usage.data["usage"]["utilisation_percent"] == 42
    assert usage.data["idle_seconds"] == 0


async def test_a_reader_far_behind_is_served_from_the_store_in_batches(place: Place, read) -> None:
    await place.kill()
    await place.open()
    for _ in range(600):
        lease = await place.ask()
        await place.service.release(ANN, lease.id)
    await place.restart()
    reader = read(place, last=0)
    head = (await place.store.events.bounds())[1]
    await reader.until(lambda event: event.id == head)
    assert [event.id for event in reader.stored()] == list(range(1, head + 1))
