"""Puts the broker together: one store, one backend, one sampler, and what runs over them.

::

    store = await Store.open(settings.database_url)          # migrates to the newest schema
    broker = Broker(store, backend, sampler, load_policy(settings.policy_file))
    async with broker:                                       # observes, decides, applies in the background
        await broker.service.me(actor)
        broker.metrics.render()                              # text for Prometheus
    await store.close()
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from gpuhub.backends.base import Backend
from gpuhub.broker.board import Board
from gpuhub.broker.clock import Clock, SystemClock
from gpuhub.broker.feed import Feed
from gpuhub.broker.hostkeys import HostKey, make_host_key
from gpuhub.broker.ledger import Ledger
from gpuhub.broker.metrics import Metrics
from gpuhub.broker.presence import Presence
from gpuhub.broker.reconciler import Reconciler
from gpuhub.broker.service import BrokerService
from gpuhub.broker.settings import PolicySettings
from gpuhub.store import Store
from gpuhub.telemetry.sampler import Sampler

EVENTS_KEPT = timedelta(days=1)
"""How long a reader may be away and still miss nothing; later it reads the present state afresh."""
KEYS_KEPT = timedelta(days=7)
"""How long a repeated request is recognised by its idempotency key."""
TIDY_SECONDS = 600.0

log = logging.getLogger(__name__)


def _make_id() -> str:
    return uuid.uuid4().hex


class Broker:
    """The broker's inside. `service` answers, `metrics` counts; entering it starts what runs behind."""

    def __init__(
        self,
        store: Store,
        backend: Backend,
        sampler: Sampler,
        policy: PolicySettings,
        *,
        clock: Clock | None = None,
        make_id: Callable[[], str] = _make_id,
        make_host_key: Callable[[], HostKey] = make_host_key,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        clock = clock or SystemClock()
        self._store, self._sampler, self._clock = store, sampler, clock
        self.metrics = Metrics()
        self.presence = Presence(backend, clock.monotonic)
        self.board = Board(policy, clock, self.presence)
        self._feed = Feed(store)
        ledger = Ledger(store, self.board, self._feed, self.metrics, clock)
        self.reconciler = Reconciler(
            store,
            backend,
            self.board,
            ledger,
            self._feed,
            self.presence,
            self.metrics,
            clock,
            make_host_key=make_host_key,
            leads=leads,
        )
        self.service = BrokerService(
            store,
            self.board,
            ledger,
            self._feed,
            self.presence,
            sampler,
            clock,
            make_id=make_id,
            poke=self.reconciler.poke,
        )
        sampler.listen(self.board.see_samples)
        sampler.listen(lambda _samples: self._feed.looked())
        self._tasks: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        """Read the store and look once, so that the first question has an answer."""
        self._feed.head = (await self._store.events.bounds())[1]
        await self.reconciler.reconcile()

    async def __aenter__(self) -> Self:
        await self.prepare()
        for name, work in (
            ("reconciler", self.reconciler.run()),
            ("servers", self.reconciler.watch_servers()),
            ("sampler", self._sampler.run()),
            ("tidy", self._tidy()),
        ):
            self._tasks.append(asyncio.create_task(work, name=name))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop working. Workers and leases stay as they are: the next broker finds them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _tidy(self) -> None:
        while True:
            now = self._clock.now()
            try:
                await self._store.events.forget(now - EVENTS_KEPT, keys_before=now - KEYS_KEPT)
            except Exception:  # a database that is away: the next time may do
                log.exception("old events could not be dropped")
            await asyncio.sleep(TIDY_SECONDS)
