"""Events over HTTP: nothing is missed over a restart, nothing is seen that is somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gpulease.client import BrokerClient
from gpulease.errors import GpuhubError, NotSignedIn, Unavailable
from gpulease.events import Event
from gpulease.models import Lease, LeaseRequest
from tests.person import Person, eventually
from tests.running import RunningHub
from tests.service.broker.conftest import Enrol, broker_address
from tests.service.broker.tokens import new_token


class Reader:
    """Follows events in the background and remembers the stored ones."""

    def __init__(self, broker: BrokerClient, last: int | None = None) -> None:
        self.events: list[Event] = []
        self.error: GpuhubError | None = None
        self._task = asyncio.create_task(self._read(broker, last))

    async def _read(self, broker: BrokerClient, last: int | None) -> None:
        try:
            async for event in broker.events(last):
                self.events.append(event)
        except GpuhubError as error:
            self.error = error

    @property
    def leases(self) -> list[Lease]:
        return [Lease.model_validate(event.data) for event in self.events if event.kind == "lease"]

    @property
    def last(self) -> int:
        return max(event.id for event in self.events if event.id is not None)

    async def until(self, state: str, lease_id: str) -> None:
        async def seen() -> bool:
            assert self.error is None, self.error
            return any(lease.state == state and lease.id == lease_id for lease in self.leases)

        await eventually(seen, f"an event that says {state}", 30)

    async def ended(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._task)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@contextlib.asynccontextmanager
async def following(
    person: Person, last: int | None = None, token: str | None = None, url: str | None = None
) -> AsyncIterator[Reader]:
    async with BrokerClient(url or f"{person.url}services/gpu", token or person.token) as broker:
        reader = Reader(broker, last)
        try:
            yield reader
        finally:
            await reader.close()


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub whose broker may be killed."""
    with RunningHub(tmp_path / "hub", gpus="sim:1") as running:
        yield running


async def test_one_sees_ones_own_leases_and_nobody_elses(enrol: Enrol) -> None:
    ann, ben = await enrol(), await enrol()
    async with following(ann) as hers, following(ben) as his:
        await asyncio.sleep(0.5)
        lease = await ann.broker("POST", "leases", json={})
        await hers.until("starting", lease["id"])
        await ann.broker("DELETE", f"leases/{lease['id']}")
        await hers.until("ended", lease["id"])
        assert his.leases == []
        ids = [event.id for event in hers.events if event.id is not None]
        assert ids == sorted(set(ids))


async def test_a_reader_that_comes_back_has_missed_nothing(enrol: Enrol) -> None:
    ann = await enrol()
    async with following(ann) as first:
        await asyncio.sleep(0.5)
        lease = await ann.broker("POST", "leases", json={})
        await first.until("starting", lease["id"])
    await ann.broker("DELETE", f"leases/{lease['id']}")
    async with following(ann, first.last) as second:
        await second.until("ended", lease["id"])
        assert min(event.id for event in second.events if event.id is not None) > first.last
        revisions = [one.revision for one in [*first.leases, *second.leases] if one.id == lease["id"]]
        assert revisions == sorted(set(revisions))


async def test_events_are_resumed_over_a_kill_of_the_broker(own_hub: RunningHub) -> None:
    # As a server follows it, past the proxy (which holds on to a stream whose other end was killed).
    host, port = broker_address(own_hub)
    direct = f"http://{host}:{port}/services/gpu"
    async with await Person.enrol(own_hub.url, own_hub.admin_token, "ann") as ann:
        async with following(ann, url=direct) as first:
            await asyncio.sleep(0.5)
            lease = await ann.broker("POST", "leases", json={})
            await first.until("starting", lease["id"])
            before = own_hub.kill_child("broker")
            await first.ended(10)
            assert isinstance(first.error, Unavailable)

        async def again() -> bool:
            with contextlib.suppress(AssertionError):
                if own_hub.child("broker").pid != before:
                    return bool(await ann.broker("GET", "me"))
            return False

        await eventually(again, "the broker to come again", 30)
        assert (await ann.broker("GET", f"leases/{lease['id']}"))["state"] == "starting"
        await ann.broker("DELETE", f"leases/{lease['id']}")
        async with following(ann, first.last, url=direct) as second:
            await second.until("ended", lease["id"])
            assert all(event.kind != "reset" for event in second.events)


async def test_the_end_of_the_broker_ends_streams_and_answers_cleanly(own_hub: RunningHub) -> None:
    async with await Person.enrol(own_hub.url, own_hub.admin_token, "ann") as ann:
        async with following(ann) as reader:
            await asyncio.sleep(1)
            process = own_hub.child("broker")
            began = time.monotonic()
            process.terminate()
            await reader.ended(10)
            process.wait(10)
            assert time.monotonic() - began < 8
            assert isinstance(reader.error, Unavailable)
        said = (own_hub.data / "logs" / "gpuhub.log").read_text()
        assert "Traceback" not in said, said[-3000:]


async def test_a_revoked_token_ends_its_stream_within_a_minute(enrol: Enrol) -> None:
    ann = await enrol()
    token = await new_token(ann)
    async with following(ann, token=token["token"]) as reader:
        await asyncio.sleep(1)
        await ann.hub_api("DELETE", f"users/{ann.name}/tokens/{token['id']}")
        await reader.ended(60)
    async with following(ann, token=token["token"]) as reader:
        await reader.ended(10)
        assert isinstance(reader.error, NotSignedIn)


async def test_signs_of_life_come_through_the_proxy(enrol: Enrol) -> None:
    ann = await enrol()
    url = f"{ann.url}services/gpu/api/v1/events"
    async with ann.http.get(url, headers=ann.headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert (await asyncio.wait_for(answer.content.readline(), 5)).startswith(b"retry:")
        async with asyncio.timeout(16):
            while not (await answer.content.readline()).startswith((b": alive", b"event:")):
                pass


async def test_the_queue_is_told_when_it_moves(own_hub: RunningHub) -> None:
    async with (
        await Person.enrol(own_hub.url, own_hub.admin_token, "ann") as ann,
        await Person.enrol(own_hub.url, own_hub.admin_token, "ben") as ben,
    ):
        held = await ann.broker("POST", "leases", json={})
        async with following(ben) as his:
            await asyncio.sleep(0.5)
            async with BrokerClient(f"{ben.url}services/gpu", ben.token) as broker:
                waiting = await broker.request(LeaseRequest(), "k")
            assert (waiting.state, waiting.position.place if waiting.position else None) == ("queued", 1)
            await ann.broker("DELETE", f"leases/{held['id']}")
            await his.until("starting", waiting.id)
