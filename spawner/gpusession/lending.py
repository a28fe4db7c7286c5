"""A server's lease, lent to whoever needs a GPU for a while: a notebook's flip, a command.

Exists so that a lease is asked for by the first that needs it and given back by the last.
Promises: a lease that was asked for here goes back once nothing uses it or is on its way to it;
one that the person asked for (``gpu on``) stays; a wait that is called off leaves no request behind;
who wants a GPU while one is just going back gets the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from gpulease import errors
from gpulease.models import Lease
from gpulease.session import MoveStep
from gpulease.states import LeaseState
from gpusession.kernels.ports import WorkerLink
from gpusession.leases import LeaseKeeper
from gpusession.notices import waiting_for

log = logging.getLogger(__name__)

RELEASE_ATTEMPTS = 5

Say = Callable[[MoveStep, str], None]


class Lending:
    """All methods run on the session's loop. ``in_use``: something is on the GPU or on its way to it."""

    def __init__(
        self,
        keeper: LeaseKeeper,
        in_use: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
    ) -> None:
        self._keeper, self._in_use, self._spawn = keeper, in_use, spawn
        self._asked_here: set[str] = set()
        self._given_back: set[str] = set()
        self._giving = asyncio.Lock()

    async def borrow(self, pool: str | None, gpus: int, say: Say) -> tuple[Lease, WorkerLink]:
        """Wait for a lease and its link. Raises LimitReached, LeaseOver, LinkLost …"""

        def heard(lease: Lease | None) -> None:
            say(*waiting_for(lease))

        while True:
            async with self._giving:
                there = self._keeper.lease
            joins = there is not None and there.state is LeaseState.ACTIVE
            lease = await self._want(pool, gpus, heard)
            try:
                link = await self._keeper.linked(heard)
                return self._keeper.lease or lease, link  # as it is now: with its devices
            except errors.LeaseOver:
                # It was being given back at the very moment of joining: what was wanted is a GPU.
                if not (joins or self.gave_back(lease.id)):
                    raise

    async def _want(self, pool: str | None, gpus: int, heard: Callable[[Lease | None], None]) -> Lease:
        asking = asyncio.ensure_future(self._ask(pool, gpus, heard))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            if self._keeper.state != "ok":
                asking.cancel()
            # The request may be at the broker already: hear its answer, then give it back.
            self._spawn(self._give_back(asking), "give-back")
            raise

    async def _ask(self, pool: str | None, gpus: int, heard: Callable[[Lease | None], None]) -> Lease:
        there = self._keeper.lease
        had = there is not None and there.state is not LeaseState.ENDING
        lease = await self._keeper.want(pool, gpus, heard)
        if not had:
            self._asked_here.add(lease.id)
        return lease

    async def _give_back(self, asking: asyncio.Future[Lease]) -> None:
        with contextlib.suppress(errors.GpuhubError, asyncio.CancelledError):
            await asyncio.shield(asking)
        self.release_if_unused()

    def stays(self, lease_id: str) -> None:
        """The person wants it for himself, or it has ended: it is not ours to give back."""
        self._asked_here.discard(lease_id)

    def gave_back(self, lease_id: str) -> bool:
        """Whether it ends because nothing here used it: nobody took it, and nobody meant the next one."""
        return lease_id in self._given_back

    def release_if_unused(self) -> None:
        """Give back a lease that was asked for here, once nothing uses it."""
        lease = self._keeper.lease
        if lease is None or lease.id not in self._asked_here or lease.state is LeaseState.ENDING:
            return
        if not self._in_use():
            self._spawn(self._release(lease.id), "release")

    async def _release(self, lease_id: str) -> None:
        for attempt in range(RELEASE_ATTEMPTS):
            async with self._giving:
                lease = self._keeper.lease
                if lease is None or lease.id != lease_id or self._in_use():
                    return
                self._given_back.add(lease_id)
                try:
                    await self._keeper.release()
                    return
                except errors.Unavailable:
                    pass
                except errors.GpuhubError as error:
                    log.info("the lease was not released: %s", error.message)
                    return
            await asyncio.sleep(1.0 + attempt)
