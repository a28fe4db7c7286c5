"""Tokens are asked about once in a while, and believed no longer than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gpuhub.api import hubtokens
from gpuhub.api.hubtokens import HubTokens
from gpulease.errors import NotSignedIn, Unavailable


class Hub(httpx.AsyncBaseTransport):
    """A hub at httpx's port: knows tokens, counts questions, can be away."""

    def __init__(self) -> None:
        self.people = {"good": "ann"}
        self.asked = 0
        self.status = 200
        self.away = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        name = self.people.get(request.headers["authorization"].removeprefix("token "))
        if self.status != 200 or name is None:
            return httpx.Response(403 if name is None else self.status, json={})
        return httpx.Response(200, json={"kind": "user", "name": name, "groups": [], "scopes": []})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def tokens(hub: Hub, clock: Clock) -> AsyncIterator[HubTokens]:
    found = HubTokens("http://hub/hub/api", clock=clock, transport=hub)
    yield found
    await found.close()


async def test_many_requests_with_one_token_ask_once(tokens: HubTokens, hub: Hub) -> None:
    people = await asyncio.gather(*(tokens.identify("good") for _ in range(50)))
    assert {who.user for who in people} == {"ann"}
    assert hub.asked == 1


async def test_a_revoked_token_is_refused_after_ten_seconds_at_the_latest(
    tokens: HubTokens, hub: Hub, clock: Clock
) -> None:
    await tokens.identify("good")
    hub.people.clear()
    clock.now = hubtokens.CACHE_SECONDS
    with pytest.raises(NotSignedIn):
        await tokens.identify("good")


async def test_a_revoked_token_is_refused_at_once_when_asked_afresh(tokens: HubTokens, hub: Hub) -> None:
    await tokens.identify("good")
    hub.people.clear()
    with pytest.raises(NotSignedIn):
        await tokens.identify("good", afresh=True)
    with pytest.raises(NotSignedIn):
        await tokens.identify("good")


@pytest.mark.parametrize("token", ["", "forged", "x" * 10_000, "line\nbreak", "zero\0", "ünknown"])
async def test_a_forged_token_is_refused(tokens: HubTokens, token: str) -> None:
    with pytest.raises(NotSignedIn):
        await tokens.identify(token)


async def test_a_hub_that_is_away_is_unavailable_and_known_tokens_go_on_for_a_while(
    tokens: HubTokens, hub: Hub, clock: Clock
) -> None:
    await tokens.identify("good")
    hub.away = True
    assert (await tokens.identify("good")).user == "ann"
    clock.now = hubtokens.CACHE_SECONDS
    with pytest.raises(Unavailable):
        await tokens.identify("good")
    hub.away = False
    assert (await tokens.identify("good")).user == "ann"


@pytest.mark.parametrize("status", [404, 500, 502, 503])
async def test_a_hub_that_answers_nonsense_is_unavailable(tokens: HubTokens, hub: Hub, status: int) -> None:
    hub.status = status
    with pytest.raises(Unavailable):
        await tokens.identify("good")


async def test_what_is_remembered_is_bounded(tokens: HubTokens, hub: Hub) -> None:
    names = [f"t{number}" for number in range(hubtokens.CACHE_SIZE + 10)]
    hub.people = dict.fromkeys(names, "ann")
    for name in names:
        await tokens.identify(name)
    await tokens.identify(names[-1])
    assert hub.asked == len(names)
    await tokens.identify(names[0])
    assert hub.asked == len(names) + 1


async def test_one_who_goes_away_does_not_take_the_answer_from_others(tokens: HubTokens) -> None:
    first = asyncio.create_task(tokens.identify("good"))
    second = asyncio.create_task(tokens.identify("good"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).user == "ann"
    with pytest.raises(asyncio.CancelledError):
        await first
