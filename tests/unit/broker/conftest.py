"""A broker in one process: real store (SQLite), everything else moved by hand."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gpuhub.broker.actors import Actor
from gpuhub.broker.assembly import Broker
from gpuhub.broker.hostkeys import HostKey
from gpuhub.broker.settings import PolicySettings
from gpuhub.store import Store
from gpuhub.telemetry.sampler import Sampler
from gpulease.models import Lease, LeaseRequest
from tests.builders import KEY
from tests.fakes import ClockByHand, GpusByHand, WorkersThatStart

ANN = Actor("ann", server="")
BOB = Actor("bob", server="")
CYD = Actor("cyd", server="")
OPERATOR = Actor("root", admin=True, may_admin=True)


class Place:
    """A broker over a fake backend; `turn` makes it look and act, `later` lets time pass."""

    def __init__(self, folder: Path, backend: WorkersThatStart, **policy: Any) -> None:
        self.url = f"sqlite+aiosqlite:///{folder}/gpuhub.sqlite"
        self.backend = backend
        self.policy = PolicySettings.model_validate(policy)
        self.clock = ClockByHand()
        devices = [device.id for pool in backend.pools for device in pool.devices]
        self.gpus = GpusByHand(self.clock, *devices)
        self._ids = itertools.count(1)

    async def open(self) -> None:
        """Start a broker; a second time, after `kill`, is a new process on the same store."""
        self.store = await Store.open(self.url)
        self.sampler = Sampler(self.gpus)
        self.broker = Broker(
            self.store,
            self.backend,
            self.sampler,
            self.policy,
            clock=self.clock,
            make_id=lambda: f"lease{next(self._ids)}",
            make_host_key=lambda: HostKey("ssh-ed25519 host", "host secret"),
        )
        self.service = self.broker.service
        await self.broker.prepare()

    async def kill(self) -> None:
        """The process ends; nothing is told to anybody."""
        await self.broker.reconciler.settle()
        await self.store.close()

    async def restart(self) -> None:
        await self.kill()
        await self.open()

    async def turn(self) -> None:
        """Look at everything and act until nothing changes."""
        for _ in range(4):
            await self.broker.reconciler.reconcile()
            await self.broker.reconciler.settle()

    async def later(self, seconds: float, step: float = 5.0) -> None:
        """Let time pass with a look at GPUs, servers and leases every ``step``."""
        left = seconds
        while left > 0:
            self.clock.pass_seconds(min(step, left))
            left -= step
            await self.sampler.look()
            await self.broker.reconciler.look_at_servers()
            await self.turn()

    async def ask(self, actor: Actor = ANN, key: str | None = None, **fields: Any) -> Lease:
        body = {"public_key": KEY, "server": actor.server or "", **fields}
        lease, _ = await self.service.request(actor, LeaseRequest.model_validate(body), key)
        return lease

    async def active(self, actor: Actor = ANN, **fields: Any) -> Lease:
        """Ask and wait until the lease is active."""
        lease = await self.ask(actor, **fields)
        await self.turn()
        return await self.see(lease, actor)

    async def see(self, lease: Lease, actor: Actor | None = None) -> Lease:
        """The lease as its owner's server sees it now."""
        return await self.service.lease(actor or Actor(lease.user, server=lease.server), lease.id)


MakePlace = Callable[..., Awaitable[Place]]


@pytest.fixture
async def make_place(tmp_path: Path) -> AsyncIterator[MakePlace]:
    places: list[Place] = []

    async def make(backend: WorkersThatStart | None = None, **policy: Any) -> Place:
        folder = tmp_path / str(len(places))
        folder.mkdir()
        place = Place(folder, backend or WorkersThatStart(), **policy)
        places.append(place)
        await place.open()
        return place

    yield make
    for place in places:
        await place.kill()


@pytest.fixture
async def place(make_place: MakePlace) -> Place:
    """One GPU, the usual rules."""
    return await make_place()
