"""Asking for GPUs over HTTP: once is once, however often and however parallel it is sent."""

from __future__ import annotations

import asyncio

import pytest

from gpulease.client import BrokerClient
from gpulease.errors import KeyReused, UnknownPool
from gpulease.models import Acknowledge, Lease, LeaseRequest
from tests.person import Person, eventually
from tests.service.broker.conftest import Enrol
from tests.service.broker.tokens import PUBLIC_KEY, server_token


async def is_over(person: Person, lease_id: str) -> bool:
    return bool((await person.broker("GET", f"leases/{lease_id}"))["state"] == "ended")


def client(person: Person, token: str | None = None) -> BrokerClient:
    return BrokerClient(f"{person.url}services/gpu", token or person.token)


async def test_a_request_sent_again_with_its_key_is_the_same_lease(enrol: Enrol) -> None:
    ann = await enrol()
    body = {"gpus": 1, "server": "one"}
    url = f"{ann.url}services/gpu/api/v1/leases"
    async with ann.http.post(url, json=body, headers={**ann.headers, "Idempotency-Key": "k1"}) as answer:
        assert answer.status == 201
        first = await answer.json()
        assert answer.headers["Location"].endswith(f"/services/gpu/api/v1/leases/{first['id']}")
    async with ann.http.post(url, json={**body, "idempotency_key": "k1"}, headers=ann.headers) as answer:
        assert answer.status == 200
        assert (await answer.json())["id"] == first["id"]
    async with client(ann) as broker:
        with pytest.raises(KeyReused):
            await broker.request(LeaseRequest(gpus=2, server="two"), "k1")
        with pytest.raises(UnknownPool):
            await broker.request(LeaseRequest(pool="quantum"), "k2")


async def test_parallel_requests_with_one_key_make_one_lease(enrol: Enrol) -> None:
    ann = await enrol()
    async with client(ann) as broker:
        leases: list[Lease] = await asyncio.gather(
            *(broker.request(LeaseRequest(gpus=1, server="one"), "same") for _ in range(12))
        )
        assert len({lease.id for lease in leases}) == 1
        assert [lease.id for lease in (await broker.leases(ended=True)).leases] == [leases[0].id]


async def test_two_keys_for_one_server_still_make_one_lease(enrol: Enrol) -> None:
    ann = await enrol()
    async with client(ann) as broker:
        leases = await asyncio.gather(
            *(broker.request(LeaseRequest(gpus=1, server="one"), f"key-{number}") for number in range(6))
        )
        assert len({lease.id for lease in leases}) == 1


async def test_keys_of_two_people_do_not_meet(enrol: Enrol) -> None:
    ann, ben = await enrol(), await enrol()
    async with client(ann) as one, client(ben) as two:
        first = await one.request(LeaseRequest(), "same")
        second = await two.request(LeaseRequest(), "same")
    assert (first.user, second.user) == (ann.name, ben.name)
    assert first.id != second.id


async def test_the_past_comes_in_pages_newest_first(enrol: Enrol) -> None:
    ann = await enrol()
    made = []
    for _ in range(5):
        lease = await ann.broker("POST", "leases", json={"server": "one"})
        await ann.broker("DELETE", f"leases/{lease['id']}")
        made.append(lease["id"])
        await eventually(lambda: is_over(ann, made[-1]), "the lease to end")
    seen, before = [], ""
    for _ in range(10):
        page = await ann.broker("GET", f"leases?ended=true&limit=2{before}")
        assert len(page["leases"]) <= 2
        seen += [lease["id"] for lease in page["leases"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert seen == made[::-1]
    assert (await ann.broker("GET", "leases"))["leases"] == []


async def test_the_client_of_a_server_does_everything_that_a_server_does(enrol: Enrol) -> None:
    ann = await enrol()
    async with client(ann, await server_token(ann)) as broker:
        assert (await broker.me()).user == ann.name
        assert (await broker.pools())[0].simulated
        lease = await broker.request(LeaseRequest(server=""), "k")

        async def asks_for_a_key() -> bool:
            return (await broker.lease(lease.id)).needs_key

        await eventually(asks_for_a_key, "the lease to be granted")
        assert (await broker.set_key(lease.id, PUBLIC_KEY)).id == lease.id
        assert (await broker.lease(lease.id)).devices[0].simulated
        assert (await broker.usage(lease.id)).times is not None
        ended = await broker.acknowledge(lease.id, Acknowledge(reason="server-stopped"))
        assert ended.state in ("ending", "ended")
        assert ended.reason == "server-stopped"
