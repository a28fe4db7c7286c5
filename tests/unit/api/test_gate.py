"""The outermost app: alive always, ready and open only while this broker leads."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from gpuhub.api.gate import Gate

PREFIX = "/services/gpu/"
INSIDE = PlainTextResponse("inside")


class Door:
    """A gate, and whether its broker leads."""

    def __init__(self) -> None:
        self.gate = Gate(PREFIX)
        self.leading = True

    def open(self) -> None:
        self.gate.open(INSIDE, lambda: self.leading)

    async def ask(self, path: str, method: str = "GET") -> httpx.Response:
        transport = httpx.ASGITransport(app=self.gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
            return await client.request(method, path)


@pytest.fixture
def door() -> Door:
    return Door()


async def test_before_it_is_opened_it_lives_and_is_not_ready(door: Door) -> None:
    assert (await door.ask(f"{PREFIX}health")).json() == {"status": "ok"}
    for path in (f"{PREFIX}ready", f"{PREFIX}api/v1/me", PREFIX, "/"):
        assert (await door.ask(path)).status_code == 503


async def test_who_is_kept_out_reads_why_and_what_to_do(door: Door) -> None:
    answer = await door.ask(f"{PREFIX}api/v1/leases", "POST")
    said = answer.json()
    assert said["message"] == "This broker does not lead at the moment."
    assert "Try again in some seconds" in said["hint"]


async def test_while_it_leads_everything_but_its_own_two_pages_is_let_through(door: Door) -> None:
    door.open()
    assert (await door.ask(f"{PREFIX}ready")).json() == {"status": "ready"}
    assert (await door.ask(f"{PREFIX}health")).json() == {"status": "ok"}
    for path in (f"{PREFIX}api/v1/me", f"{PREFIX}healthy", "/health"):
        assert (await door.ask(path)).text == "inside", path


async def test_from_the_very_moment_that_it_does_not_lead_nobody_comes_in(door: Door) -> None:
    door.open()
    door.leading = False
    assert (await door.ask(f"{PREFIX}api/v1/me")).status_code == 503
    assert (await door.ask(f"{PREFIX}ready")).status_code == 503
    assert (await door.ask(f"{PREFIX}health")).status_code == 200
    door.leading = True
    assert (await door.ask(f"{PREFIX}api/v1/me")).text == "inside"


async def test_a_closed_gate_stays_closed_though_its_broker_leads(door: Door) -> None:
    door.open()
    door.gate.close()
    assert (await door.ask(f"{PREFIX}ready")).status_code == 503
    assert (await door.ask(f"{PREFIX}api/v1/me")).status_code == 503
