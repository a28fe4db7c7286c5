"""Which servers nobody uses. An open tab alone is not activity; work is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gpuhub.culling import Activity, ask, cull_arbiter_hook, is_idle

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LIMIT = timedelta(hours=1)
LONG_AGO = NOW - timedelta(hours=5)
JUST_NOW = timedelta(seconds=3)


def idle(
    activity: Activity | None, inactive: timedelta | None = JUST_NOW, started: datetime = LONG_AGO
) -> bool:
    return is_idle(activity, inactive, LIMIT, started, NOW)


def test_an_open_tab_alone_is_not_activity() -> None:
    assert idle(Activity(last_activity=NOW - timedelta(hours=2)), inactive=JUST_NOW)


def test_a_server_in_use_stays() -> None:
    assert not idle(Activity(last_activity=NOW - timedelta(minutes=59)))


@pytest.mark.parametrize(
    "work", [{"busy_kernels": 1}, {"busy_terminals": 2}, {"commands": 1}, {"lease": True}]
)
def test_a_server_at_work_stays_however_long_nobody_looks(work: dict[str, Any]) -> None:
    assert not idle(Activity(last_activity=LONG_AGO, **work), inactive=timedelta(days=3))


def test_a_fresh_server_is_given_its_time() -> None:
    assert not idle(Activity(last_activity=LONG_AGO), started=NOW - timedelta(minutes=5))


def test_a_server_that_cannot_be_asked_is_judged_by_the_hub() -> None:
    assert idle(None, inactive=timedelta(hours=2))
    assert not idle(None, inactive=timedelta(minutes=2))
    assert not idle(None, inactive=None)


def server(answer: httpx.Response | None) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/user/ann/gpuhub/api/v1/activity"
        assert request.url.query == b"no_track_activity=1"
        assert request.headers["Authorization"] == "token t"
        if answer is None:
            raise httpx.ConnectError("gone")
        return answer

    return httpx.MockTransport(handle)


async def test_the_hook_asks_the_server_itself() -> None:
    busy = {
        "busy_kernels": 1,
        "busy_terminals": 0,
        "commands": 0,
        "lease": None,
        "last_activity": LONG_AGO.isoformat(),
    }
    quiet = {**busy, "busy_kernels": 0}
    model = {"url": "/user/ann/", "started": LONG_AGO.isoformat().replace("+00:00", "Z")}
    for body, expected in ((busy, False), (quiet, True)):
        hook = cull_arbiter_hook(
            "http://hub/", token="t", transport=server(httpx.Response(200, json=body)), now=lambda: NOW
        )
        assert await hook(inactive=JUST_NOW, inactive_limit=3600, server=model) is expected


@pytest.mark.parametrize(
    "answer",
    [
        None,
        httpx.Response(404),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"busy_kernels": "many"}),
        httpx.Response(200, json={"last_activity": "yesterday"}),
    ],
)
async def test_an_answer_that_makes_no_sense_is_no_answer(answer: httpx.Response | None) -> None:
    assert await ask("http://hub/", "/user/ann/", "t", server(answer)) is None
