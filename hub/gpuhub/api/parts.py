"""What the app's resources work with, given to them once; and the broker as they see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from fastapi import Depends, Request

from gpuhub.api.agents import Agents
from gpuhub.api.hubtokens import HubTokens
from gpuhub.api.people import People
from gpuhub.api.signin import SignIn
from gpuhub.api.stream import Readers
from gpuhub.broker.actors import Actor
from gpulease.events import Event
from gpulease.models import Acknowledge, Lease, LeaseList, LeaseRequest, Me, Pool, UsageSeries


class Broker(Protocol):
    """The use cases (`gpuhub.broker.service.BrokerService`). All raise `gpulease.errors`."""

    async def me(self, actor: Actor) -> Me: ...
    async def pools(self, actor: Actor) -> list[Pool]: ...
    async def request(self, actor: Actor, request: LeaseRequest, key: str | None) -> tuple[Lease, bool]: ...
    async def leases(
        self, actor: Actor, *, ended: bool, before: str | None, limit: int, everyone: bool = False
    ) -> LeaseList: ...
    async def lease(self, actor: Actor, lease_id: str) -> Lease: ...
    async def set_key(self, actor: Actor, lease_id: str, public_key: str) -> Lease: ...
    async def keep(self, actor: Actor, lease_id: str) -> Lease: ...
    async def release(self, actor: Actor, lease_id: str) -> Lease: ...
    async def hint_cell(self, actor: Actor, lease_id: str, running: bool) -> None: ...
    async def acknowledge(self, actor: Actor, lease_id: str, done: Acknowledge) -> Lease: ...
    async def usage(self, actor: Actor, lease_id: str) -> UsageSeries: ...
    def events(
        self, actor: Actor, last_event_id: int | None = None, *, everyone: bool = False
    ) -> AsyncIterator[Event]: ...


@dataclass
class Parts:
    """One per app."""

    broker: Broker
    tokens: HubTokens
    people: People
    signin: SignIn
    metrics: Callable[[], str | bytes]
    """The text of the Prometheus exposition format."""
    agents: Agents | None = None
    """The way in for the agents of a cluster's nodes; None: nobody reports from outside."""
    readers: Readers = field(default_factory=Readers)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is about to end: event streams end by themselves then."""


def parts(request: Request) -> Parts:
    found: Parts = request.app.state.parts
    return found


PartsHere = Annotated[Parts, Depends(parts)]
