"""A broker and a hub at the API's ports, named after what they do; the app around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import httpx
from starlette.types import ASGIApp

from gpuhub.api.app import make_app
from gpuhub.api.hubtokens import HubTokens
from gpuhub.api.parts import Parts
from gpuhub.api.people import People
from gpuhub.api.signin import SignIn
from gpuhub.broker.actors import Actor
from gpulease.errors import NotFound
from gpulease.events import Event
from gpulease.models import (
    Acknowledge,
    Lease,
    LeaseList,
    LeaseRequest,
    Me,
    Policy,
    Pool,
    QuotaUse,
    UsageSeries,
)
from gpulease.scopes import ADMIN_LEASES, MANAGE_LEASES
from gpulease.states import EndReason, LeaseState

HUB = "http://hub/hub/api"
SERVICE_TOKEN = "service-secret"
PREFIX = "/services/gpu"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class GivesEverything:
    """Grants every request at once and writes down who asked."""

    def __init__(self) -> None:
        self.held: dict[str, Lease] = {}
        self.actors: list[Actor] = []
        self.keys: list[str | None] = []
        self.trouble: Exception | None = None

    async def me(self, actor: Actor) -> Me:
        self.actors.append(actor)
        if self.trouble is not None:
            raise self.trouble
        quota = QuotaUse(name="gpus_at_once", used=0, allowed=2 if "lab" in actor.groups else 1, unit="GPUs")
        policy = Policy(idle_after_seconds=600, warn_seconds=300, keep_minutes=30, keep_times=2)
        return Me(
            user=actor.user,
            admin=actor.admin,
            groups=list(actor.groups),
            pools=await self.pools(actor),
            quotas=[quota],
            leases=[lease for lease in self.held.values() if lease.user == actor.user],
            policy=policy,
        )

    async def pools(self, actor: Actor) -> list[Pool]:
        return [
            Pool(
                name="simulated", title="simulated <GPU>", memory_bytes=16 * 10**9, total=2, free=2, waiting=0
            )
        ]

    async def request(self, actor: Actor, request: LeaseRequest, key: str | None) -> tuple[Lease, bool]:
        self.actors.append(actor)
        self.keys.append(key)
        lease = Lease(
            id=f"lease-{len(self.held)}",
            revision=1,
            user=actor.user,
            server=request.server,
            pool="simulated",
            gpus=request.gpus,
            state=LeaseState.ACTIVE,
            created_at=NOW,
        )
        self.held[lease.id] = lease
        return lease, True

    async def leases(
        self, actor: Actor, *, ended: bool, before: str | None, limit: int, everyone: bool = False
    ) -> LeaseList:
        return LeaseList(leases=list(self.held.values())[:limit])

    async def lease(self, actor: Actor, lease_id: str) -> Lease:
        lease = self.held.get(lease_id)
        if lease is None or lease.user != actor.user:
            raise NotFound("There is no such lease.")
        return lease

    async def set_key(self, actor: Actor, lease_id: str, public_key: str) -> Lease:
        return await self.lease(actor, lease_id)

    async def keep(self, actor: Actor, lease_id: str) -> Lease:
        return await self.lease(actor, lease_id)

    async def release(self, actor: Actor, lease_id: str) -> Lease:
        lease = await self.lease(actor, lease_id)
        self.held[lease_id] = lease.model_copy(
            update={"state": LeaseState.ENDED, "reason": EndReason.RELEASED}
        )
        return self.held[lease_id]

    async def hint_cell(self, actor: Actor, lease_id: str, running: bool) -> None:
        await self.lease(actor, lease_id)

    async def acknowledge(self, actor: Actor, lease_id: str, done: Acknowledge) -> Lease:
        return await self.lease(actor, lease_id)

    async def usage(self, actor: Actor, lease_id: str) -> UsageSeries:
        return UsageSeries(times=[], utilisation_percent=[], memory_bytes=[])

    async def events(
        self, actor: Actor, last_event_id: int | None = None, *, everyone: bool = False
    ) -> AsyncIterator[Event]:
        yield Event(id=1, kind="reset", at=NOW, data={})
        await asyncio.Event().wait()


class KnowsThree(httpx.AsyncBaseTransport):
    """A hub that knows ann, ben and an operator's token; it redeems one code for ann's token."""

    def __init__(self) -> None:
        self.away = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        path = request.url.path
        if path == "/hub/api/oauth2/token":
            form = parse_qs((await request.aread()).decode())
            good = form["code"] == ["ann-code"] and form["client_secret"] == [SERVICE_TOKEN]
            return httpx.Response(200 if good else 400, json={"access_token": "ann"} if good else {})
        token = request.headers["authorization"].removeprefix("token ")
        if path.startswith("/hub/api/users/"):
            name = path.rpartition("/")[2]
            known = token == SERVICE_TOKEN and name in ("ann", "ben")
            return httpx.Response(200 if known else 404, json={"name": name, "groups": ["lab"]})
        person = {"kind": "user", "groups": []}
        scopes = {"ann": [f"{MANAGE_LEASES}!user=ann"], "ben": [f"{MANAGE_LEASES}!user=ben"], "nothing": []}
        if token in scopes:
            return httpx.Response(200, json={**person, "name": token, "scopes": scopes[token]})
        if token == "operator":
            return httpx.Response(
                200, json={"kind": "service", "name": "operator", "scopes": [ADMIN_LEASES, MANAGE_LEASES]}
            )
        return httpx.Response(403, json={})


def app(broker: GivesEverything, hub: KnowsThree) -> ASGIApp:
    return make_app(
        Parts(
            broker=broker,
            tokens=HubTokens(HUB, transport=hub),
            people=People(HUB, SERVICE_TOKEN, transport=hub),
            signin=SignIn(HUB, SERVICE_TOKEN, transport=hub),
            metrics=lambda: b"gpuhub_leases 0\n",
        )
    )


def bearer(token: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {token}"}
