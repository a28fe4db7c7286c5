"""The app under real uvicorn on loopback: how it ends, and what never gets as far as the app."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from gpuhub.api.app import make_app
from gpuhub.api.hubtokens import HubTokens
from gpuhub.api.parts import Parts
from gpuhub.api.people import People
from gpuhub.api.serving import serve
from gpuhub.api.signin import SignIn
from gpulease.client import BrokerClient
from gpulease.errors import TooLarge, Unavailable, from_dict
from gpulease.models import MAX_BODY_BYTES
from tests.unit.api.broker import HUB, SERVICE_TOKEN, GivesEverything, KnowsThree, bearer


@dataclass
class Serving:
    url: str
    port: int
    stop: asyncio.Event
    task: asyncio.Task[None]


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    hub = KnowsThree()
    parts = Parts(
        broker=GivesEverything(),
        tokens=HubTokens(HUB, transport=hub),
        people=People(HUB, SERVICE_TOKEN, transport=hub),
        signin=SignIn(HUB, SERVICE_TOKEN, transport=hub),
        metrics=lambda: "",
    )
    port, stop = free_port(), asyncio.Event()
    task = asyncio.create_task(serve(make_app(parts), "127.0.0.1", port, stop=stop, closing=parts.closing))
    running = Serving(f"http://127.0.0.1:{port}/services/gpu", port, stop, task)
    async with httpx.AsyncClient() as http, asyncio.timeout(10):
        while True:
            with contextlib.suppress(httpx.ConnectError):
                assert (await http.get(f"{running.url}/health")).status_code == 200
                break
            await asyncio.sleep(0.02)
    yield running
    stop.set()
    await task


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_end_closes_streams_at_once_and_finishes_answers(serving: Serving) -> None:
    async with BrokerClient(serving.url, "ann") as broker:
        events = broker.events()
        assert (await anext(events)).kind == "reset"
        began = time.monotonic()
        serving.stop.set()
        with pytest.raises(Unavailable):
            await anext(events)
        await serving.task
        assert time.monotonic() - began < 3


async def test_an_address_in_use_is_an_os_error(serving: Serving) -> None:
    with pytest.raises(OSError, match="in use"):
        await serve(
            lambda *_: asyncio.sleep(0),
            "127.0.0.1",
            serving.port,
            stop=asyncio.Event(),
            closing=asyncio.Event(),
        )


async def test_a_large_body_is_refused_with_and_without_its_length(serving: Serving) -> None:
    async def without_end() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b" " * 1024
            await asyncio.sleep(0)

    async with httpx.AsyncClient(headers=bearer("ann")) as http:
        response = await http.post(f"{serving.url}/api/v1/leases", content=b" " * (MAX_BODY_BYTES + 1))
        assert isinstance(from_dict(response.json(), status=response.status_code), TooLarge)
        # The server answers and closes in the middle of it; the client may see either first.
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):
            response = await http.post(f"{serving.url}/api/v1/leases", content=without_end())
            assert response.status_code == 413
        assert (await http.get(f"{serving.url}/api/v1/leases")).json()["leases"] == []


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /services/gpu/api/v1/me\r\n\r\n",
        b"GET /services/gpu/api/v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /services/gpu/api/v1/leases HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /services/gpu/health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /services/gpu/api/v1/me HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ],
)
async def test_broken_http_is_refused_and_the_next_one_is_served(serving: Serving, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    writer.write(raw)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        answer = await asyncio.wait_for(reader.readline(), 5)
    assert not answer or answer.split()[1][:1] == b"4", answer
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{serving.url}/health")).status_code == 200


async def test_a_reader_that_goes_away_is_let_go(serving: Serving) -> None:
    for _ in range(3):
        async with BrokerClient(serving.url, "ann") as broker:
            async for event in broker.events():
                assert event.kind == "reset"
                break
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{serving.url}/health")).status_code == 200
