"""Every change of a lease goes through here: stored, shown on the board, told to those who listen.

A change that has begun is finished even when the one who asked for it has gone away: a committed
change that the board and the listeners do not know would be worse than a late one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gpuhub.broker import view
from gpuhub.broker.board import Board
from gpuhub.broker.clock import Clock
from gpuhub.broker.feed import Feed
from gpuhub.broker.metrics import Metrics
from gpuhub.core.lease import LeaseRecord
from gpuhub.store import Stale, Store

TRIES = 10

T = TypeVar("T")


class Ledger:
    """Writes leases. Raises `gpuhub.store.Stale` when somebody else was faster."""

    def __init__(self, store: Store, board: Board, feed: Feed, metrics: Metrics, clock: Clock) -> None:
        self._store, self._board, self._feed, self._metrics = store, board, feed, metrics
        self._clock = clock

    async def create(self, record: LeaseRecord, *, key: str | None, request: str) -> tuple[LeaseRecord, bool]:
        """Store a new lease, or return the one that answers the request already. Raises `KeyTaken`."""
        return await _finish(self._create(record, key, request))

    async def _create(self, record: LeaseRecord, key: str | None, request: str) -> tuple[LeaseRecord, bool]:
        stored, event = await self._store.leases.create(record, self._render, key=key, request=request)
        self._board.take(stored)
        if event is not None:
            self._feed.publish(event)
        return stored, event is not None

    async def change(self, record: LeaseRecord, **changes: Any) -> LeaseRecord:
        """Change a lease if it is still as ``record`` says. Raises `Stale`."""
        return await _finish(self._change(record, changes))

    async def _change(self, record: LeaseRecord, changes: dict[str, Any]) -> LeaseRecord:
        try:
            new, event = await self._store.leases.change(record, self._render, self._clock.now(), **changes)
        except Stale:
            newest = await self._store.leases.get(record.id)
            if newest is not None:
                self._board.take(newest)
            raise
        self._board.take(new)
        self._metrics.changed(record, new)
        self._feed.publish(event)
        return new

    async def update(
        self, lease_id: str, changes_for: Callable[[LeaseRecord], dict[str, Any] | None]
    ) -> LeaseRecord | None:
        """Change a lease by what is so now, again if somebody else was faster.

        ``changes_for`` may raise; it returns None when nothing is to change. None: no such lease.
        """
        for _ in range(TRIES):
            record = await self._store.leases.get(lease_id)
            if record is None:
                return None
            changes = changes_for(record)
            if changes is None:
                return record
            try:
                return await self.change(record, **changes)
            except Stale:
                continue
        raise Stale(lease_id)

    def _render(self, record: LeaseRecord) -> dict[str, Any]:
        shown = view.lease(record, self._board.rules(record), link=True)
        return shown.model_dump(mode="json")


async def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end, whatever becomes of the caller."""
    task: asyncio.Task[T] = asyncio.ensure_future(work)
    return await asyncio.shield(task)
