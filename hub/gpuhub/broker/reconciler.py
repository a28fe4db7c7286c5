"""The loop that makes things so: observe, snapshot, decide, apply, and again.

Level-triggered: it never remembers what it wanted to do, it looks at what is and asks the policy anew.
So a crash at any point loses nothing, and what an earlier broker left behind (workers of leases that
are unknown or have ended) is stopped. Woken by `poke` and by time; a GPU that is seen free is granted
in the same turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

from gpuhub.backends.base import Backend, BackendError, Phase, StartRefused, WorkerOrder
from gpuhub.broker import ending
from gpuhub.broker.board import Board
from gpuhub.broker.clock import Clock
from gpuhub.broker.feed import Feed
from gpuhub.broker.hostkeys import HostKey
from gpuhub.broker.ledger import Ledger
from gpuhub.broker.metrics import Metrics
from gpuhub.broker.presence import Presence
from gpuhub.broker.workqueue import WorkQueue
from gpuhub.core import policy
from gpuhub.core.lease import DeviceInfo, LeaseRecord
from gpuhub.core.ordering import places
from gpuhub.core.policy import decide
from gpuhub.core.quota import WEEK
from gpuhub.store import Stale, Store
from gpulease.states import LeaseState, Observed, Wanted

BUSY_SECONDS = 0.4
"""Between two turns while something starts, ends, or waits."""
CALM_SECONDS = 1.0
"""…while leases are held and nothing changes."""
QUIET_SECONDS = 3.0
"""…while nobody has a lease."""
OFFERS_SECONDS = 5.0
LOOK_TIMEOUT_SECONDS = 15.0
BUSY_NOTE_SECONDS = 30.0
RELOAD_SECONDS = 60.0
MOST_TURNS = 8
"""Turns in a row without a pause; each one had changed something."""

log = logging.getLogger(__name__)


class Reconciler:
    """Keeps leases and workers in step. One per broker."""

    def __init__(
        self,
        store: Store,
        backend: Backend,
        board: Board,
        ledger: Ledger,
        feed: Feed,
        presence: Presence,
        metrics: Metrics,
        clock: Clock,
        *,
        make_host_key: Callable[[], HostKey],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store, self._backend, self._board, self._ledger = store, backend, board, ledger
        self._feed, self._presence, self._metrics, self._clock = feed, presence, metrics, clock
        self._make_host_key, self._leads = make_host_key, leads
        self._poked = asyncio.Event()
        self._queue = WorkQueue(clock.monotonic, on_done=self.poke, on_failure=metrics.failed)
        self._offers_at: float | None = None
        self._loaded_at: float | None = None
        self._started = False
        self._took = 0.0
        self._noted_at = clock.monotonic()

    def poke(self) -> None:
        """Look again now."""
        self._poked.set()

    async def run(self) -> None:
        """Reconcile until cancelled. Trouble (a database that is away) is waited out."""
        failures = 0
        try:
            while True:
                self._poked.clear()
                try:
                    await self.reconcile()
                    failures = 0
                    pause = self._pause()
                except Exception:  # whatever it was, the next turn may work; the loop must not die
                    failures += 1
                    pause = min(10.0, 0.5 * 2**failures)
                    self._loaded_at = None
                    log.exception("a turn of the reconciler failed; trying again in %.1f s", pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._poked.wait(), pause)
                if failures:
                    await asyncio.sleep(pause)
        finally:
            await self._queue.close()

    async def reconcile(self) -> None:
        """Take turns until nothing changes any more."""
        for _ in range(MOST_TURNS):
            began = self._clock.monotonic()
            changed = await self._turn()
            self._took = self._clock.monotonic() - began
            board = self._board
            self._metrics.passed(self._took, board.live.values(), board.pools().values(), board.unmeasured())
            if not changed:
                return

    async def settle(self) -> None:
        """Wait until no order to the backend is on its way."""
        await self._queue.settle()

    def _pause(self) -> float:
        states = {record.state for record in self._board.live.values()}
        if states & {LeaseState.STARTING, LeaseState.ENDING, LeaseState.QUEUED}:
            # With thousands in the queue a turn is long: leave the loop to others for longer.
            return min(CALM_SECONDS, max(BUSY_SECONDS, 4 * self._took))
        return CALM_SECONDS if states else QUIET_SECONDS

    # --- one turn

    async def _turn(self) -> bool:
        if not self._leads():
            return False
        await self._load()
        await self._see_offers()
        if not await self._observe():
            return False
        self._stop_strangers()
        await self._learn_devices()
        self._board.pending_orders = self._queue.leases()
        snapshot = self._board.snapshot()
        now = self._clock.now()
        changed = False
        for decision in decide(snapshot, now):
            record = self._board.live.get(decision.lease_id)
            if record is None:
                continue
            try:
                changed = await self._apply(decision, record) or changed
            except Stale:
                log.info("lease %s was changed meanwhile; looking again", record.id)
                changed = True
        if not changed:
            self._board.places = places(snapshot, now)
            await self._note_use()
        self._feed.wake()
        return changed

    async def _load(self) -> None:
        """Read all live leases: at the start, and now and then as a net below the board."""
        now = self._clock.monotonic()
        if self._loaded_at is not None and now - self._loaded_at < RELOAD_SECONDS:
            return
        if not self._started:
            self._board.take_history(await self._store.history.spans(self._clock.now() - WEEK))
        stored = {record.id: record for record in await self._store.leases.live()}
        known = set(self._board.live)
        for lease_id in stored.keys() & known if self._started else stored:
            self._board.take(stored[lease_id])
        # What only one side knows was changed while the other was read: ask again, one by one.
        for lease_id in stored.keys() ^ known if self._started else ():
            newest = await self._store.leases.get(lease_id)
            if newest is not None and (lease_id in self._board.live or not newest.gone):
                self._board.take(newest)
        self._started = True
        await self._learn_what_is_typical()
        self._loaded_at = now

    async def _see_offers(self) -> None:
        now = self._clock.monotonic()
        if self._offers_at is not None and now - self._offers_at < OFFERS_SECONDS:
            return
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                self._board.see_offers(await self._backend.offers())
            self._offers_at = now
        except (BackendError, TimeoutError) as error:
            self._board.distrust_offers()
            self._metrics.failed("offers")
            log.warning("the backend does not say which GPUs work: %s", error)

    async def _observe(self) -> bool:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                self._board.see_workers(await self._backend.observe())
        except (BackendError, TimeoutError) as error:
            self._metrics.failed("observe")
            log.warning("the backend does not say which workers run: %s", error)
            return False
        return True

    async def _learn_devices(self) -> None:
        """Store which GPUs a worker was given, where the place chose them; until then its use is unknown."""
        for lease_id, worker in self._board.workers.items():
            record = self._board.live.get(lease_id)
            if record is None or record.devices or len(worker.devices) != record.gpus:
                continue
            devices = tuple(
                DeviceInfo(gpu.id, gpu.index, gpu.name, gpu.memory_bytes, gpu.simulated)
                for gpu in worker.devices
            )
            try:
                await self._ledger.change(record, devices=devices)
            except Stale:
                log.info("lease %s was changed meanwhile; its GPUs are stored next time", lease_id)

    def _stop_strangers(self) -> None:
        """End workers of leases that are unknown or have ended; drop what is left of those that exited."""
        grace = self._board.policy.worker_grace_seconds
        for lease_id, worker in self._board.workers.items():
            if lease_id in self._board.live:
                continue
            if worker.phase is Phase.EXITED:
                self._order("forget", lease_id, partial(self._forget, lease_id))
            elif worker.phase is not Phase.STOPPING:
                log.warning("worker of lease %s, which is not live, is stopped", lease_id)
                self._order("stop", lease_id, partial(self._stop, lease_id, grace))

    async def watch_servers(self) -> None:
        """Look at the servers of live leases now and again, until cancelled."""
        while True:
            try:
                await self.look_at_servers()
            except Exception:  # a database that is away: the next look may do
                log.exception("the servers of leases could not be looked at")
            await asyncio.sleep(CALM_SECONDS)

    async def look_at_servers(self) -> None:
        """Look once at those that are due."""
        await self._presence.look(self._board.servers())
        seen = [
            record.id
            for record in self._board.live.values()
            if not record.server_seen and self._presence.running((record.user, record.server))
        ]
        if seen:
            await self._store.leases.note_servers_seen(seen)
            for lease_id in seen:
                record = self._board.live.get(lease_id)
                if record is not None:
                    self._board.take(replace(record, server_seen=True))

    async def _note_use(self) -> None:
        now = self._clock.monotonic()
        if now - self._noted_at < BUSY_NOTE_SECONDS:
            return
        self._noted_at = now
        await self._note(list(self._board.silences))
        await self._learn_what_is_typical()

    async def _learn_what_is_typical(self) -> None:
        for pool in self._board.offers:
            self._board.typical[pool] = await self._store.history.typical_seconds(pool)

    async def _note(self, lease_ids: list[str]) -> None:
        busy = {}
        for lease_id in lease_ids:
            silence = self._board.silences.get(lease_id)
            seconds = silence.take_busy_seconds() if silence is not None else 0.0
            if seconds:
                busy[lease_id] = seconds
        if busy:
            await self._store.leases.add_busy_seconds(busy)

    # --- apply

    async def _apply(self, decision: policy.Decision, record: LeaseRecord) -> bool:
        """Make a decision so. Returns whether something changed that the next decision should know."""
        now = self._clock.now()
        match decision:
            case policy.Grant(device_ids=device_ids):
                await self._grant(record, device_ids)
            case policy.StartWorker():
                return self._order("start", record.id, partial(self._start, record.id)) and False
            case policy.StopWorker(grace_seconds=grace):
                return self._order("stop", record.id, partial(self._stop, record.id, grace)) and False
            case policy.Activate(address=address):
                await self._ledger.change(
                    record, observed=Observed.READY, active_at=now, address=address, host_secret=None
                )
            case policy.Warn(warned=warned):
                await self._ledger.change(record, warned=warned)
            case policy.Unwarn():
                await self._ledger.change(record, warned=None)
            case policy.End(reason=reason, deadline=deadline, message=message):
                log.info("lease %s ends: %s %s", record.id, reason, message)
                await self._ledger.change(
                    record, **ending.begin(record, reason, now, deadline=deadline, message=message)
                )
            case policy.Close(reason=reason, message=message):
                log.info("lease %s has ended: %s %s", record.id, reason, message)
                await self._note([record.id])
                await self._ledger.change(record, **ending.close(reason, now, message=message))
                self._queue.forget(record.id)
                if record.granted_at is not None:  # also without a worker: a start may have broken off
                    self._order("forget", record.id, partial(self._forget, record.id))
        return True

    async def _grant(self, record: LeaseRecord, device_ids: tuple[str, ...]) -> None:
        now = self._clock.now()
        pool = self._board.pools()[record.pool]
        devices = {device.id: device for device in pool.devices}
        hours = self._board.rules(record).longest_lease_hours
        key = self._make_host_key()
        await self._ledger.change(
            record,
            observed=Observed.GRANTED,
            granted_at=now,
            key_at=None if record.public_key is None else now,
            ends_at=None if hours is None else now + timedelta(hours=hours),
            devices=tuple(devices[device_id] for device_id in device_ids),
            host_key=key.public,
            host_secret=key.private,
        )
        log.info("lease %s is granted %s of pool %s", record.id, ", ".join(device_ids) or "GPUs", pool.name)

    def _order(self, what: str, lease_id: str, job: Callable[[], Awaitable[None]]) -> bool:
        return self._queue.add((what, lease_id), job)

    async def _start(self, lease_id: str) -> None:
        record = self._board.live.get(lease_id)
        if record is None or record.wanted is not Wanted.HELD or record.public_key is None:
            return
        rules = self._board.rules(record)
        key = record.public_key
        order = WorkerOrder(
            lease_id=record.id,
            user=record.user,
            server=record.server,
            pool=record.pool,
            gpus=record.gpus,
            device_ids=record.device_ids,
            public_key=key,
            host_key=record.host_secret or "",
            grace_seconds=rules.worker_grace_seconds,
        )
        try:
            await self._backend.start(order)
        except StartRefused as refused:
            if lease_id in self._board.live:
                self._board.refusals[lease_id] = str(refused)
            raise
        await self._ledger.update(
            lease_id, lambda now: {"told_key": key} if now.told_key != key and not now.gone else None
        )

    async def _stop(self, lease_id: str, grace_seconds: int) -> None:
        await self._backend.stop(lease_id, grace_seconds=grace_seconds)
        record = self._board.live.get(lease_id)
        if record is None:
            return
        self._board.stop_told[lease_id] = self._clock.monotonic()
        running = (Observed.GRANTED, Observed.READY)
        await self._ledger.update(
            lease_id, lambda now: {"observed": Observed.STOPPING} if now.observed in running else None
        )

    async def _forget(self, lease_id: str) -> None:
        await self._backend.forget(lease_id)
        self._board.countdowns.forget(lease_id)
