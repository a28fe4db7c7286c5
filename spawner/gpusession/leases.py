"""One server's lease, kept in step with the broker.

Exists so that everything else in the server can ask "which lease, is its link up, what does it
wait for?" without knowing HTTP, streams or retries. Promises: a broker that goes away loses
nothing (the last known lease stays, what was asked is asked again with the same idempotency
key); a lease that somebody else requested for this server gets its key; each lease's private key
lives in this process only; endings and ends are told once each, to whoever was given
`on_ending` and `on_ended`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpulease import errors
from gpulease.events import Event
from gpulease.models import (
    Acknowledge,
    Lease,
    LeaseRequest,
    Link,
    Policy,
    Pool,
    PoolList,
    QuotaUse,
    Usage,
    UsageSeries,
)
from gpulease.states import LeaseState
from gpusession.broker import Broker
from gpusession.kernels.ports import WorkerLink

log = logging.getLogger(__name__)

BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits between attempts while the broker or the worker does not answer; the last one repeats."""

REFRESH_SECONDS = 60.0
"""How often the whole state is read afresh, whatever the stream said: a net below the events."""

CLOSING = "close "
"""Tasks of this name are let finish."""

GIVE_KEY_EVERY = 4
"""At the third of so many attempts to connect our key is given to the broker again."""

CONNECT_SECONDS = 60.0
"""How long an active lease's worker may stay silent before those who wait for it are told."""


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 pair for one lease, in OpenSSH's forms."""

    private: str
    public: str


Connect = Callable[[Link, KeyPair], Awaitable[WorkerLink]]
"""Open the one connection to a worker. Raises LinkLost."""


class LeaseKeeper:
    """Follows the broker and holds this server's lease that has not ended.

    All methods run on the session's loop. ``broker`` None: this server belongs to no broker.
    """

    def __init__(
        self,
        broker: Broker | None,
        server: str,
        *,
        make_key: Callable[[], KeyPair],
        connect: Connect,
        make_id: Callable[[], str],
        chance: Callable[[], float] = random.random,
        back_off_seconds: Sequence[float] = BACK_OFF_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        on_change: Callable[[], None] = lambda: None,
        on_usage: Callable[[dict[str, Any]], None] = lambda _data: None,
        on_ending: Callable[[Lease], None] = lambda _lease: None,
        on_ended: Callable[[Lease], None] = lambda _lease: None,
    ) -> None:
        self._broker, self._server = broker, server
        self._make_key, self._connect, self._make_id, self._chance = make_key, connect, make_id, chance
        self._back_off_seconds, self._connect_seconds = back_off_seconds, connect_seconds
        self._on_change, self._on_usage = on_change, on_usage
        self._on_ending, self._on_ended = on_ending, on_ended
        self.lease: Lease | None = None
        self.link: WorkerLink | None = None
        self.state: Literal["ok", "unreachable"] = "unreachable"
        self.trouble: errors.GpuhubError | None = None
        """Why the worker of an active lease cannot be reached; None: it can, or nobody knows yet."""
        self.user = ""
        self.pools: list[Pool] = []
        self.quotas: list[QuotaUse] = []
        self.policy: Policy | None = None
        self._keys: dict[str, KeyPair] = {}
        self._asked_with: KeyPair | None = None
        """The key in a request that has not been answered yet."""
        self._told_ending: set[str] = set()
        self._ended: dict[str, Lease] = {}
        self._last_event: int | None = None
        self._changed = asyncio.Event()
        self._poke = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asking = asyncio.Lock()
        self._closed = False

    # --- following

    async def run(self) -> None:
        """Follow the broker until cancelled."""
        if self._broker is None:
            return
        refresher = asyncio.create_task(self._refresh_forever())
        attempt = 0
        try:
            while True:
                try:
                    # An event may fall between a refresh and the stream's start: look once more soon after.
                    asyncio.get_running_loop().call_later(0.5, self._poke.set)
                    async for event in self._broker.events(self._last_event):
                        attempt = 0
                        self._reached(True)
                        self._take(event)
                except (errors.GpuhubError, ValueError) as error:
                    if attempt == 1:
                        log.warning("the broker cannot be followed: %s", error)
                    if not isinstance(error, errors.Unavailable):
                        self._reached(False)
                await self._pause(attempt)
                attempt += 1
        finally:
            refresher.cancel()

    async def _refresh_forever(self) -> None:
        attempt = 0
        while True:
            self._poke.clear()
            try:
                await self.refresh()
                attempt = 0
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._poke.wait(), REFRESH_SECONDS)
            except (errors.GpuhubError, ValueError) as error:
                # ValueError: an answer of another version, or of something that is no broker.
                if attempt == 1:
                    log.warning("the broker cannot be asked: %s", error)
                self._reached(False)
                await self._pause(attempt)
                attempt += 1

    async def refresh(self) -> None:
        """Read the present state. Raises what the broker raises."""
        broker = self._need()
        me = await broker.me()
        self.user, self.pools, self.quotas, self.policy = me.user, me.pools, me.quotas, me.policy
        self._reached(True)
        mine = [lease for lease in me.leases if lease.server == self._server and lease.user == me.user]
        known = self.lease
        if known is not None and all(lease.id != known.id for lease in mine):
            try:
                self._adopt(await broker.lease(known.id))
            except errors.NotFound:
                # The broker does not know it any more: it is over, whatever we believed.
                text = "The GPU service does not know this lease any more."
                over = {"state": LeaseState.ENDED, "link": None, "message": text}
                self._adopt(known.model_copy(update=over))
        for lease in sorted(mine, key=lambda found: found.created_at):
            self._adopt(lease)
        self._tell()

    def _take(self, event: Event) -> None:
        if event.id is not None:
            self._last_event = event.id
        if event.kind == "reset":
            self._poke.set()
        elif event.kind == "pools":
            self.pools = PoolList.model_validate(event.data).pools
            self._tell()
        elif event.kind == "usage":
            if self.lease is not None and event.data.get("lease") == self.lease.id:
                usage = event.data.get("usage")
                self.lease = self.lease.model_copy(
                    update={
                        "usage": Usage.model_validate(usage) if usage else None,
                        "idle_seconds": event.data.get("idle_seconds"),
                    }
                )
                self._on_usage(event.data)
        elif event.kind == "lease":
            self._adopt(Lease.model_validate(event.data))

    def _adopt(self, lease: Lease) -> None:
        """Take the newest word about a lease of this server; act on what it asks for."""
        if lease.server != self._server or (self.user and lease.user != self.user):
            return
        known = self.lease
        if lease.id in self._ended:
            return
        if known is not None and known.id == lease.id:
            if lease.revision < known.revision and lease.state is not LeaseState.ENDED:
                return
        elif lease.state is LeaseState.ENDED or known is not None:
            # Somebody else's past, or a second lease of this server: the first one stays until it ends.
            return
        if known is not None and known.id == lease.id and lease.usage is None:
            lease = lease.model_copy(update={"usage": known.usage, "idle_seconds": known.idle_seconds})
        if known is None or known.state is not lease.state:
            # What one may still use has changed with it.
            self._poke.set()
        self.lease = lease
        if lease.state is LeaseState.ENDED:
            self.lease = None
            self._ended[lease.id] = lease
            self._keys.pop(lease.id, None)
            self._stop("connect")
            self._stop("key")
            self._on_ended(lease)
            # Now, not later: the next lease must not find the link of this one.
            link, self.link, self.trouble = self.link, None, None
            if link is not None:
                self._start(f"{CLOSING}{lease.id}", link.close())
            self._poke.set()
        elif lease.state is LeaseState.ENDING:
            self._stop("connect")
            if lease.id not in self._told_ending:
                self._told_ending.add(lease.id)
                self._on_ending(lease)
        else:
            if lease.needs_key and "key" not in self._running():
                self._start("key", self._give_key(lease.id))
            if lease.state is LeaseState.ACTIVE and lease.link is not None and self.link is None:
                self._ensure_connecting()
        self._tell()

    def latest(self, lease: Lease) -> Lease:
        """Return what is known now of a lease that was this server's."""
        held = self.lease is not None and self.lease.id == lease.id
        return self.lease if held else self._ended.get(lease.id, lease)

    def _reached(self, well: bool) -> None:
        state: Literal["ok", "unreachable"] = "ok" if well else "unreachable"
        if state != self.state:
            self.state = state
            log.info("the broker is %s", state)
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()

    async def changed(self) -> None:
        """Wait for the next change of anything here."""
        await self._changed.wait()

    # --- the link

    async def _give_key(self, lease_id: str) -> None:
        if lease_id not in self._keys:
            # News of a lease can overtake the answer to our request for it, which carried a key already.
            self._keys[lease_id] = self._asked_with or self._make_key()
        pair = self._keys[lease_id]
        attempt = 0
        while self.lease is not None and self.lease.id == lease_id:
            try:
                self._adopt(await self._need().set_key(lease_id, pair.public))
                return
            except errors.Unavailable:
                await self._pause(attempt)
                attempt += 1
            except errors.GpuhubError as error:
                log.warning("the lease's key was not taken: %s", error.message)
                return

    def _ensure_connecting(self) -> None:
        if "connect" not in self._running():
            self._start("connect", self._connect_link())

    async def _connect_link(self) -> None:
        """Connect to the active lease's worker; try again until it works or the lease is on its way out."""
        loop = asyncio.get_running_loop()
        began, attempt = loop.time(), 0
        while (
            self.lease is not None and self.lease.state is LeaseState.ACTIVE and self.lease.link is not None
        ):
            lease = self.lease
            try:
                if lease.id not in self._keys:
                    # Granted to an earlier life of this server: its key died with it.
                    await self._give_key(lease.id)
                link = await self._connect(lease.link, self._keys[lease.id])
            except (errors.GpuhubError, OSError, KeyError, TimeoutError) as error:
                log.info("the worker of lease %s does not answer yet: %s", lease.id, error)
                if loop.time() - began > self._connect_seconds and self.trouble is None:
                    self.trouble = errors.LinkLost("The GPU was granted, but its worker does not answer.")
                    self._tell()
                if attempt % GIVE_KEY_EVERY == 2:
                    # It may have been told an older key than ours.
                    await self._give_key(lease.id)
                await self._pause(attempt)
                attempt += 1
                continue
            if self.lease is None or self.lease.id != lease.id:
                await link.close()
                return
            self.link, self.trouble = link, None
            self._start("watch", self._watch_link(link))
            self._tell()
            return

    async def _watch_link(self, link: WorkerLink) -> None:
        why = await asyncio.shield(link.lost)
        if self.link is link:
            log.warning("the link to the worker was lost: %s", why)
            self.link = None
            self._tell()
            lease = self.lease
            if lease is not None and lease.state is LeaseState.ACTIVE and not self._closed:
                self._ensure_connecting()

    async def _close_link(self) -> None:
        link, self.link, self.trouble = self.link, None, None
        if link is not None:
            await link.close()

    async def linked(self, say: Callable[[Lease | None], None] = lambda _lease: None) -> WorkerLink:
        """Wait for this server's link; ``say`` hears each change meanwhile.

        Raises LeaseOver when the lease ends first, LinkLost when its worker stays silent.
        """
        lease_id = None
        while True:
            changed, lease = self._changed, self.lease
            if lease is None or lease.state is LeaseState.ENDING or (lease_id and lease.id != lease_id):
                raise self._over(lease, lease_id)
            lease_id = lease.id
            if self.link is not None and lease.state is LeaseState.ACTIVE:
                return self.link
            if self.trouble is not None:
                raise self.trouble
            say(lease)
            await changed.wait()

    def _over(self, lease: Lease | None, lease_id: str | None) -> errors.GpuhubError:
        gone = lease or self._ended.get(lease_id or "")
        text = gone.message if gone and gone.message else "The GPU was released before the move."
        return errors.LeaseOver(text)

    # --- asking

    async def want(
        self,
        pool: str | None = None,
        gpus: int = 1,
        say: Callable[[Lease | None], None] = lambda _lease: None,
    ) -> Lease:
        """Return this server's lease, asking for one where there is none; waits out a broker that is away.

        Raises LimitReached, UnknownPool, InvalidOption, NotAllowed, Conflict (another pool, or fewer GPUs).
        """
        async with self._asking:
            while True:
                while (lease := self.lease) is not None and lease.state is LeaseState.ENDING:
                    changed = self._changed
                    say(lease)
                    await changed.wait()
                if lease is None:
                    lease = await self._request(pool, gpus, say)
                    if lease.state in (LeaseState.ENDING, LeaseState.ENDED):
                        continue
                if pool is not None and lease.pool != pool:
                    raise errors.Conflict(
                        f"This server already has a GPU of the pool {lease.pool}.",
                        hint="Release it first, then ask for the other kind.",
                    )
                if gpus > lease.gpus:
                    raise errors.Conflict(
                        f"This server has {lease.gpus} GPU(s) already, and {gpus} were asked for.",
                        hint="Release first, then ask for more.",
                    )
                return lease

    async def _request(self, pool: str | None, gpus: int, say: Callable[[Lease | None], None]) -> Lease:
        broker, key, pair, attempt = self._need(), self._make_id(), self._make_key(), 0
        request = LeaseRequest(pool=pool, gpus=gpus, server=self._server, public_key=pair.public)
        self._asked_with = pair
        try:
            while True:
                try:
                    lease = await broker.request(request, key)
                    break
                except errors.Unavailable:
                    self._reached(False)
                    say(None)
                    await self._pause(attempt)
                    attempt += 1
        finally:
            self._asked_with = None
        self._reached(True)
        self._keys.setdefault(lease.id, pair)
        self._adopt(lease)
        return lease

    async def keep(self) -> Lease:
        """Answer the warning. Raises NotFound, KeepUsedUp, LeaseOver, Unavailable."""
        lease = await self._need().keep(self._have().id)
        self._adopt(lease)
        return lease

    async def release(self) -> Lease:
        """Give the lease back; what runs there is saved and moved first. Raises NotFound, Unavailable."""
        lease = await self._need().release(self._have().id)
        self._adopt(lease)
        return lease

    async def usage(self) -> UsageSeries:
        if self._broker is None or self.lease is None:
            return UsageSeries(times=[], utilisation_percent=[], memory_bytes=[])
        return await self._broker.usage(self.lease.id)

    async def hint_cell(self, running: bool) -> None:
        """Tell the broker whether a cell runs on the GPU; a broker that does not hear it is no harm."""
        lease = self.lease
        if self._broker is not None and lease is not None and lease.state is LeaseState.ACTIVE:
            with contextlib.suppress(errors.GpuhubError):
                await self._broker.hint_cell(lease.id, running)

    async def acknowledge(self, lease_id: str, done: Acknowledge) -> None:
        """Tell the broker that the worker may stop; asked again until it hears it or knows better."""
        attempt = 0
        while lease_id not in self._ended:
            try:
                self._adopt(await self._need().acknowledge(lease_id, done))
                return
            except errors.Unavailable:
                await self._pause(attempt)
                attempt += 1
            except errors.GpuhubError as error:
                log.info("the broker did not want the acknowledgement: %s", error.message)
                return

    # --- the inside

    def _have(self) -> Lease:
        if self.lease is None:
            raise errors.NotFound("This server has no GPU and waits for none.")
        return self.lease

    def _need(self) -> Broker:
        if self._broker is None:
            raise errors.Unavailable(
                "This server is not connected to a GPU service.",
                hint="Start it through the hub, or set GPUHUB_BROKER_URL.",
            )
        return self._broker

    async def _pause(self, attempt: int) -> None:
        base = self._back_off_seconds[min(attempt, len(self._back_off_seconds) - 1)]
        await asyncio.sleep(base * (0.75 + 0.5 * self._chance()))

    def _running(self) -> set[str]:
        return {name for name, task in self._tasks.items() if not task.done()}

    def _start(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_failure)
        self._tasks = {known: one for known, one in self._tasks.items() if not one.done()} | {name: task}

    def _stop(self, name: str) -> None:
        task = self._tasks.get(name)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            del self._tasks[name]  # the next of this name need not wait until this one has noticed

    async def close(self) -> None:
        """Close the link and the connection to the broker; the lease stays as it is."""
        self._closed = True
        tasks = [task for task in self._tasks.values() if task is not asyncio.current_task()]
        for task in tasks:
            if not task.get_name().startswith(CLOSING):
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_link()
        if self._broker is not None:
            await self._broker.close()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("unexpected failure in %s of a lease", task.get_name(), exc_info=task.exception())
