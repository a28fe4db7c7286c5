"""What people and their servers may ask of the broker; each method is one use case.

Promises: only classes of `gpulease.errors` leave it; nobody learns about somebody else's leases (they
are not found), except an operator's token that says so; what a user's server claims ends his own
leases sooner at most, and counts for nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

from gpuhub.broker import ending, view
from gpuhub.broker.actors import Actor
from gpuhub.broker.board import Board
from gpuhub.broker.clock import Clock
from gpuhub.broker.feed import Feed
from gpuhub.broker.ledger import Ledger
from gpuhub.broker.presence import Presence
from gpuhub.broker.stream import Stream
from gpuhub.core import quota
from gpuhub.core.lease import LeaseRecord
from gpuhub.core.policy import ending_seconds
from gpuhub.store import KeyTaken, Stale, Store
from gpuhub.telemetry.base import Sample
from gpuhub.telemetry.sampler import Sampler
from gpulease import errors
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
from gpulease.states import EndReason, LeaseState, Observed, Wanted

USAGE_SECONDS = 600
MOST_PER_PAGE = 200
SAME_LOOK_SECONDS = 0.9
"""Below half of what lies between two looks of the sampler."""

log = logging.getLogger(__name__)


class BrokerService:
    """The broker's use cases. Made by `gpuhub.broker.assembly.Broker`."""

    def __init__(
        self,
        store: Store,
        board: Board,
        ledger: Ledger,
        feed: Feed,
        presence: Presence,
        sampler: Sampler,
        clock: Clock,
        *,
        make_id: Callable[[], str],
        poke: Callable[[], None],
    ) -> None:
        self._store, self._board, self._ledger, self._feed = store, board, ledger, feed
        self._presence, self._sampler, self._clock = presence, sampler, clock
        self._make_id, self._poke = make_id, poke
        self._asking = asyncio.Lock()

    # --- what there is

    async def me(self, actor: Actor) -> Me:
        """Return the person, his pools, limits and leases that have not ended."""
        _may_manage(actor)
        pools = await self.pools(actor)
        rules = self._board.rules_for(actor.groups, pools[0].name if pools else "")
        own = self._board.of_user(actor.user)
        now, week = self._clock.now(), self._board.week(actor.user)
        used = sum(record.gpus for record in own if record.wanted is Wanted.HELD)
        hours = rules.gpu_hours_per_week
        spent = week.hours(now)
        return Me(
            user=actor.user,
            admin=actor.admin,
            groups=list(actor.groups),
            pools=pools,
            quotas=[
                QuotaUse(name="gpus_at_once", used=used, allowed=rules.gpus_at_once, unit="gpus"),
                QuotaUse(
                    name="gpu_hours_per_week",
                    used=round(spent, 3),
                    allowed=hours,
                    unit="hours",
                    frees_at=week.below_at(hours, now) if hours is not None and spent >= hours else None,
                ),
                QuotaUse(name="longest_lease_hours", allowed=rules.longest_lease_hours, unit="hours"),
            ],
            leases=[self._shown(record, actor) for record in reversed(own)],
            policy=Policy(
                idle_after_seconds=rules.idle_after_seconds,
                warn_seconds=rules.warn_seconds,
                keep_minutes=rules.keep_minutes,
                keep_times=rules.keep_times,
                automatic_save_seconds=self._board.policy.automatic_save_seconds,
                automatic_save_work_seconds=self._board.policy.automatic_save_work_seconds,
            ),
        )

    async def pools(self, actor: Actor) -> list[Pool]:
        """Return what the actor may use."""
        waiting = self._board.waiting()
        return [
            view.pool(now, waiting.get(now.name, 0))
            for now in self._board.pools().values()
            if self._board.policy.may_use(actor.groups, now.name)
        ]

    async def leases(
        self, actor: Actor, *, ended: bool, before: str | None, limit: int, everyone: bool = False
    ) -> LeaseList:
        """Return one's own leases, newest first; ``everyone``: all of them (operators).

        Raises NotAllowed.
        """
        _may_manage(actor)
        if everyone and not actor.may_admin:
            raise errors.NotAllowed("Only operators see everybody's leases.")
        limit = max(1, min(limit, MOST_PER_PAGE))
        found = await self._store.leases.page(
            user=None if everyone else actor.user, ended=ended, before=before, limit=limit + 1
        )
        shown = [self._shown(record, actor) for record in found[:limit]]
        return LeaseList(leases=shown, next=shown[-1].id if len(found) > limit else None)

    async def lease(self, actor: Actor, lease_id: str) -> Lease:
        """Raises NotFound (also for somebody else's)."""
        return self._shown(await self._find(actor, lease_id, operators=True), actor)

    async def usage(self, actor: Actor, lease_id: str) -> UsageSeries:
        """Return the samples of the last ten minutes, of the time that the lease held its GPUs only."""
        record = await self._find(actor, lease_id, operators=True)
        now = self._clock.now()
        since = now.timestamp() - USAGE_SECONDS
        if record.granted_at is None:
            return UsageSeries(times=[], utilisation_percent=[], memory_bytes=[])
        since = max(since, record.granted_at.timestamp())
        until = (record.ended_at or now).timestamp() + 1
        series = [
            [sample for sample in self._sampler.history(device_id, since) if sample.at <= until]
            for device_id in record.device_ids
        ]
        first, others = (series[0], series[1:]) if series else ([], [])
        times, use, memory = [], [], []
        for sample in first:
            together = [sample, *(near for other in others if (near := _nearest(other, sample.at)))]
            if len(together) == len(series):
                times.append(sample.at)
                use.append(sum(one.utilisation_percent for one in together) / len(together))
                memory.append(sum(one.memory_bytes for one in together))
        return UsageSeries(times=times, utilisation_percent=use, memory_bytes=memory)

    def events(
        self, actor: Actor, last_event_id: int | None = None, *, everyone: bool = False
    ) -> AsyncIterator[Event]:
        """Follow what happens to one's own leases, endlessly: the caller ends it.

        Stored events carry growing ids and are resumed after ``last_event_id``, or ``reset`` says
        that it is too long ago. Pools, places in the queue and usage come without an id.
        Raises NotAllowed, at once.
        """
        _may_manage(actor)
        if everyone and not actor.may_admin:
            raise errors.NotAllowed("Only operators see everybody's leases.")
        return Stream(
            self._store,
            self._board,
            self._feed,
            self._clock,
            user=None if everyone else actor.user,
            pools=lambda: self.pools(actor),
            shown=lambda record: self._shown(record, actor),
            sees_link=lambda user, server: user == actor.user and server == actor.server,
        ).follow(last_event_id)

    # --- asking for GPUs

    async def request(self, actor: Actor, request: LeaseRequest, key: str | None) -> tuple[Lease, bool]:
        """Ask for GPUs; the second value says whether a lease was made.

        A lease of the same server (and pool) that has not begun to end is the answer. Raises
        NotAllowed, UnknownPool, InvalidOption, LimitReached, KeyReused, Conflict.
        """
        _may_manage(actor)
        if actor.server is not None and request.server != actor.server:
            raise errors.NotAllowed("A server may ask for itself only.", hint="Leave out `server`.")
        key = key or request.idempotency_key
        digest = _digest(request)
        if key is not None:
            known = await self._store.leases.by_key(actor.user, key)
            if known is not None:
                if known[1] != digest:
                    raise _key_reused()
                return self._shown(known[0], actor), False
        async with self._asking:  # two requests of one person must not both fit into his last place
            record = next(
                (
                    record
                    for record in self._board.of_user(actor.user)
                    if record.server == request.server and record.wanted is Wanted.HELD
                ),
                None,
            ) or self._new(actor, request)
            if request.pool is not None and record.pool != request.pool:
                raise errors.Conflict(
                    f"This server already has a lease of the pool {record.pool}.",
                    hint="Release it first, then ask for the other kind.",
                )
            try:
                stored, made = await self._ledger.create(record, key=key, request=digest)
            except KeyTaken:
                raise _key_reused() from None
        if made:
            log.info("lease %s: %s GPU(s) of %s for %s", stored.id, stored.gpus, stored.pool, stored.user)
            self._poke()
        return self._shown(stored, actor), made

    def _new(self, actor: Actor, request: LeaseRequest) -> LeaseRecord:
        """Judge a request. Raises UnknownPool, InvalidOption, LimitReached."""
        now = self._clock.now()
        pool = self._pool(actor, request.pool)
        if request.gpus < 1:
            raise errors.InvalidOption("Ask for at least 1 GPU.", gpus=request.gpus)
        total = self._board.offers[pool].total
        if total and request.gpus > total:
            text = "has 1 GPU" if total == 1 else f"has {total} GPUs"
            raise errors.InvalidOption(
                f"The pool {pool} {text}; you asked for {request.gpus}.", gpus=request.gpus, total=total
            )
        own = self._board.of_user(actor.user)
        refusal = quota.refusal(
            request.gpus, self._board.rules_for(actor.groups, pool), own, self._board.week(actor.user), now
        )
        if refusal is not None:
            raise errors.LimitReached(refusal.message, **refusal.details())
        return LeaseRecord(
            id=self._make_id(),
            user=actor.user,
            server=request.server,
            groups=actor.groups,
            pool=pool,
            gpus=request.gpus,
            created_at=now,
            public_key=request.public_key,
            server_seen=actor.server is not None,
        )

    def _pool(self, actor: Actor, name: str | None) -> str:
        if not self._board.offers and not self._board.offers_known:
            raise errors.Unavailable("Which GPUs work here cannot be told at the moment.")
        usable = [pool for pool in self._board.offers if self._board.policy.may_use(actor.groups, pool)]
        if name is None:
            if not usable:
                raise errors.UnknownPool("There is no GPU on offer for you here.")
            return next((pool for pool in usable if self._board.offers[pool].total), usable[0])
        if name not in usable:
            raise errors.UnknownPool(f"There is no pool {name} on offer for you.", pools=usable)
        return name

    async def set_key(self, actor: Actor, lease_id: str, public_key: str) -> Lease:
        """Give the server's public key, or a new one after it was restarted.

        Raises NotFound, NotAllowed, LeaseOver.
        """
        await self._find(actor, lease_id)
        now = self._clock.now()

        def changes(record: LeaseRecord) -> dict[str, Any] | None:
            if actor.server is not None and actor.server != record.server:
                raise errors.NotAllowed("This lease belongs to another server of yours.")
            if record.wanted is not Wanted.HELD:
                raise errors.LeaseOver("The lease has ended or is ending.")
            if record.public_key == public_key:
                return None
            granted = record.observed is Observed.GRANTED and record.key_at is None
            return {"public_key": public_key} | ({"key_at": now} if granted else {})

        return await self._change(actor, lease_id, changes)

    # --- keeping and ending

    async def keep(self, actor: Actor, lease_id: str) -> Lease:
        """Hold an idle GPU a while longer. Raises NotFound, KeepUsedUp, LeaseOver, Conflict."""
        await self._find(actor, lease_id)
        now = self._clock.now()

        def changes(record: LeaseRecord) -> dict[str, Any]:
            rules = self._board.rules(record)
            if record.state in (LeaseState.ENDING, LeaseState.ENDED):
                raise errors.LeaseOver("The lease has ended or is ending.")
            if record.observed is not Observed.READY:
                raise errors.Conflict("There is nothing to keep yet: the GPU is not there.")
            left = view.keeps(record, rules)
            if record.warned is not None and record.warned.reason is not EndReason.IDLE:
                raise errors.KeepUsedUp(
                    "This lease ends at a limit; it cannot be kept.",
                    hint="Your work is saved and moved back.",
                )
            if not left.times_left:
                times = "once" if rules.keep_times == 1 else f"{rules.keep_times} times"
                text = (
                    f"You have kept this GPU {times} already."
                    if record.keeps_used
                    else "Keep is not on offer."
                )
                raise errors.KeepUsedUp(text, used=record.keeps_used, allowed=rules.keep_times)
            return {
                "keeps_used": record.keeps_used + 1,
                "kept_until": now + timedelta(minutes=rules.keep_minutes),
                "warned": None,
            }

        return await self._change(actor, lease_id, changes)

    async def hint_cell(self, actor: Actor, lease_id: str, running: bool) -> None:
        """Remember for a while whether a cell runs on the worker. Raises NotFound, NotAllowed."""
        record = await self._find(actor, lease_id)
        if actor.server is not None and actor.server != record.server:
            raise errors.NotAllowed("This lease belongs to another server of yours.")
        self._board.hear_cell(lease_id, running)

    async def release(self, actor: Actor, lease_id: str) -> Lease:
        """Begin the end; a queued lease is cancelled; what ends or has ended stays as it is.

        Raises NotFound. An operator's end of somebody else's lease is told as revoked.
        """
        found = await self._find(actor, lease_id, operators=True)
        own = found.user == actor.user
        now = self._clock.now()

        def changes(record: LeaseRecord) -> dict[str, Any] | None:
            if record.wanted is not Wanted.HELD:
                return None
            if record.observed is Observed.NOTHING:
                return ending.close(EndReason.CANCELLED if own else EndReason.REVOKED, now)
            reason = EndReason.RELEASED if own else EndReason.REVOKED
            return ending.begin(record, reason, now, deadline=now + self._time_to_save(record))

        return await self._change(actor, lease_id, changes)

    async def acknowledge(self, actor: Actor, lease_id: str, done: Acknowledge) -> Lease:
        """Take the server's word that nothing worth saving is left; with a reason it begins the end.

        Raises NotFound, NotAllowed, Conflict (the lease does not end, and no reason is given).
        """
        await self._find(actor, lease_id)
        now = self._clock.now()

        def changes(record: LeaseRecord) -> dict[str, Any] | None:
            if actor.server is not None and actor.server != record.server:
                raise errors.NotAllowed("This lease belongs to another server of yours.")
            if record.gone or record.acknowledged_at is not None:
                return None
            if record.wanted is not Wanted.HELD:
                return {"acknowledged_at": now}
            if done.reason is None:
                raise errors.Conflict("The lease does not end; release it first, or give a reason.")
            begun = ending.begin(record, EndReason(done.reason), now, deadline=now)
            return begun | {"acknowledged_at": now}

        shown = await self._change(actor, lease_id, changes)
        if done.kernels:
            outcomes = ", ".join(f"{one.outcome} ({one.bytes} bytes)" for one in done.kernels)
            log.info("lease %s was emptied: %s", lease_id, outcomes)
        return shown

    def _time_to_save(self, record: LeaseRecord) -> timedelta:
        """How long a server has to move everything back; nothing where none is there to do it."""
        running = self._presence.running((record.user, record.server))
        if not record.server_seen or running is False:
            return timedelta(0)
        return timedelta(seconds=ending_seconds(self._board.held(record)))

    # --- the inside

    async def _change(
        self, actor: Actor, lease_id: str, changes: Callable[[LeaseRecord], dict[str, Any] | None]
    ) -> Lease:
        try:
            record = await self._ledger.update(lease_id, changes)
        except Stale:
            raise errors.Unavailable("The lease is being changed by somebody else.") from None
        if record is None:
            raise _not_found()
        self._poke()
        return self._shown(record, actor)

    async def _find(self, actor: Actor, lease_id: str, *, operators: bool = False) -> LeaseRecord:
        _may_manage(actor)
        record = await self._store.leases.get(lease_id)
        if record is None or not (record.user == actor.user or (operators and actor.may_admin)):
            raise _not_found()
        return record

    def _shown(self, record: LeaseRecord, actor: Actor) -> Lease:
        active = record.observed is Observed.READY
        return view.lease(
            record,
            self._board.rules(record),
            place=self._board.place(record),
            progress=self._board.progress(record),
            usage=view.usage(self._board.fresh_samples(record)) if active else None,
            idle_seconds=self._board.silent_seconds(record.id) if active else None,
            link=record.user == actor.user and record.server == actor.server,
        )


def _nearest(samples: list[Sample], at: float) -> Sample | None:
    """Return the sample of the same look: GPUs are asked one after another, within a moment."""
    index = bisect_left(samples, at - SAME_LOOK_SECONDS, key=lambda sample: sample.at)
    found = samples[index] if index < len(samples) else None
    return found if found is not None and found.at <= at + SAME_LOOK_SECONDS else None


def _may_manage(actor: Actor) -> None:
    if not (actor.may_manage or actor.may_admin):
        raise errors.NotAllowed("This token may not manage GPU leases.")


def _not_found() -> errors.NotFound:
    return errors.NotFound("There is no such lease of yours.")


def _key_reused() -> errors.KeyReused:
    return errors.KeyReused("This idempotency key was used for another request.")


def _digest(request: LeaseRequest) -> str:
    body = request.model_dump_json(exclude={"idempotency_key"})
    return hashlib.sha256(body.encode()).hexdigest()
