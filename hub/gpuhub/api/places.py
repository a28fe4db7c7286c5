"""The places that a broker can serve: this machine, or a cluster. Each brings what is special about it.

A place is opened once a process, before anybody leads: it brings the leadership. What it serves with
(backend, telemetry, the way in for agents) is opened anew each time that this broker comes to lead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from gpuhub.api.agents import Agents
from gpuhub.backends.base import Backend
from gpuhub.backends.local import LocalBackend
from gpuhub.broker.leadership import Leadership
from gpuhub.broker.site import BrokerSettings, LocalSettings
from gpuhub.store.advisory import AdvisoryLock
from gpuhub.store.lock import DatabaseLock
from gpuhub.telemetry.base import Telemetry
from gpuhub.telemetry.sources import Machine
from gpuspawner.launcher.accounts import Accounts
from gpuspawner.launcher.client import LauncherClient


@dataclass(frozen=True)
class Served:
    """What a broker serves with while it leads."""

    backend: Backend
    telemetry: Telemetry
    agents: Agents | None = None


class Place(Protocol):
    """Where the GPUs are."""

    @property
    def leadership(self) -> Leadership: ...

    def serve(self) -> AbstractAsyncContextManager[Served]: ...


class NobodyElse:
    """The leadership of a place where a second broker cannot be told: it always leads."""

    def leads(self) -> bool:
        return True

    async def acquire(self) -> None:
        return

    async def hold(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        return


class LocalPlace:
    """The GPUs of this machine."""

    def __init__(self, settings: LocalSettings, leadership: Leadership) -> None:
        self._settings = settings
        self.leadership = leadership

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Served]:
        settings = self._settings
        machine = Machine(settings.gpus)
        await machine.inventory()
        backend = LocalBackend(
            LauncherClient(settings.launcher_socket),
            gpus=machine.gpus,
            accounts=Accounts(
                settings.account_mode,
                homes=settings.homes,
                book=settings.accounts_book,
                shared_uid=settings.shared_uid,
            ),
            prefix=settings.prefix,
        )
        try:
            yield Served(backend, machine.telemetry(backend.processes_on))
        finally:
            await backend.close()


@contextlib.asynccontextmanager
async def open_place(settings: BrokerSettings) -> AsyncIterator[Place]:
    """Open the place that the settings name. Raises `OSError`."""
    if settings.kubernetes is not None:
        # Here and not above: a broker of one machine does not carry the cluster's library.
        from gpuhub.api.cluster import open_cluster

        async with open_cluster(settings.kubernetes) as place:
            yield place
    elif settings.local is not None:
        url = settings.database_url.get_secret_value()
        lock = DatabaseLock.of(url) or AdvisoryLock.of(url) or NobodyElse()
        yield LocalPlace(settings.local, lock)
