"""What people and their servers may ask of the broker; each method is one use case.

Promises: only classes of `gpulease.errors` leave it; nobody learns about somebody else's leases.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from gpuhub.broker.actors import Actor
from gpulease.events import Event
from gpulease.models import Acknowledge, Lease, LeaseList, LeaseRequest, Me, Pool, UsageSeries


class BrokerService:
    """The broker's use cases. Made by `gpuhub.broker.assembly.Broker`."""

    async def me(self, actor: Actor) -> Me:
        """Return the person, his pools, limits and leases that have not ended."""
        raise NotImplementedError

    async def pools(self, actor: Actor) -> list[Pool]:
        """Return what the actor may use."""
        raise NotImplementedError

    async def request(self, actor: Actor, request: LeaseRequest, key: str | None) -> tuple[Lease, bool]:
        """Ask for GPUs; the second value says whether a lease was made.

        Raises NotAllowed, UnknownPool, InvalidOption, LimitReached, KeyReused, Conflict.
        """
        raise NotImplementedError

    async def leases(
        self, actor: Actor, *, ended: bool, before: str | None, limit: int, everyone: bool = False
    ) -> LeaseList:
        """Return one's own leases, newest first; ``everyone``: all of them (operators)."""
        raise NotImplementedError

    async def lease(self, actor: Actor, lease_id: str) -> Lease:
        """Raises NotFound (also for somebody else's)."""
        raise NotImplementedError

    async def set_key(self, actor: Actor, lease_id: str, public_key: str) -> Lease:
        """Give the server's public key. Raises NotFound, LeaseOver."""
        raise NotImplementedError

    async def keep(self, actor: Actor, lease_id: str) -> Lease:
        """Answer a warning. Raises NotFound, KeepUsedUp, LeaseOver, Conflict."""
        raise NotImplementedError

    async def release(self, actor: Actor, lease_id: str) -> Lease:
        """Begin the end; a queued lease is cancelled; what has ended stays as it is. Raises NotFound."""
        raise NotImplementedError

    async def acknowledge(self, actor: Actor, lease_id: str, done: Acknowledge) -> Lease:
        """The server's word that nothing worth saving is left. Raises NotFound, LeaseOver, Conflict."""
        raise NotImplementedError

    async def usage(self, actor: Actor, lease_id: str) -> UsageSeries:
        """Return the samples of the last ten minutes. Raises NotFound."""
        raise NotImplementedError

    def events(
        self, actor: Actor, last_event_id: int | None = None, *, everyone: bool = False
    ) -> AsyncIterator[Event]:
        """Follow what happens to one's own leases. Endless: the caller cancels."""
        raise NotImplementedError
