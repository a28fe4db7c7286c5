"""The agents' door: who may speak for a node, and what of it is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gpuhub.api.agents import CACHE_SECONDS, Agents, TokenReviewGate
from gpuhub.api.app import make_app
from gpuhub.api.hubtokens import HubTokens
from gpuhub.api.parts import Parts
from gpuhub.api.people import People
from gpuhub.api.signin import SignIn
from gpuhub.backends.base import BackendError
from gpuhub.telemetry.pushed import SETTLED_SECONDS, PushedTelemetry
from gpulease.models import MAX_BODY_BYTES
from tests.unit.api.broker import HUB, SERVICE_TOKEN, GivesEverything, KnowsThree

AGENT = "system:serviceaccount:gpuhub:agent"
REPORT = {
    "devices": [{"id": "GPU-0", "index": 0, "name": "NVIDIA H100", "memory_bytes": 80}],
    "looks": [
        {"age_seconds": 0, "samples": [{"device": "GPU-0", "utilisation_percent": 7, "memory_bytes": 1}]}
    ],
    "allocations": [{"namespace": "users", "pod": "gpu-1", "devices": ["GPU-0"]}],
}


@dataclass
class Said:
    username: str
    node: str | None


class ClusterByHand:
    """A cluster's API that knows some tokens; it may be away."""

    def __init__(self) -> None:
        self.known = {
            "one": Said(AGENT, "node-1"),
            "two": Said(AGENT, "node-2"),
            "nowhere": Said(AGENT, None),
            "other": Said("system:serviceaccount:users:default", "node-1"),
        }
        self.asked: list[tuple[str, str]] = []
        self.away = False
        self.now = 0.0

    async def review(self, token: str, audience: str) -> Said | None:
        self.asked.append((token, audience))
        if self.away:
            raise BackendError("no answer")
        return self.known.get(token)


class Door:
    def __init__(self, http: httpx.AsyncClient, cluster: ClusterByHand, telemetry: PushedTelemetry) -> None:
        self.http, self.cluster, self.telemetry = http, cluster, telemetry

    async def push(self, token: str | None, node: str = "node-1", report: Any = REPORT) -> tuple[int, str]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = await self.http.post(
            f"/services/gpu/api/v1/nodes/{node}/samples", json=report, headers=headers
        )
        return answer.status_code, "" if answer.status_code == 204 else answer.json()["code"]


def parts(agents: Agents | None) -> Parts:
    hub = KnowsThree()
    return Parts(
        broker=GivesEverything(),
        tokens=HubTokens(HUB, transport=hub),
        people=People(HUB, SERVICE_TOKEN, transport=hub),
        signin=SignIn(HUB, SERVICE_TOKEN, transport=hub),
        metrics=lambda: b"",
        agents=agents,
    )


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    cluster = ClusterByHand()
    telemetry = PushedTelemetry(stopwatch=lambda: cluster.now)
    gate = TokenReviewGate(cluster.review, service_account=AGENT, clock=lambda: cluster.now)
    app = make_app(parts(Agents(gate, telemetry)))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gpu.example") as http:
        yield Door(http, cluster, telemetry)


async def test_a_nodes_agent_is_heard(door: Door) -> None:
    assert await door.push("one") == (204, "")
    [sample] = await door.telemetry.sample()
    assert (sample.device_id, sample.utilisation_percent) == ("GPU-0", 7)
    assert [one.id for one in door.telemetry.allocations("node-1", "users", "gpu-1") or ()] == ["GPU-0"]
    assert door.cluster.asked == [("one", "gpuhub-broker")]


@pytest.mark.parametrize(
    ("token", "node", "refusal"),
    [
        (None, "node-1", (401, "not-signed-in")),
        ("stolen", "node-1", (401, "not-signed-in")),
        ("x" * 9000, "node-1", (401, "not-signed-in")),
        ("", "node-1", (401, "not-signed-in")),
        ("other", "node-1", (403, "not-allowed")),
        ("two", "node-1", (403, "not-allowed")),
        ("nowhere", "node-1", (403, "not-allowed")),
        ("one", "NODE_1", (400, "invalid-option")),
    ],
)
async def test_nobody_else_is(door: Door, token: str | None, node: str, refusal: tuple[int, str]) -> None:
    assert await door.push(token, node) == refusal
    assert list(await door.telemetry.sample()) == []


async def test_a_token_of_the_hub_opens_nothing_here(door: Door) -> None:
    assert await door.push("operator") == (401, "not-signed-in")
    assert await door.push("ann") == (401, "not-signed-in")


async def test_a_cluster_that_is_away_lets_nobody_new_in(door: Door) -> None:
    assert await door.push("one") == (204, "")
    door.cluster.away = True
    assert await door.push("one") == (204, ""), "asked a moment ago"
    assert await door.push("two", "node-2") == (503, "unavailable")
    door.cluster.now += CACHE_SECONDS
    assert await door.push("one") == (503, "unavailable")


async def test_a_token_that_was_taken_back_counts_for_seconds_only(door: Door) -> None:
    assert CACHE_SECONDS < 60
    assert await door.push("one") == (204, "")
    del door.cluster.known["one"]
    assert await door.push("one") == (204, "")
    door.cluster.now += CACHE_SECONDS
    assert await door.push("one") == (401, "not-signed-in")
    assert len(door.cluster.asked) == 2


async def test_a_node_that_names_another_ones_device_is_told_so(door: Door) -> None:
    assert await door.push("one") == (204, "")
    door.cluster.now += SETTLED_SECONDS
    assert await door.push("one") == (204, "")
    assert await door.push("two", "node-2") == (409, "conflict")


async def test_of_a_device_that_two_nodes_name_at_first_neither_is_believed(door: Door) -> None:
    assert await door.push("two", "node-2") == (204, "")
    assert await door.push("one") == (204, "")
    assert list(await door.telemetry.sample()) == []


@pytest.mark.parametrize(
    ("report", "refusal"),
    [
        ([], (400, "bad-request")),
        ({"looks": 7}, (400, "invalid-option")),
        ({"devices": [{"id": "GPU-0"}]}, (400, "invalid-option")),
        ({"problem": "x" * MAX_BODY_BYTES}, (413, "too-large")),
    ],
)
async def test_bad_input_is_a_clear_refusal(door: Door, report: Any, refusal: tuple[int, str]) -> None:
    assert await door.push("one", report=report) == refusal


async def test_where_nobody_reports_from_outside_there_is_no_such_place() -> None:
    transport = httpx.ASGITransport(app=make_app(parts(None)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gpu.example") as http:
        place = Door(http, ClusterByHand(), PushedTelemetry())
        assert await place.push("one") == (404, "not-found")
        described = (await http.get("/services/gpu/api/v1/openapi.json")).json()
    assert not [path for path in described["paths"] if "nodes" in path]
